// Proves the rules that differ by client: named sources of listeners, limits, refusals that wait,
// header work in whole sessions.
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/ingest/testing/ingest_fixture.h"
#include "services/mail/message_id.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;
using testing::SmtpClient;

constexpr char kListener[] = "127.0.0.1:587";

class SmtpRulesTest : public testing::IngestFixture {};

TEST_F(SmtpRulesTest, AListenersSourceHoldsForWhoComesByIt) {
  policy_->listeners[kListener].set_source("{submission}");
  policy_->named_sources["{submission}"].set_allow_relay(true);
  policy_->named_sources["{submission}"].set_max_message_size(1000);
  const char kMail[] = "EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\n";
  EXPECT_NE(Connect("192.0.2.1")->Say(kMail).find("\r\n550 5.7.1"), std::string::npos);
  auto client = Connect("192.0.2.1", kListener);
  const std::string heard = client->Say(kMail);
  EXPECT_NE(heard.find("SIZE 1000\r\n"), std::string::npos) << heard;
  EXPECT_TRUE(heard.ends_with("250 2.1.5 Recipient OK\r\n")) << heard;
  // A new policy holds from the next MAIL, with the listener's source again.
  auto next = std::make_shared<FakePolicy>();
  next->listeners[kListener].set_source("{submission}");
  next->named_sources["{submission}"].set_require_auth(true);
  ingest_->SetPolicy(next);
  EXPECT_TRUE(client->Say("RSET\r\nMAIL FROM:<a@b.test>\r\n").ends_with("is required\r\n"));
}

TEST_F(SmtpRulesTest, RefusalsAreHeldBackAfterTheFirstFew) {
  policy_->others->set_smtp_tarpit_delay_us(5'000'000);
  policy_->others->set_smtp_tarpit_after(1);
  auto client = Connect("192.0.2.1");
  client->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\n");
  EXPECT_TRUE(client->Say("RCPT TO:<x@y.test>\r\n").starts_with("550"));
  EXPECT_EQ(client->Say("RCPT TO:<x@y.test>\r\nRCPT TO:<Postmaster>\r\n"), "");
  EXPECT_FALSE(client->connection().session().wants_read());
  EXPECT_EQ(client->HearAfter(std::chrono::milliseconds(4999)), "");
  EXPECT_EQ(client->HearAfter(std::chrono::milliseconds(1)),
            "550 5.7.1 Relaying denied\r\n250 2.1.5 Recipient OK\r\n");
  EXPECT_EQ(ingest_->counters().tarpitted, 1u);
  // One that goes away meanwhile takes its timer with it, and so does a drain.
  EXPECT_EQ(client->Say("RCPT TO:<x@y.test>\r\n"), "");
  auto other = Connect("192.0.2.1");
  other->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\n");
  EXPECT_EQ(other->Say("RCPT TO:<x@y.test>\r\n"), "");
  client.reset();
  ingest_->Drain([] {});
  EXPECT_TRUE(other->heard().starts_with("421"));
  EXPECT_EQ(other->HearAfter(std::chrono::seconds(10)), "");
}

TEST_F(SmtpRulesTest, TooManyRecipientsFailTheMessageWhereThatIsSaid) {
  policy_->loopback->set_max_rcpt_per_message(2);
  policy_->loopback->set_too_many_rcpts_fails_message(true);
  auto client = Connect();
  const char kThree[] =
      "MAIL FROM:<a@b.test>\r\nRCPT TO:<1@y.test>\r\nRCPT TO:<2@y.test>\r\nRCPT TO:<3@y.test>\r\n";
  client->Say("EHLO c\r\n");
  EXPECT_NE(client->Say(kThree).find("452 4.5.3"), std::string::npos);
  EXPECT_TRUE(client->Say("DATA\r\n").starts_with("554 5.5.3"));
  EXPECT_TRUE(client
                  ->Say("RSET\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<1@y.test>\r\n"
                        "RCPT TO:<2@y.test>\r\nDATA\r\n")
                  .ends_with("<CR><LF>.<CR><LF>\r\n"));
}

