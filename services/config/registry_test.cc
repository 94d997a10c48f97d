// Proves that every directive has a field and a help, and every queue setting a directive.
#include "services/config/registry.h"

#include <set>

#include "gtest/gtest.h"
#include "services/config/cluster_rates.h"
#include "services/config/settings_defaults.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {
namespace {

using Field = google::protobuf::FieldDescriptor;

const google::protobuf::Descriptor* DescriptorOf(Target target) {
  switch (target) {
    case Target::kGlobalSettings:
      return policy::v1::GlobalSettings::descriptor();
    case Target::kQueueSettings:
      return policy::v1::QueueSettings::descriptor();
    case Target::kClientSettings:
      return policy::v1::ClientSettings::descriptor();
    case Target::kSourceSettings:
      return policy::v1::SourceSettings::descriptor();
    case Target::kVirtualMta:
      return policy::v1::VirtualMtaSection::descriptor();
    case Target::kPool:
      return policy::v1::PoolSection::descriptor();
    case Target::kListenerSettings:
      return policy::v1::ListenerSettings::descriptor();
    case Target::kSourceGroup:
      return policy::v1::SourceGroupSection::descriptor();
    case Target::kSmtpUser:
      return policy::v1::SmtpUserSection::descriptor();
    case Target::kCompiler:
    case Target::kNone:
      return nullptr;
  }
  return nullptr;
}

bool Fits(Grammar grammar, const Field& field) {
  const std::string message =
      field.message_type() == nullptr ? "" : std::string(field.message_type()->name());
  switch (grammar) {
    case Grammar::kBool:
      return field.cpp_type() == Field::CPPTYPE_BOOL;
    case Grammar::kCount:
      return field.cpp_type() == Field::CPPTYPE_UINT32 || message == "KeyedCounts";
    case Grammar::kDuration:
    case Grammar::kBoolOrTime:
      return field.cpp_type() == Field::CPPTYPE_INT64 && field.name().ends_with("_us");
    case Grammar::kDurationList:
      return message == "DurationList";
    case Grammar::kRate:
    case Grammar::kVolume:
      return message == "Rate" || message == "KeyedRates";
    case Grammar::kRateList:
      return message == "RateList";
    case Grammar::kSize:
      return field.cpp_type() == Field::CPPTYPE_UINT64;
    case Grammar::kText:
    case Grammar::kChoice:
    case Grammar::kHostName:
    case Grammar::kSelector:
    case Grammar::kReplyText:
    case Grammar::kHeader:
    case Grammar::kIdentity:
    case Grammar::kIp:
    case Grammar::kEmail:
    case Grammar::kQueueName:
    case Grammar::kTargetName:
    case Grammar::kSectionName:
    case Grammar::kFile:
    case Grammar::kUrl:
    case Grammar::kMailOrRegex:
    case Grammar::kDomainKey:
    case Grammar::kArguments:
    case Grammar::kSchedule:
    case Grammar::kGrowth:
    case Grammar::kThrottleOn:
    case Grammar::kIpDomain:
    case Grammar::kRegex:
      return field.cpp_type() == Field::CPPTYPE_STRING || message == "StringList";
    case Grammar::kIpPorts:
    case Grammar::kHostPorts:
    case Grammar::kDomains:
    case Grammar::kWords:
    case Grammar::kDomainPatterns:
    case Grammar::kHeaderLines:
    case Grammar::kIps:
    case Grammar::kNetworks:
    case Grammar::kEmails:
    case Grammar::kHeaders:
      return message == "StringList";
    case Grammar::kTlsCertificate:
      return message == "TlsCertificate" || message == "TlsCertificates";
    case Grammar::kSourceHost:
    case Grammar::kPattern:
    case Grammar::kAddressPair:
    case Grammar::kFolderPair:
    case Grammar::kAddressRule:
    case Grammar::kPatternLine:
      return false;
  }
  return false;
}

TEST(RegistryTest, EveryDirectiveHasAFieldThatFitsAndAHelp) {
  std::set<std::pair<uint32_t, std::string_view>> seen;
  for (const Directive& directive : AllDirectives()) {
    EXPECT_TRUE(directive.help.ends_with('.')) << directive.name;
    EXPECT_NE(directive.scopes, 0u) << directive.name;
    for (const Scope scope : kAllScopes) {
      if ((directive.scopes & scope) == 0) continue;
      EXPECT_TRUE(seen.emplace(scope, directive.name).second) << directive.name;
      EXPECT_EQ(FindDirective(scope, directive.name), &directive) << directive.name;
      for (const auto alias : directive.aliases) {
        EXPECT_TRUE(seen.emplace(scope, alias).second) << alias;
      }
    }
    const auto* const descriptor = DescriptorOf(directive.target);
    if (descriptor == nullptr) continue;
    const auto* const field = descriptor->FindFieldByName(std::string(directive.field));
    ASSERT_NE(field, nullptr) << directive.name;
    EXPECT_TRUE(Fits(directive.grammar, *field)) << directive.name;
  }
}

// What a file cannot say, operators cannot change.
TEST(RegistryTest, EveryQueueSettingHasADirective) {
  std::set<std::string> said = {"penalties"};                             // <smtp-pattern> sections
  for (const Span span : {Span::kDomain, Span::kPool, Span::kBinding}) {  // <limits>
    for (const char* directive : {"throttle", "error-throttle", "defer-throttle"}) {
      said.insert(ClusterRateField(span, directive)->name());
    }
  }
  for (const Directive& directive : AllDirectives()) {
    if (directive.target == Target::kQueueSettings) said.emplace(directive.field);
  }
  const auto* const descriptor = policy::v1::QueueSettings::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    EXPECT_TRUE(said.contains(std::string(descriptor->field(i)->name())))
        << descriptor->field(i)->name();
  }
}

TEST(RegistryTest, DefaultsAreWrittenAsOperatorsDo) {
  EXPECT_EQ(DefaultOf(*FindDirective(kDomain, "bounce-after")), "4d12h");
  EXPECT_EQ(DefaultOf(*FindDirective(kDomain, "retry-after")), "10m");
  EXPECT_EQ(DefaultOf(*FindDirective(kDomain, "max-msg-rate")), "unlimited");
  EXPECT_EQ(DefaultOf(*FindDirective(kGlobal, "max-message-size")), "64M");
  EXPECT_EQ(DefaultOf(*FindDirective(kSource, "add-received-header")), "yes");
  EXPECT_EQ(DefaultOf(*FindDirective(kDomain, "notify-of-delay-every")), "4h");
  EXPECT_EQ(DefaultOf(*FindDirective(kDomain, "backoff-to-normal-after")), "never");
  EXPECT_EQ(DefaultOf(*FindDirective(kGlobal, "include")), "");
}

TEST(RegistryTest, ANameMeansWhatItsSectionSays) {
  EXPECT_EQ(FindDirective(kGlobal, "max-smtp-out")->field, "total_max_smtp_out");
  EXPECT_EQ(FindDirective(kDomain, "max-smtp-out")->target, Target::kQueueSettings);
  EXPECT_EQ(FindDirective(kVirtualMta, "max-smtp-out")->target, Target::kVirtualMta);
  EXPECT_EQ(FindDirective(kSource, "max-smtp-out")->target, Target::kSourceSettings);
  EXPECT_EQ(FindDirective(kPool, "bounce-after"), nullptr);
  EXPECT_EQ(ScopesOf("always-allow-relaying"), uint32_t{kGlobal | kSource});
}

}  // namespace
}  // namespace sluice::config
