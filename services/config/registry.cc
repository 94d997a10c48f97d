#include "services/config/registry.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/config/diagnostic.h"
#include "services/config/registry_tables.h"
#include "services/config/settings_defaults.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

struct Registry {
  std::vector<Directive> directives;
  std::vector<SectionKind> sections = Sections();
  absl::flat_hash_map<std::pair<uint32_t, std::string>, const Directive*> by_name;
  absl::flat_hash_set<std::string> regex_names;
  absl::flat_hash_set<std::string> secret_names;

  Registry() {
    for (auto part :
         {GlobalDirectives, SourceDirectives, VirtualMtaDirectives, QueueDirectives,
          ListenerDirectives, AuthDirectives, TlsDirectives, LocalDirectives, EgressDirectives,
          BackoffDirectives, ReportDirectives, PlannedGlobalDirectives, PlannedClientDirectives,
          PlannedQueueDirectives, SectionDirectives, AccountingDirectives}) {
      for (Directive& directive : part()) directives.push_back(std::move(directive));
    }
    for (const Directive& directive : directives) {
      for (const Scope scope : kAllScopes) {
        if ((directive.scopes & scope) == 0) continue;
        by_name.emplace(std::pair(uint32_t{scope}, std::string(directive.name)), &directive);
        for (const std::string_view alias : directive.aliases) {
          by_name.emplace(std::pair(uint32_t{scope}, std::string(alias)), &directive);
        }
      }
      if (directive.grammar == Grammar::kRegex || directive.grammar == Grammar::kMailOrRegex ||
          directive.grammar == Grammar::kPatternLine || directive.grammar == Grammar::kPattern ||
          directive.grammar == Grammar::kAddressRule) {
        regex_names.emplace(directive.name);
      }
      if (!directive.secret) continue;
      secret_names.emplace(directive.name);
      for (const std::string_view alias : directive.aliases) secret_names.emplace(alias);
    }
  }
};

const Registry& TheRegistry() {
  static const auto* const registry = new Registry;
  return *registry;
}

const google::protobuf::Message* DefaultsOf(Target target) {
  switch (target) {
    case Target::kGlobalSettings:
      return &DefaultGlobalSettings();
    case Target::kQueueSettings:
      return &DefaultQueueSettings();
    case Target::kClientSettings:
      return &DefaultClientSettings();
    default:
      return nullptr;
  }
}

}  // namespace

std::string_view ScopeName(Scope scope) {
  if (scope == kGlobal) return "global";
  static const auto* const names = [] {
    auto* map = new absl::flat_hash_map<uint32_t, std::string>;
    for (const SectionKind& section : AllSections()) {
      map->emplace(section.scope, absl::StrCat("<", std::string(section.name), ">"));
    }
    return map;
  }();
  const auto found = names->find(scope);
  return found == names->end() ? std::string_view() : std::string_view(found->second);
}

std::string_view StatusName(Status status) {
  switch (status) {
    case Status::kActive:
      return "effective";
    case Status::kNotYet:
    case Status::kRefused:
      return "planned";
    case Status::kNoEffect:
      return "no meaning here";
    case Status::kUnsupported:
      return "unsupported";
  }
  return "";
}

const std::vector<SectionKind>& AllSections() { return TheRegistry().sections; }

