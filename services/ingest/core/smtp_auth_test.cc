// Proves who may authenticate and how: mechanisms that can succeed, and no others; passwords only
// where the network cannot read them, or policy lets them; failures that wait, are counted and run
// into their limit; and what becomes of a client that is in.
#include "services/ingest/core/smtp_auth.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/core/smtp_connection.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/mail/sasl_credential.h"

namespace sluice::ingest {
namespace {

using std::chrono::seconds;
using testing::FakePolicy;
using testing::FakeShard;

// "sesame".
constexpr char kHash[] =
    "$6$rounds=1000$abcdefgh$"
    "1WhD5NSPfUW3vvjZt0oAl77wZvqZB/nJcOoNyFB4UHH98F.JCFg5bmMLyU4dXf5WU9tCX9pTKt8vIYOpqoRCm0";

class HeldWork final : public SlowWork {
 public:
  bool Run(std::string_view whose, absl::AnyInvocable<bool()> work, Executor& executor,
           absl::AnyInvocable<void(bool)> done) override {
    last = whose;
    if (full) return false;
    waiting.push_back([&executor, work = std::move(work), done = std::move(done)]() mutable {
      executor.Post([ok = work(), done = std::move(done)]() mutable { done(ok); });
    });
    return true;
  }
  bool full = false;
  std::string last;  // for whom
  std::deque<absl::AnyInvocable<void()>> waiting;
};

class Client final : public SmtpConnection::Driver {
 public:
  Client(Ingest& ingest, sluice::testing::ManualExecutor& executor, std::string ip)
      : executor_(executor),
        connection_(ingest, {std::move(ip), "127.0.0.1", "127.0.0.1:25"}, *this) {
    connection_.Start();
    OnWake();
    heard_.clear();
  }
  std::string Say(const std::string& line) {
    heard_.clear();
    EXPECT_TRUE(session().wants_read());
    session().OnBytes(executor_.clock().Now(), line + "\r\n");
    executor_.RunPosted();
    OnWake();
    return heard_;
  }
  std::string Hear() { return std::exchange(heard_, ""); }
  // Goes on to the deadline, where an answer is held back.
  std::string Wait() {
    heard_.clear();
    const MonotonicTime deadline = session().deadline().value();
    waited = deadline - executor_.clock().Now();
    executor_.Advance(waited);
    session().OnTimer(deadline);
    OnWake();
    return heard_;
  }
  void OnWake() override {
    heard_ += session().output();
    session().Sent(executor_.clock().Now(), session().output().size());
  }
  mail::SmtpServerSession& session() { return connection_.session(); }
  Duration waited{};

 private:
  sluice::testing::ManualExecutor& executor_;
  std::string heard_;
  SmtpConnection connection_;
};

std::string Plain(const std::string& user, const std::string& password) {
  return "AUTH PLAIN " + absl::Base64Escape(std::string(1, '\0') + user + '\0' + password);
}

class SmtpAuthTest : public ::testing::Test {
 protected:
  SmtpAuthTest() {
    policy_->auth_file.set_name("users");
    (*policy_->auth_file.mutable_hashes())["hash"] = kHash;
    policy_->loopback->set_auth_plain("users");
    policy_->loopback->set_allow_unencrypted_plain_auth(true);
  }
  void AddUser(const std::string& name, const std::string& password) {
    auto& user = policy_->users.emplace_back();
    user.set_name(name);
    user.set_password(password);
  }
  std::unique_ptr<Client> Connect(std::string ip = "127.0.0.1") {
    if (ingest_ == nullptr) {
      if (options_.random == 0) options_.random = 42;
      ingest_ = std::make_unique<Ingest>(
          executor_, options_,
          std::vector<ShardEndpoint>{{"shard", &shard_.enqueue(), &shard_.upload()}}, policy_);
      ingest_->Start();
      executor_.RunPosted();
    }
    return std::make_unique<Client>(*ingest_, executor_, std::move(ip));
  }
  std::string Offer(Client& client) {
    const std::string reply = client.Say("EHLO c.test");
    const size_t at = reply.find("250-AUTH ");
    return at == reply.npos ? "" : reply.substr(at + 9, reply.find('\r', at) - at - 9);
  }

