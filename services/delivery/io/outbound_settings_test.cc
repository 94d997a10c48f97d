// What a queue's settings change about a connection: what of a host's extensions is used, how long
// it is waited for, and what becomes of a message whose transfer breaks off.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "services/config/policy_view.h"
#include "services/delivery/io/outbound_fixture.h"
#include "services/delivery/io/outbound_terms.h"

namespace sluice::delivery {
namespace {

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
constexpr auto kPermanent = queue::v1::RECIPIENT_OUTCOME_PERMANENT;

class OutboundSettingsTest : public testing::OutboundFixture {
 protected:
  // The result of one message on a connection of its own.
  queue::v1::GroupResult Deliver() {
    recorder_.results.clear();
    recorder_.end.reset();
    server_.commands.clear();
    recorder_.on_ready = [this] {
      Transaction group = Group(1, "x\r\n", {"a@e.net"});
      auto lease = std::make_shared<queue::v1::Lease>(*group.lease);
      lease->mutable_message()->set_body_type(common::v1::BODY_TYPE_8BITMIME);
      lease->mutable_message()->set_envid("env");
      lease->mutable_deliveries(0)->set_notify(2);
      group.lease = std::move(lease);
      connection_->Send(std::move(group));
    };
    Connect();
    EXPECT_TRUE(UntilResults(1));
    connection_.reset();
    return recorder_.results.empty() ? queue::v1::GroupResult() : recorder_.results[0];
  }
  bool Said(std::string_view begin) const {
    return std::any_of(server_.commands.begin(), server_.commands.end(),
                       [&](const std::string& each) { return each.starts_with(begin); });
  }
  bool MailHas(std::string_view parameter) const {
    for (const std::string& each : server_.commands) {
      if (each.starts_with("MAIL ")) return each.find(parameter) != std::string::npos;
    }
    return false;
  }
};

TEST_F(OutboundSettingsTest, ExtensionsCanBeIgnored) {
  server_.answers["EHLO"] = "250-mx.example\r\n250-8BITMIME\r\n250 DSN\r\n";
  queue::v1::GroupResult result = Deliver();
  EXPECT_TRUE(MailHas(" BODY=8BITMIME"));
  EXPECT_TRUE(MailHas(" ENVID=env"));
  EXPECT_TRUE(Said("RCPT TO:<a@e.net> NOTIFY=SUCCESS"));
  EXPECT_TRUE(result.attempt().dsn_passed_on());
  settings_->set_ignore_8bitmime(true);
  settings_->set_ignore_dsn(true);
  result = Deliver();
  EXPECT_EQ(result.outcome(), kDelivered);
  EXPECT_FALSE(MailHas("BODY="));
  EXPECT_FALSE(MailHas("ENVID="));
  EXPECT_FALSE(Said("RCPT TO:<a@e.net> NOTIFY"));
  EXPECT_FALSE(result.attempt().dsn_passed_on());  // the report is ours to make, then
}

TEST_F(OutboundSettingsTest, ChunkingCanBeIgnored) {
  server_.answers["EHLO"] = "250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n";
  server_.answers["BDAT"] = "550 5.6.0 not this one\r\n";
  EXPECT_EQ(Deliver().outcome(), kPermanent);
  EXPECT_TRUE(Said("BDAT 3 LAST"));
  settings_->set_ignore_chunking(true);
  EXPECT_EQ(Deliver().outcome(), kDelivered);
  EXPECT_FALSE(Said("BDAT"));
}

// log-commands: what the session shows of itself comes to the owner, of whom the log is.
TEST_F(OutboundSettingsTest, CommandsAndRepliesAreTraced) {
  Deliver();
  EXPECT_EQ(recorder_.trace, "");
  settings_->set_log_commands(true);
  settings_->set_auth_username("tim");
  settings_->set_auth_password("hunter2");
  settings_->set_use_unencrypted_plain_auth(true);
  server_.answers["EHLO"] = "250-mx.example\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n";
  Deliver();
  EXPECT_EQ(recorder_.trace,
            "S: 220 mx.example\nC: EHLO out.example\nS: 250 mx.example\nAUTH PLAIN\nPIPELINING\n"
            "C: AUTH PLAIN (response hidden)\nS: 250 2.0.0 (text hidden)\n"
            "C: MAIL FROM:<from@example.org>\nC: RCPT TO:<a@e.net>\nC: DATA\n"
            "S: 250 2.0.0 ok\nS: 250 2.0.0 ok\nS: 354 go ahead\nC: .\nS: 250 2.0.0 ok\n");
}

// RFC 5321 section 4.5.3.2: each wait has a directive of its own. The others would outlast the
// test.
TEST_F(OutboundSettingsTest, EachReplyHasItsTimeout) {
  constexpr int64_t kShortUs = 100'000;
  constexpr int64_t kLongUs = 3'600'000'000;
  const struct {
    const char* command;
    void (policy::v1::QueueSettings::*set)(int64_t);
    common::v1::Stage stage;
  } kCases[] = {
      {"MAIL", &policy::v1::QueueSettings::set_smtp_mail_reply_timeout_us, common::v1::STAGE_MAIL},
      {"RCPT", &policy::v1::QueueSettings::set_smtp_rcpt_reply_timeout_us, common::v1::STAGE_RCPT},
      {"DATA", &policy::v1::QueueSettings::set_smtp_data_initiation_timeout_us,
       common::v1::STAGE_DATA},
      {".", &policy::v1::QueueSettings::set_smtp_data_termination_timeout_us,
       common::v1::STAGE_FINAL_DOT}};
  server_.answers["EHLO"] = "250 mx.example\r\n";  // each reply is that to the last command
  const auto answers = server_.answers;
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.command);
    settings_->set_smtp_command_reply_timeout_us(kLongUs);
    settings_->set_smtp_mail_reply_timeout_us(kLongUs);
    settings_->set_smtp_rcpt_reply_timeout_us(kLongUs);
    settings_->set_smtp_data_initiation_timeout_us(kLongUs);
    settings_->set_smtp_data_termination_timeout_us(kLongUs);
    (settings_.get()->*each.set)(kShortUs);
    server_.answers = answers;
    server_.answers[each.command] = "-";
    const queue::v1::GroupResult result = Deliver();
    EXPECT_EQ(result.outcome(), kTransient);
    EXPECT_EQ(result.reply().stage(), each.stage);
    EXPECT_TRUE(result.reply().local());
  }
}