TEST_F(SmtpRulesTest, ATransientErrorEndsTheSessionWhereThatIsSaid) {
  policy_->loopback->set_disconnect_on_transient_error(true);
  auto client = Connect();
  client->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\n");
  shard().outcome = queue::v1::EnqueueResult::OUTCOME_REFUSED_BUSY;
  EXPECT_TRUE(client->Say("DATA\r\n").starts_with("354"));
  EXPECT_TRUE(client->Say("x\r\n.\r\n").starts_with("421 4.3.1"));
  EXPECT_TRUE(client->connection().session().closing());
}

TEST_F(SmtpRulesTest, MemoryPoolMaxBoundsWhatIsOnItsWay) {
  policy_->global_settings.set_memory_pool_max(1500);
  auto one = Connect();
  auto two = Connect();
  const char kMail[] = "EHLO c\r\nMAIL FROM:<a@b.test> SIZE=1500\r\n";
  EXPECT_TRUE(one->Say(kMail).ends_with("Sender OK\r\n"));
  one->Say("RCPT TO:<x@y.test>\r\nDATA\r\n");
  EXPECT_NE(two->Say(kMail).find("\r\n451 4.3.1"), std::string::npos);
  EXPECT_TRUE(one->Say("x\r\n.\r\n").starts_with("250"));
  EXPECT_TRUE(two->Say("MAIL FROM:<a@b.test> SIZE=1500\r\n").starts_with("250"));
}