const SectionKind* FindSection(std::string_view name) {
  for (const SectionKind& section : AllSections()) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

bool IsSecret(std::string_view name) {
  return TheRegistry().secret_names.contains(std::string(name));
}

bool TakesRegex(std::string_view name) {
  return TheRegistry().regex_names.contains(std::string(name));
}

const std::vector<Directive>& AllDirectives() { return TheRegistry().directives; }

const Directive* FindDirective(Scope scope, std::string_view name) {
  const auto& by_name = TheRegistry().by_name;
  const auto found = by_name.find(std::pair(uint32_t{scope}, std::string(name)));
  return found == by_name.end() ? nullptr : found->second;
}

std::vector<std::string_view> NamesIn(Scope scope) {
  std::vector<std::string_view> names;
  for (const auto& [key, directive] : TheRegistry().by_name) {
    if (key.first == scope) names.emplace_back(key.second);
  }
  std::sort(names.begin(), names.end());
  return names;
}

uint32_t ScopesOf(std::string_view name) {
  uint32_t scopes = 0;
  for (const Scope scope : kAllScopes) {
    if (FindDirective(scope, name) != nullptr) scopes |= scope;
  }
  return scopes;
}

namespace {

std::string ValueSyntax(const Directive& directive) {
  std::string syntax;
  if (!directive.syntax.empty()) return std::string(directive.syntax);
  switch (directive.grammar) {
    case Grammar::kBool:
      return "yes | no";
    case Grammar::kCount:
      syntax = "N";
      break;
    case Grammar::kDuration:
      syntax = "TIME (5s, 10m, 1h30m, 4d12h)";
      break;
    case Grammar::kDurationList:
      return "TIME,TIME,... (10m,30m,1h)";
    case Grammar::kRate:
      return "N/UNIT (100/h, 5/10s) | unlimited";
    case Grammar::kSize:
      syntax = "SIZE (512k, 50M)";
      break;
    case Grammar::kText:
      return directive.name == "include" ? "FILE | PATTERN" : "TEXT";
    case Grammar::kChoice:
      return absl::StrReplaceAll(
          absl::string_view(directive.choices.data(), directive.choices.size()), {{",", " | "}});
    case Grammar::kHostName:
      return "HOSTNAME";
    case Grammar::kSelector:
      return "SELECTOR";
    case Grammar::kIp:
      return "IP";
    case Grammar::kIpPorts:
      return "IP[:PORT] ...";
    case Grammar::kHostPorts:
      return "HOST[:PORT] ...";
    case Grammar::kDomains:
      return directive.name == "domain-macro" ? "NAME DOMAIN,DOMAIN,..." : "DOMAIN ...";
    case Grammar::kDomainPatterns:
      return "DOMAIN | *.DOMAIN | [*.]DOMAIN ...";
    case Grammar::kWords:
      syntax = "NAME ...";
      break;
    case Grammar::kHeaderLines:
      return "\"NAME: VALUE\"";
    case Grammar::kReplyText:
      return "TEXT";
    case Grammar::kEmail:
      return "ADDRESS";
    case Grammar::kQueueName:
      return "DOMAIN[/VIRTUAL-MTA]";
    case Grammar::kTargetName:
      syntax = "VIRTUAL-MTA | POOL";
      break;
    case Grammar::kTlsCertificate:
      return "FILE [PASSWORD]";
    case Grammar::kSourceHost:
      return "IP [HOSTNAME]";
    case Grammar::kSectionName:
      return "NAME";
    case Grammar::kPattern:
      return directive.name == "header" ? "NAME /REGEX/ virtual-mta=NAME"
                                        : "/REGEX/ virtual-mta=NAME";
    case Grammar::kAddressPair:
      return "ADDRESS ADDRESS";
    case Grammar::kFolderPair:
      return "FOLDER BAD-FOLDER";
    case Grammar::kAddressRule:
      return "ADDRESS | /REGEX/";
    case Grammar::kVolume:
      return "SIZE/UNIT (10M/h) | unlimited";
    case Grammar::kRateList:
      return "N/day,N/day,...";
    case Grammar::kIps:
      return "IP ...";
    case Grammar::kNetworks:
      return "NETWORK ...";
    case Grammar::kEmails:
      return "ADDRESS,ADDRESS,...";
    case Grammar::kHeader:
      return "HEADER";
    case Grammar::kHeaders:
      return "HEADER,HEADER,...";
    case Grammar::kFile:
      return "FILE";
    case Grammar::kUrl:
      return "http[s]://HOST[:PORT][/PATH]";
    case Grammar::kRegex:
      return "/REGEX/";
    case Grammar::kMailOrRegex:
      return "ADDRESS | /REGEX/";
    case Grammar::kIdentity:
      syntax = "ADDRESS | DOMAIN";
      break;
    case Grammar::kDomainKey:
      return "SELECTOR,DOMAIN | *,FILE";
    case Grammar::kBoolOrTime:
      return "yes | no | TIME | never";
    case Grammar::kArguments:
      return "WORD ...";
    case Grammar::kSchedule:
      return "HH:MM to HH:MM for TIME max-msg-rate RATE";
    case Grammar::kGrowth:
      return "N%/day";
    case Grammar::kThrottleOn:
      return "RATE on CODE,CODE,...";
    case Grammar::kIpDomain:
      return "IP domain = DOMAIN;";
    case Grammar::kPatternLine:
      return "/REGEX/ RESULT";
  }
  if (directive.zero_is_unlimited) syntax += " | 0";
  if (directive.unlimited) {
    absl::StrAppend(&syntax, directive.grammar == Grammar::kDuration ? " | never" : " | unlimited");
  }
  if (directive.grammar != Grammar::kChoice && !directive.choices.empty()) {
    if (directive.grammar == Grammar::kWords) syntax.clear();
    absl::StrAppend(
        &syntax, syntax.empty() ? "" : " | ",
        absl::StrReplaceAll(absl::string_view(directive.choices.data(), directive.choices.size()),
                            {{",", directive.grammar == Grammar::kWords ? "," : " | "}}));
  }
  return syntax;
}

}  // namespace

std::string SyntaxOf(const Directive& directive) {
  const std::string value = ValueSyntax(directive);
  switch (directive.key) {
    case Key::kNetwork:
      return absl::StrCat("NETWORK ", value);
    case Key::kHost:
      return absl::StrCat("HOST ", value);
    case Key::kWord:
      return absl::StrCat("NAME ", value);
    case Key::kNothing:
      return value;
  }
  return value;
}

std::string DefaultOf(const Directive& directive) {
  if (directive.status != Status::kActive) return "";
  if (!directive.unset.empty()) return std::string(directive.unset);
  if (directive.field.empty()) return "";
  const google::protobuf::Message* const message = DefaultsOf(directive.target);
  const auto* const field =
      message == nullptr ? nullptr
                         : message->GetDescriptor()->FindFieldByName(std::string(directive.field));
  if (field == nullptr || field->is_repeated() ||
      !message->GetReflection()->HasField(*message, field)) {
    // A field that nobody set.
    const bool rate = directive.grammar == Grammar::kRate || directive.grammar == Grammar::kVolume;
    return directive.grammar == Grammar::kBool ? "no" : rate ? "unlimited" : "";
  }
  const auto* const reflection = message->GetReflection();
  using Field = google::protobuf::FieldDescriptor;
  switch (field->cpp_type()) {
    case Field::CPPTYPE_BOOL:
      return reflection->GetBool(*message, field) ? "yes" : "no";
    case Field::CPPTYPE_UINT32:
      return absl::StrCat(reflection->GetUInt32(*message, field));
    case Field::CPPTYPE_UINT64:
      return SizeText(reflection->GetUInt64(*message, field), "");
    case Field::CPPTYPE_INT64: {
      const int64_t us = reflection->GetInt64(*message, field);
      return us == 0 && directive.unlimited ? "never" : DurationText(static_cast<uint64_t>(us));
    }
    case Field::CPPTYPE_STRING:
      return reflection->GetString(*message, field);
    case Field::CPPTYPE_MESSAGE: {
      const auto& value = reflection->GetMessage(*message, field);
      if (const auto* rate = dynamic_cast<const policy::v1::Rate*>(&value)) {
        return rate->unlimited() ? "unlimited" : absl::StrCat(rate->count());
      }
      std::string text;
      if (const auto* list = dynamic_cast<const policy::v1::DurationList*>(&value)) {
        for (const int64_t us : list->us()) {
          absl::StrAppend(&text, text.empty() ? "" : ",", DurationText(static_cast<uint64_t>(us)));
        }
      }
      return text;
    }
    default:
      return "";
  }
}

bool MayBeSecret(std::string_view name) {
  if (IsSecret(name)) return true;
  // Borders of sections and lines of patterns are no names.
  if (ScopesOf(name) != 0 || name.starts_with('<') || name.starts_with('/')) return false;
  std::vector<std::string_view> secrets;
  for (const std::string& secret : TheRegistry().secret_names) secrets.push_back(secret);
  if (ClosestName(name, secrets)) return true;
  const std::string text = absl::AsciiStrToLower(absl::string_view(name.data(), name.size()));
  for (const char* const word :
       {"pass", "pwd", "secret", "token", "key", "credential", "community", "auth"}) {
    if (text.find(word) != text.npos) return true;
  }
  return false;
}

bool AsksForNothing(const Directive& directive, std::string_view value) {
  const std::string text = absl::AsciiStrToLower(absl::string_view(value.data(), value.size()));
  if (text.empty() || text == "no" || text == "false" || text == "unlimited" || text == "never" ||
      text == "none" || text == "smtp" || text == "lmtp") {
    return true;
  }
  return text == "0" && directive.unlimited == 0u;
}

}  // namespace sluice::config