TEST_F(OutboundSettingsTest, TheGreetingAndEhloHaveTheirs) {
  constexpr int64_t kShortUs = 100'000;
  constexpr int64_t kLongUs = 3'600'000'000;
  for (const bool greets : {false, true}) {
    SCOPED_TRACE(greets);
    settings_->set_smtp_greeting_timeout_us(greets ? kLongUs : kShortUs);
    settings_->set_smtp_command_reply_timeout_us(greets ? kShortUs : kLongUs);
    server_.greeting = greets ? "220 mx.example\r\n" : "220-";
    server_.answers["EHLO"] = "-";
    recorder_.end.reset();
    Connect();
    ASSERT_TRUE(UntilClosed());
    EXPECT_FALSE(recorder_.ready);
    EXPECT_EQ(recorder_.end->reply.stage(),
              greets ? common::v1::STAGE_EHLO : common::v1::STAGE_GREETING);
    EXPECT_TRUE(recorder_.end->reply.local());
    connection_.reset();
  }
}

// What is said where nothing is: no less than RFC 5321 sections 4.5.3.2.1 to 4.5.3.2.6 ask for.
TEST_F(OutboundSettingsTest, TheDefaultsAreThoseOfTheRfc) {
  ConnectTarget target;
  target.settings = config::PolicyView::Defaults()->ForQueue("example.com", "default", "");
  const mail::SmtpClientOptions defaults = SessionOptions(target, mail::StartTls::kNever);
  const auto or_command = [&](Duration own) {
    return own.count() > 0 ? own : defaults.command_timeout;
  };
  using std::chrono::minutes;
  EXPECT_GE(defaults.greeting_timeout, minutes(5));
  EXPECT_GE(defaults.command_timeout, minutes(5));
  EXPECT_GE(or_command(defaults.mail_timeout), minutes(5));
  EXPECT_GE(or_command(defaults.rcpt_timeout), minutes(5));
  EXPECT_GE(or_command(defaults.data_initiation_timeout), minutes(2));
  EXPECT_GE(defaults.data_timeout, minutes(3));
  EXPECT_GE(defaults.final_timeout, minutes(10));
}

TEST_F(OutboundSettingsTest, ATransferThatBreaksOff) {
  const auto with = [&](bool any, bool pix, const std::string& greeting) {
    settings_->set_bounce_upon_transfer_failure(any);
    settings_->set_bounce_upon_pix_transfer_failure(pix);
    server_.greeting = greeting;
    return Deliver();
  };
  const std::string plain = "220 mx.example\r\n";
  const std::string masked = "220 *****2***0*00\r\n";
  server_.answers["."] = "";  // closes
  EXPECT_EQ(with(false, false, plain).outcome(), kTransient);
  const queue::v1::GroupResult bounced = with(true, false, plain);
  EXPECT_EQ(bounced.outcome(), kPermanent);
  EXPECT_EQ(bounced.reply().enhanced(), "5.4.2");
  EXPECT_EQ(with(false, true, plain).outcome(), kTransient);
  EXPECT_EQ(with(false, true, masked).outcome(), kPermanent);
  server_.answers.erase(".");
  server_.answers["RCPT"] = "";  // no transfer had begun
  EXPECT_EQ(with(true, true, masked).outcome(), kTransient);
}

TEST_F(OutboundSettingsTest, SilenceBehindTheMessageMayCountAsDelivered) {
  server_.answers["."] = "-";
  settings_->set_smtp_data_termination_timeout_us(100'000);
  EXPECT_EQ(Deliver().outcome(), kTransient);
  settings_->set_assume_delivery_upon_data_termination_timeout(true);
  const queue::v1::GroupResult result = Deliver();
  EXPECT_EQ(result.outcome(), kDelivered);
  EXPECT_TRUE(result.reply().local());
}

}  // namespace
}  // namespace sluice::delivery
