// Proves which of all that may name a virtual MTA wins: every combination of them, through whole
// sessions.
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "services/ingest/testing/ingest_fixture.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;

// From the weakest to the strongest. What the client's network says is the weakest, then the named
// source of the listener, <source {auth}>, the user's named source; the message itself goes before
// them all.
enum Says : uint32_t {
  kNetwork = 1,
  kListener = 2,
  kAuth = 4,
  kUser = 8,
  kPatternSender = 16,     // a second line of the pattern list
  kPatternRecipient = 32,  // its first one: lines go before kinds
  kHeader = 64,
  kMerge = 128,
  kAll = 256,
};
constexpr const char* kNames[] = {"network", "listener",  "auth",   "user",
                                  "sender",  "recipient", "header", "merge"};

std::string Strongest(uint32_t says) {
  std::string name = "default";  // the built-in one
  for (uint32_t i = 0; i < std::size(kNames); ++i) {
    if ((says & (1U << i)) != 0) name = kNames[i];
  }
  return name;
}

class SmtpVmtaChoiceTest : public testing::IngestFixture {
 protected:
  static std::shared_ptr<FakePolicy> Policy(uint32_t says) {
    auto policy = std::make_shared<FakePolicy>();
    for (const char* name : kNames) policy->AddVirtualMta(name);
    policy::v1::ClientSettings& network = *policy->loopback;
    network.set_allow_mailmerge(true);
    network.set_allow_unencrypted_plain_auth(true);
    network.set_process_x_virtual_mta(true);
    if ((says & kNetwork) != 0) network.set_default_virtual_mta("network");
    policy->listeners["127.0.0.1:25"].set_source("of-listener");
    auto& listener = policy->named_sources["of-listener"];
    if ((says & kListener) != 0) listener.set_default_virtual_mta("listener");
    auto& auth = policy->named_sources["{auth}"];
    if ((says & kAuth) != 0) auth.set_default_virtual_mta("auth");
    auto& own = policy->named_sources["of-user"];
    if ((says & kUser) != 0) own.set_default_virtual_mta("user");
    auto& user = policy->users.emplace_back();
    user.set_name("u");
    user.set_password("p");
    user.set_source("of-user");
    policy->pattern_list.set_name("choice");
    const auto line = [&](policy::v1::PatternRule::Subject subject, const char* vmta) {
      auto& rule = *policy->pattern_list.add_rules();
      rule.set_subject(subject);
      rule.set_regex("test$");
      rule.set_virtual_mta(vmta);
    };
    if ((says & kPatternRecipient) != 0) {
      line(policy::v1::PatternRule::SUBJECT_RCPT_TO, "recipient");
    }
    if ((says & kPatternSender) != 0) line(policy::v1::PatternRule::SUBJECT_MAIL_FROM, "sender");
    network.set_pattern_list("choice");
    return policy;
  }
  // Where a message goes.
  std::string Send(uint32_t says) {
    ingest_->SetPolicy(Policy(says));
    const std::string login = absl::Base64Escape(std::string("\0u\0p", 4));
    std::string text = "Subject: 1\r\n";
    if ((says & kHeader) != 0) text += "X-Virtual-MTA: header\r\n";
    text += "\r\nx\r\n.\r\n";
    auto client = Connect();
    client->Say("EHLO c\r\nAUTH PLAIN " + login + "\r\n");
    if ((says & kMerge) == 0) {
      client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n" + text);
    } else {
      client->Say(
          "XMRG FROM:<a@b.test>\r\nXDFN *vmta=merge\r\nRCPT TO:<x@y.test>\r\nXPRT 1 LAST\r\n" +
          text);
    }
    if (shard().taken.empty()) return "nowhere: " + client->heard();
    const common::v1::Delivery delivery = shard().taken.back().message.deliveries(0).delivery();
    shard().taken.clear();
    return delivery.vmta();
  }
};

TEST_F(SmtpVmtaChoiceTest, TheStrongestWinsInEveryCombination) {
  Start();
  for (uint32_t says = 0; says < kAll; ++says) EXPECT_EQ(Send(says), Strongest(says)) << says;
}

}  // namespace
}  // namespace sluice::ingest