  sluice::testing::ManualExecutor executor_;
  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
  IngestOptions options_;
  FakeShard shard_;
  std::unique_ptr<Ingest> ingest_;
};

TEST_F(SmtpAuthTest, OffersOnlyWhatCanSucceed) {
  EXPECT_EQ(Offer(*Connect()), "PLAIN LOGIN");
  EXPECT_EQ(Offer(*Connect("192.0.2.1")), "");
  EXPECT_EQ(Connect("192.0.2.1")->Say("EHLO c").find("AUTH"), std::string::npos);
}

TEST_F(SmtpAuthTest, AClearPasswordServesAll) {
  AddUser("clear", "sesame");
  EXPECT_EQ(Offer(*Connect()), "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN");
  EXPECT_EQ(Offer(*Connect("192.0.2.1")), "SCRAM-SHA-256 CRAM-MD5");
}

TEST_F(SmtpAuthTest, NoPasswordsInTheClear) {
  policy_->loopback->set_allow_unencrypted_plain_auth(false);
  const auto client = Connect();
  EXPECT_EQ(Offer(*client), "");
  EXPECT_TRUE(client->Say(Plain("hash", "sesame")).starts_with("502 "));
  AddUser("clear", "sesame");
  ingest_->SetPolicy(policy_);
  const auto other = Connect();
  EXPECT_EQ(Offer(*other), "SCRAM-SHA-256 CRAM-MD5");
  EXPECT_TRUE(other->Say(Plain("hash", "sesame")).starts_with("538 5.7.11 "));
  EXPECT_TRUE(other->Say("AUTH GSSAPI").starts_with("504 "));
}

TEST_F(SmtpAuthTest, NoneWhereItIsNotAllowed) {
  policy_->loopback->set_allow_auth(false);
  const auto client = Connect();
  EXPECT_EQ(Offer(*client), "");
  EXPECT_TRUE(client->Say(Plain("hash", "sesame")).starts_with("502 "));
}

TEST_F(SmtpAuthTest, NoneWithoutTlsWhereItIsRequired) {
  AddUser("clear", "sesame");
  policy_->loopback->set_require_starttls_before_auth(true);
  EXPECT_EQ(Offer(*Connect()), "");
}

TEST_F(SmtpAuthTest, WhoIsInMaySendAndStandsInTheRecord) {
  policy_->loopback->set_require_auth(true);
  const auto client = Connect();
  client->Say("EHLO c.test");
  EXPECT_TRUE(client->Say("MAIL FROM:<a@b.test>").starts_with("530 5.7.0 "));
  EXPECT_TRUE(client->Say(Plain("hash", "sesame")).starts_with("235 2.7.0 "));
  EXPECT_TRUE(client->Say("MAIL FROM:<a@b.test> AUTH=e+2Bmc@b.test").starts_with("250 "));
  EXPECT_TRUE(client->Say("RCPT TO:<x@y.test>").starts_with("250 "));
  EXPECT_TRUE(client->Say("DATA").starts_with("354 "));
  client->Say("Subject: x\r\n\r\nx\r\n.");
  ASSERT_EQ(shard_.taken.size(), 1u);
  EXPECT_EQ(shard_.taken[0].message.message().user(), "hash");
  EXPECT_EQ(shard_.taken[0].message.message().auth_param(), "e+mc@b.test");
  EXPECT_NE(shard_.taken[0].body.find(" with ESMTPA id "), std::string::npos);
}

TEST_F(SmtpAuthTest, ANewPolicyHoldsForWhoIsInAndForWhoIsNotYet) {
  const auto policy_with = [](const std::string& name, const std::string& source) {
    auto policy = std::make_shared<FakePolicy>();
    policy->loopback->set_allow_unencrypted_plain_auth(true);
    policy->named_sources["own"].set_max_message_size(777);
    auto& user = policy->users.emplace_back();
    user.set_name(name);
    user.set_password("sesame");
    user.set_source(source);
    return policy;
  };
  Connect();
  ingest_->SetPolicy(policy_with("tim", ""));
  const auto in = Connect();
  const auto late = Connect();
  in->Say("EHLO c.test");
  late->Say("EHLO c.test");
  EXPECT_TRUE(in->Say(Plain("tim", "sesame")).starts_with("235 "));
  ingest_->SetPolicy(policy_with("tim", "own"));
  EXPECT_TRUE(in->Say("MAIL FROM:<a@b.test> SIZE=700").starts_with("250 "));
  EXPECT_NE(in->Say("EHLO c.test").find("SIZE 777\r\n"), std::string::npos);
  ingest_->SetPolicy(policy_with("tom", ""));
  EXPECT_EQ(late->Say(Plain("tim", "sesame")), "");  // a refusal waits
  EXPECT_EQ(ingest_->counters().auth_failed, 1u);
}

// RFC 4013: however the client and the configuration write it; the record has the configuration's.
TEST_F(SmtpAuthTest, ANameIsTheSameInEveryForm) {
  const std::string composed = "Zo\xC3\xAB", apart = "Zoe\xCC\x88";
  for (const std::string& written : {composed, apart}) {
    auto policy = std::make_shared<FakePolicy>();
    policy->loopback->set_allow_unencrypted_plain_auth(true);
    policy->named_sources["own"].set_require_auth(true);
    policy->named_sources["own"].set_max_message_size(777);
    auto& user = policy->users.emplace_back();
    user.set_name(written);
    user.set_password(written);
    user.set_source("own");
    Connect();
    ingest_->SetPolicy(policy);
    for (const std::string& said : {composed, apart}) {
      const auto client = Connect();
      client->Say("EHLO c.test");
      EXPECT_TRUE(client->Say(Plain(said, said)).starts_with("235 ")) << written << said;
      EXPECT_NE(client->Say("EHLO c.test").find("SIZE 777\r\n"), std::string::npos);
      client->Say("MAIL FROM:<a@b.test>");
      client->Say("RCPT TO:<x@y.test>");
      client->Say("DATA");
      client->Say("Subject: x\r\n\r\nx\r\n.");
      ASSERT_FALSE(shard_.taken.empty());
      EXPECT_EQ(shard_.taken.back().message.message().user(), written);
      EXPECT_FALSE(Connect()->Say(Plain(said, "zoe")).starts_with("235 "));
    }
  }
}

TEST_F(SmtpAuthTest, FailuresWaitLongerAndLonger) {
  const auto client = Connect();
  client->Say("EHLO c.test");
  for (const int expected : {1, 2, 4, 8, 16, 16}) {
    EXPECT_EQ(client->Say(Plain("hash", "wrong")), "");
    EXPECT_FALSE(client->session().wants_read());
    EXPECT_TRUE(client->Wait().starts_with("535 5.7.8 "));
    EXPECT_EQ(client->waited, seconds(expected));
  }
  EXPECT_EQ(ingest_->counters().auth_failed, 6u);
  // A new connection from the same network waits, too; one from elsewhere does not so long.
  AddUser("clear", "x");
  const auto neighbour = Connect("127.0.0.77");
  neighbour->Say("EHLO c.test");
  EXPECT_EQ(neighbour->Say(Plain("nobody", "wrong")), "");
  neighbour->Wait();
  EXPECT_EQ(neighbour->waited, seconds(16));
  const auto stranger = Connect("127.9.0.1");
  stranger->Say("EHLO c.test");
  EXPECT_EQ(stranger->Say(Plain("nobody", "wrong")), "");
  stranger->Wait();
  EXPECT_EQ(stranger->waited, seconds(1));
}

TEST_F(SmtpAuthTest, FailureRateIsALimit) {
  auto& rate = *policy_->loopback->mutable_smtp_max_auth_failure_rate();
  rate.set_count(2);
  rate.set_period_us(60'000'000);
  const auto client = Connect();
  client->Say("EHLO c.test");
  // Success does not count.
  for (int i = 0; i < 2; ++i) {
    client->Say(Plain("hash", "wrong"));
    client->Wait();
  }
  EXPECT_TRUE(client->Say(Plain("hash", "sesame")).starts_with("454 4.7.0 "));
  EXPECT_EQ(ingest_->counters().auth_throttled, 1u);
  executor_.Advance(seconds(121));
  EXPECT_TRUE(client->Say(Plain("hash", "sesame")).starts_with("235 "));
}

TEST_F(SmtpAuthTest, SlowWorkRunsBesideTheLoop) {
  HeldWork work;
  options_.slow_work = &work;
  const auto client = Connect();
  client->Say("EHLO c.test");
  EXPECT_EQ(client->Say(Plain("hash", "sesame")), "");
  ASSERT_EQ(work.waiting.size(), 1u);
  EXPECT_FALSE(client->session().deadline());
  work.waiting.front()();
  executor_.RunPosted();
  EXPECT_TRUE(client->Hear().starts_with("235 "));
  // A client that left is not answered.
  auto gone = Connect();
  gone->Say("EHLO c.test");
  gone->Say(Plain("hash", "sesame"));
  gone.reset();
  ASSERT_EQ(work.waiting.size(), 2u);
  work.waiting.back()();
  executor_.RunPosted();
  EXPECT_EQ(ingest_->counters().auth_failed, 1u);
  // Too much waits: no verdict on the password, and no failure, however often.
  policy_->loopback->mutable_smtp_max_auth_failure_rate()->set_count(2);
  policy_->loopback->mutable_smtp_max_auth_failure_rate()->set_period_us(60'000'000);
  ingest_->SetPolicy(policy_);
  work.full = true;
  const auto late = Connect("127.8.0.1");
  late->Say("EHLO c.test");
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(late->Say(Plain("hash", "sesame")), "");
    EXPECT_TRUE(late->Wait().starts_with("454 4.7.0 Too many authentications at once"));
    EXPECT_EQ(late->waited, seconds(1));
  }
  EXPECT_EQ(ingest_->counters().auth_throttled, 5u);
  EXPECT_EQ(ingest_->counters().auth_failed, 1u);
  work.full = false;
  late->Say(Plain("hash", "sesame"));
  work.waiting.back()();
  executor_.RunPosted();
  EXPECT_TRUE(late->Hear().starts_with("235 "));
  // Clients of one network have one turn.
  EXPECT_EQ(work.last, AuthFailures::NetworkOf("127.8.0.77"));
  EXPECT_NE(work.last, AuthFailures::NetworkOf("127.8.1.1"));
}

// As it stands in a file.
std::string Verifier(std::string_view password, uint32_t iterations) {
  const auto made = mail::MakeScramVerifier(password, "salt of sixteen.", iterations);
  return "SCRAM-SHA-256$" + std::to_string(iterations) + ":" + absl::Base64Escape(made.salt) + "$" +
         absl::Base64Escape(made.stored_key) + ":" + absl::Base64Escape(made.server_key);
}

// What a client is shown of a name: salt and rounds.
std::string Shown(Client& client, const std::string& name) {
  client.Say("EHLO c.test");
  const std::string said =
      client.Say("AUTH SCRAM-SHA-256 " + absl::Base64Escape("n,,n=" + name + ",r=abcdefghij"));
  EXPECT_TRUE(said.starts_with("334 ")) << said;
  std::string text;
  absl::Base64Unescape(said.substr(4, said.size() - 6), &text);
  return text.substr(text.find(",s="));
}

// Whoever asks for a name twice, or twenty years later, on another loop or machine, with the users
// read in another order, is shown the same, whether it is a user's or nobody's.
TEST_F(SmtpAuthTest, NobodyLooksTheSameOnEveryIngest) {
  for (int i = 0; i < 8; ++i) {
    AddUser("user" + std::to_string(i), Verifier("sesame", 4096u + static_cast<uint32_t>(i)));
  }
  policy_->lasting_secret = "of the cluster";
  const auto shown = [&](uint64_t random) {
    options_.random = random;
    ingest_.reset();
    std::vector<std::string> all;
    for (int i = 0; i < 40; ++i) {
      const std::string name = "nobody" + std::to_string(i);
      all.push_back(Shown(*Connect("127.0." + std::to_string(i) + ".1"), name));
    }
    all.push_back(Shown(*Connect("127.1.0.1"), "user3"));
    return all;
  };
  const auto first = shown(1);
  std::reverse(policy_->users.begin(), policy_->users.end());
  EXPECT_EQ(shown(2), first);
  // One user more takes over some of the names, and leaves the others what they were.
  AddUser("new", Verifier("sesame", 9999));
  const auto more = shown(3);
  int others = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    if (more[i] == first[i]) continue;
    ++others;
    EXPECT_TRUE(more[i].ends_with(",i=9999")) << more[i] << " was " << first[i];
  }
  EXPECT_LT(others, 20);
  EXPECT_EQ(more.back(), first.back());
  // And it does depend on the secret.
  policy_->lasting_secret = "of another one";
  const auto elsewhere = shown(3);
  for (size_t i = 0; i + 1 < first.size(); ++i) EXPECT_NE(elsewhere[i], more[i]);
  EXPECT_EQ(elsewhere.back(), first.back());
}