TEST_F(SmtpRulesTest, MaxMemoryUsagePercentPutsMailOff) {
  policy_->global_settings.set_max_memory_usage_percent(90);
  auto client = Connect();
  memory_percent_ = 89;
  EXPECT_TRUE(client->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\n").ends_with("Sender OK\r\n"));
  memory_percent_ = 90;
  EXPECT_TRUE(client->Say("RSET\r\nMAIL FROM:<a@b.test>\r\n")
                  .ends_with("451 4.3.1 Too little memory, try again later\r\n"));
  policy_->global_settings.set_max_memory_usage_percent(100);
  memory_percent_ = 100;
  EXPECT_TRUE(client->Say("MAIL FROM:<a@b.test>\r\n").ends_with("Sender OK\r\n"));
}

TEST_F(SmtpRulesTest, ConnectionsAreLoggedWhereThatIsSaid) {
  policy_->loopback->set_log_connections(true);
  auto quiet = Connect("192.0.2.1");
  quiet.reset();
  const size_t before = lines_.size();
  auto client = Connect();
  client->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nx\r\n.\r\n");
  executor_.Advance(std::chrono::milliseconds(1500));
  client.reset();
  ASSERT_EQ(lines_.size(), before + 2);
  EXPECT_NE(lines_[before].find("event=client_connected client=127.0.0.1"), std::string::npos)
      << lines_[before];
  EXPECT_NE(lines_[before + 1].find("ms=1500 messages=1"), std::string::npos) << lines_[before + 1];
}

TEST_F(SmtpRulesTest, GreetingAndTimesAreThoseOfTheClient) {
  policy_->global_settings.set_smtp_greeting("hello there");
  policy_->loopback->set_smtp_command_timeout_us(7'000'000);
  policy_->loopback->set_smtp_data_timeout_us(60'000'000);
  policy_->loopback->set_smtp_min_data_rate(10);
  auto client = Connect();
  EXPECT_EQ(client->heard(), "220 mx.test hello there\r\n");
  const MonotonicTime now = executor_.clock().Now();
  EXPECT_EQ(client->connection().session().deadline(), now + std::chrono::seconds(7));
  client->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
  EXPECT_EQ(client->connection().session().deadline(), now + mail::kDataRateGrace);
  client->Say(std::string(998, 'x') + "\r\n");
  EXPECT_EQ(client->connection().session().deadline(), now + std::chrono::seconds(60));
}

TEST_F(SmtpRulesTest, ReceivedSaysAsMuchAsItMay) {
  const auto send = [&](SmtpClient& client) {
    client.Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
    return client.Say("Received: one\r\nReceived: two\r\nX-Virtual-MTA: default\r\n\r\nx\r\n.\r\n");
  };
  policy_->loopback->set_hide_message_source(true);
  policy_->loopback->set_process_x_virtual_mta(true);
  policy_->loopback->set_retain_x_virtual_mta(true);
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  EXPECT_TRUE(send(*client).starts_with("250"));
  ASSERT_EQ(shard().taken.size(), 1u);
  EXPECT_TRUE(shard().taken[0].body.starts_with("Received: by mx.test (Sluice) with ESMTP id "));
  EXPECT_EQ(shard().taken[0].body.find("127.0.0.1"), std::string::npos);
  EXPECT_NE(shard().taken[0].body.find("\r\nX-Virtual-MTA: default\r\n"), std::string::npos);

  auto next = std::make_shared<FakePolicy>();
  next->loopback->set_add_received_header(false);
  next->loopback->set_max_message_hops(2);
  ingest_->SetPolicy(next);
  EXPECT_TRUE(send(*client).starts_with("250"));
  ASSERT_EQ(shard().taken.size(), 2u);
  EXPECT_TRUE(shard().taken[1].body.starts_with("Received: one\r\n"));

  auto strict = std::make_shared<FakePolicy>();
  strict->loopback->set_max_message_hops(1);
  ingest_->SetPolicy(strict);
  EXPECT_TRUE(send(*client).starts_with("554 5.4.6"));
  EXPECT_EQ(shard().taken.size(), 2u);
}

TEST_F(SmtpRulesTest, AddedAndRemovedFieldsAreCounted) {
  policy_->loopback->set_add_message_id_header(true);
  policy_->loopback->set_add_date_header("yes");
  policy_->loopback->set_remove_received_headers(true);
  policy_->loopback->set_bcc("archive@z.test");
  auto client = Connect();
  client->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
  client->Say("Received: from far\r\nSubject: s\r\n\r\nbody\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& [message, body] = shard().taken[0];
  const std::string id = mail::FormatMessageId(message.message().id());
  EXPECT_EQ(body,
            "Received: from c ([127.0.0.1])\r\n\tby mx.test (Sluice) with ESMTP id " + id +
                "\r\n\tfor <x@y.test>;\r\n\tTue, 14 Nov 2023 23:13:20 +0000\r\n"
                "Message-ID: <" +
                id +
                "@mx.test>\r\nDate: Tue, 14 Nov 2023 23:13:20 +0000\r\nSubject: s\r\n\r\nbody\r\n");
  EXPECT_EQ(message.message().body_size(), body.size());
  EXPECT_EQ(message.message().header_size(), body.find("\r\n\r\n") + 4);
  EXPECT_EQ(message.message().hops(), 1u);
  ASSERT_EQ(message.deliveries_size(), 2);
  EXPECT_EQ(message.deliveries(1).delivery().rcpt(), "archive@z.test");
  EXPECT_EQ(ingest_->counters().recipients_accepted, 1u);
}

TEST_F(SmtpRulesTest, AddressesWithoutADomainGetTheSystemsOrAreRefused) {
  policy_->others->set_auto_qualify_domain(false);
  const auto send = [&](const std::string& ip) {
    return Connect(ip)->Say(
        "EHLO c\r\nMAIL FROM:<a>\r\nRSET\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x>\r\n"
        "DATA\r\nS: 1\r\n\r\n.\r\n");
  };
  // On by default.
  send("127.0.0.1");
  ASSERT_EQ(shard().taken.size(), 1u);
  EXPECT_EQ(shard().taken[0].message.deliveries(0).delivery().rcpt(), "x@mx.test");
  EXPECT_EQ(shard().taken[0].message.deliveries(0).delivery().rcpt_given(), "x@mx.test");
  const std::string refused = send("192.0.2.1");
  EXPECT_NE(refused.find("\r\n501 5.1.7 "), std::string::npos) << refused;
  EXPECT_NE(refused.find("\r\n501 5.1.3 "), std::string::npos) << refused;
  auto next = std::make_shared<FakePolicy>();
  next->global_settings.set_domain_suffix("Corp.test");
  auto& alias = *next->global_settings.add_aliases();
  alias.set_source("x");
  alias.set_target("root");
  ingest_->SetPolicy(next);
  auto client = Connect();
  client->Say("EHLO c\r\nMAIL FROM:<a>\r\nRCPT TO:<x>\r\nRCPT TO:<y>\r\nRCPT TO:<Postmaster>\r\n");
  client->Say("DATA\r\nS: 1\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 2u);
  const auto& message = shard().taken[1].message;
  EXPECT_EQ(message.message().mail_from(), "a@corp.test");
  EXPECT_EQ(message.deliveries(0).delivery().rcpt(), "root@corp.test");
  EXPECT_EQ(message.deliveries(1).delivery().rcpt(), "y@corp.test");
  EXPECT_EQ(message.deliveries(2).delivery().rcpt(), "Postmaster@corp.test");
}

TEST_F(SmtpRulesTest, CommandsAndTlsAreLoggedWhereThatIsSaidAndSecretsNever) {
  for (const bool on : {false, true}) {
    auto policy = std::make_shared<FakePolicy>();
    auto& user = policy->users.emplace_back();
    user.set_name("u");
    user.set_password("sesame");
    policy->loopback->set_log_commands(on);
    policy->loopback->set_log_tls(on);
    if (ingest_ == nullptr) Start();
    ingest_->SetPolicy(policy);
    lines_.clear();
    auto client = Connect();
    client->session().ExpectTls(executor_.clock().Now());
    client->connection().OnTlsReady({.version = "TLSv1.3", .cipher = "TLS_X"}, "");
    client->Say(
        "EHLO c\r\nAUTH PLAIN AHUAc2VzYW1l\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\n");
    client->Say("DATA\r\nSubject: hush\r\n\r\n.\r\n");
    client->connection().OnTlsFailed("no shared cipher");
    std::string all;
    for (const std::string& line : lines_) all += line + "\n";
    const auto has = [&](const char* text) { return all.find(text) != all.npos; };
    EXPECT_EQ(has("smtp_command"), on) << all;
    EXPECT_EQ(has("RCPT TO:<x@y.test>"), on) << all;
    EXPECT_EQ(has("smtp_reply"), on) << all;
    EXPECT_EQ(has("235 2.7.0"), on) << all;
    EXPECT_EQ(has("TLSv1.3"), on) << all;
    EXPECT_EQ(has("no shared cipher"), on) << all;
    for (const char* secret : {"sesame", "AHUAc2VzYW1l", "hush"}) EXPECT_FALSE(has(secret)) << all;
  }
  EXPECT_EQ(shard().taken.size(), 2u);
}

TEST_F(SmtpRulesTest, EveryRecipientHasASenderOfItsOwnWhereThatIsSaid) {
  policy_->loopback->set_allow_mailmerge(true);
  policy_->others->set_allow_relay(true);
  policy_->others->set_verp_default(true);
  const auto verp = [&](const std::string& ip, const std::string& mail) {
    Connect(ip)->Say("EHLO c\r\nMAIL FROM:" + mail +
                     "\r\nRCPT TO:<x@y.test>\r\nDATA\r\nS: 1\r\n\r\n.\r\n");
    const bool is = !shard().taken.empty() && shard().taken.back().message.message().verp();
    EXPECT_EQ(shard().taken.size(), 1u) << mail;
    shard().taken.clear();
    return is;
  };
  EXPECT_FALSE(verp("127.0.0.1", "<a@b.test>"));
  EXPECT_TRUE(verp("127.0.0.1", "<a@b.test> VERP"));
  EXPECT_TRUE(verp("192.0.2.1", "<a@b.test>"));
  EXPECT_FALSE(verp("192.0.2.1", "<>"));
  // The parameter goes with its EHLO keyword.
  EXPECT_NE(Connect("192.0.2.1")->Say("EHLO c\r\nMAIL FROM:<a@b.test> VERP\r\n").find("555 5.5.4"),
            std::string::npos);
}

TEST_F(SmtpRulesTest, AMessageThatHasAScheduleWaitsForIt) {
  policy_->loopback->set_process_x_schedule(true);
  const std::string field = "X-Schedule: 2030-01-01T00:00:00Z / 2030-01-01T01:00:00Z\r\n";
  const auto send = [&](const std::string& header, const std::string& ip = "127.0.0.1") {
    return Connect(ip)->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n" +
                            header + "S: 1\r\n\r\n.\r\n");
  };
  constexpr int64_t kBeginUs = 1'893'456'000'000'000;
  send(field);
  ASSERT_EQ(shard().taken.size(), 1u);
  EXPECT_EQ(shard().taken[0].message.message().not_before_us(), kBeginUs);
  EXPECT_EQ(shard().taken[0].message.deliveries(0).delivery().expires_us(),
            kBeginUs + 3'600'000'000);
  EXPECT_EQ(shard().taken[0].body.find("X-Schedule"), std::string::npos);
  EXPECT_EQ(shard().taken[0].message.deliveries(0).delivery().windows_size(), 0);
  send(
      "X-Schedule: 2030-01-01T00:00:00Z / 2030-01-01T01:00:00Z,\r\n"
      " 2030-01-02T00:00:00Z / 2030-01-02T01:00:00Z\r\n");
  ASSERT_EQ(shard().taken.size(), 2u);
  EXPECT_EQ(shard().taken[1].message.message().not_before_us(), kBeginUs);
  const auto& twice = shard().taken[1].message.deliveries(0).delivery();
  EXPECT_EQ(twice.expires_us(), kBeginUs + 25 * int64_t{3'600'000'000});
  ASSERT_EQ(twice.windows_size(), 2);
  EXPECT_EQ(twice.windows(1).begin_us(), kBeginUs + 24 * int64_t{3'600'000'000});
  shard().taken.pop_back();
  // Of others the field is text.
  send(field, "192.0.2.1");
  ASSERT_EQ(shard().taken.size(), 2u);
  EXPECT_EQ(shard().taken[1].message.message().not_before_us(), 0);
  EXPECT_EQ(shard().taken[1].message.deliveries(0).delivery().expires_us(), 0);
  EXPECT_NE(shard().taken[1].body.find("X-Schedule"), std::string::npos);
  EXPECT_NE(send("X-Schedule: soon\r\n").find("554 5.6.0 X-Schedule is written"),
            std::string::npos);
  EXPECT_EQ(shard().taken.size(), 2u);
  auto next = std::make_shared<FakePolicy>();
  next->loopback->set_process_x_schedule(true);
  next->loopback->set_retain_x_schedule(true);
  ingest_->SetPolicy(next);
  send(field);
  ASSERT_EQ(shard().taken.size(), 3u);
  EXPECT_EQ(shard().taken[2].message.message().not_before_us(), kBeginUs);
  EXPECT_NE(shard().taken[2].body.find("X-Schedule"), std::string::npos);
}

TEST_F(SmtpRulesTest, RecipientsThatAreNoAddressesBounceWhereTheyAreTaken) {
  policy_->loopback->set_accept_invalid_recipients(true);
  policy_->others->set_accept_invalid_recipients(true);
  const auto send = [&](const std::string& ip) {
    return Connect(ip)->Say(
        "EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<Postmaster>\r\nRCPT TO:<a b@c..d>\r\n"
        "RCPT TO:<no end\r\nRCPT TO:<>\r\nDATA\r\nS: 1\r\n\r\n.\r\n");
  };
  send("127.0.0.1");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& message = shard().taken[0].message;
  ASSERT_EQ(message.deliveries_size(), 2);
  const common::v1::Delivery& invalid = message.deliveries(1).delivery();
  EXPECT_EQ(invalid.rcpt(), "a b@c..d");
  EXPECT_EQ(invalid.queue_domain(), "invalid-recipients.invalid");
  EXPECT_EQ(invalid.last_reply().enhanced(), "5.1.3");
  EXPECT_LE(invalid.expires_us(), ToUnixMicros(executor_.clock().WallNow()));
  EXPECT_GT(invalid.expires_us(), 0);
  EXPECT_EQ(message.deliveries(0).delivery().expires_us(), 0);
  // A report to anybody is not to be had that way.
  EXPECT_NE(send("192.0.2.1").find("\r\n501 5.1.3 "), std::string::npos);
  ASSERT_EQ(shard().taken.size(), 2u);
  EXPECT_EQ(shard().taken[1].message.deliveries_size(), 1);
}

TEST_F(SmtpRulesTest, RelayDebugSaysWhyRelayingWasRefused) {
  const auto log_of = [&](bool debug) {
    auto policy = std::make_shared<FakePolicy>();
    policy->global_settings.set_relay_debug(debug);
    if (ingest_ == nullptr) Start();
    ingest_->SetPolicy(policy);
    lines_.clear();
    Connect("192.0.2.1")->Say("EHLO c\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\n");
    std::string all;
    for (const std::string& line : lines_) all += line + "\n";
    return all;
  };
  EXPECT_EQ(log_of(false).find("relay_refused"), std::string::npos);
  const std::string log = log_of(true);
  EXPECT_NE(log.find("relay_refused"), std::string::npos) << log;
  EXPECT_NE(log.find("x@y.test"), std::string::npos) << log;
  EXPECT_NE(log.find("192.0.2.1"), std::string::npos) << log;
}

}  // namespace
}  // namespace sluice::ingest