TEST(AuthFailures, RemembersSoManyNetworksAndNoMore) {
  AuthFailures failures(3);
  const MonotonicTime now{seconds(1000)};
  for (int i = 0; i < 10; ++i) {
    failures.OnFailure("192.0." + std::to_string(i) + ".1", now);
    EXPECT_LE(failures.networks(), 3u);
  }
  EXPECT_EQ(failures.OnFailure("192.0.9.200", now), seconds(2));
  EXPECT_EQ(failures.OnFailure("192.0.1.1", now), seconds(1));
  EXPECT_EQ(failures.OnFailure("2001:db8:1:2::1", now), seconds(1));
  EXPECT_EQ(failures.OnFailure("2001:db8:1:2:ffff::1", now), seconds(2));
  EXPECT_EQ(failures.OnFailure("2001:db8:1:2::1", now + std::chrono::minutes(11)), seconds(1));
}

TEST(AuthFailures, NeverMoreThanTheRateInAnyWindow) {
  AuthFailures failures;
  policy::v1::Rate rate;
  rate.set_count(10);
  rate.set_period_us(1'000'000);
  std::vector<MonotonicTime> taken;
  for (int ms = 0; ms < 20'000; ms += 7) {
    const MonotonicTime now{seconds(5) + std::chrono::milliseconds(ms)};
    if (failures.Begin("192.0.2.1", rate, now)) taken.push_back(now);
  }
  EXPECT_GE(taken.size(), 90u);
  for (size_t i = 10; i < taken.size(); ++i) EXPECT_GE(taken[i] - taken[i - 10], seconds(1));
}

// Exchanges that were begun long before they succeed take back what they cost, and nothing else.
TEST(AuthFailures, APasswordBuysNoGuesses) {
  policy::v1::Rate rate;
  rate.set_count(4);
  rate.set_period_us(1'000'000);
  for (const auto held : {std::chrono::milliseconds(900), std::chrono::milliseconds(2500)}) {
    AuthFailures failures;
    const MonotonicTime start{seconds(5)};
    const MonotonicTime later = start + held;
    EXPECT_TRUE(failures.Begin("192.0.2.1", rate, start));
    EXPECT_TRUE(failures.Begin("192.0.2.1", rate, start));
    int guesses = 0;
    for (int i = 0; i < 10; ++i) guesses += failures.Begin("192.0.2.1", rate, later);
    failures.OnSuccess("192.0.2.1", rate, start);
    failures.OnSuccess("192.0.2.1", rate, start);
    for (int i = 0; i < 10; ++i) guesses += failures.Begin("192.0.2.1", rate, later);
    EXPECT_EQ(guesses, 4);
  }
}

}  // namespace
}  // namespace sluice::ingest
