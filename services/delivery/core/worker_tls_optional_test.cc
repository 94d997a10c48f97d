// Mail with "TLS-Required: No" (RFC 8689 section 4.2.2): it goes where a domain's hosts fail what
// the domain publishes of TLS, other mail does not, and both are within the same limits.
#include "services/config/queue_mark.h"
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::seconds;
using testing::FakeSites;
using testing::Groups;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr uint64_t kStrict = 1;
constexpr uint64_t kOptional = 2;

class TlsOptional : public ::testing::Test {
 protected:
  using Adjust = std::function<void(policy::v1::QueueSettings&)>;
  explicit TlsOptional(const Adjust& adjust = [](auto&) {})
      : world_([&adjust](auto& vmta) {
          vmta.mutable_queue_defaults()->set_use_mta_sts(true);
          adjust(*vmta.mutable_queue_defaults());
        }) {}

  void Ready(uint64_t ref, uint32_t due = 1) {
    const std::string mark(ref == kOptional ? config::kTlsOptionalMark : std::string_view());
    world_.shard().Ready(ref, due, 0, mark + "example.org");
    world_.executor.RunPosted();
  }
  // The oldest connection ends as one does whose host fails the policy.
  void FailTls() {
    ASSERT_FALSE(world_.sites.open.empty());
    ConnectionEnd end;
    end.reply.set_local(true);
    end.reply.set_stage(common::v1::STAGE_STARTTLS);
    end.reply.set_text("MTA-STS: no mx of the domain");
    world_.sites.open[0]->handler->OnClosed(std::move(end));
    Settle();
  }
  void Settle() {
    world_.executor.Advance(std::chrono::milliseconds(1));
    world_.executor.RunPosted();
  }
  FakeSites::Remote& Only() {
    EXPECT_EQ(world_.sites.open.size(), 1u);
    return *world_.sites.open.front();
  }
  void Greet() {
    Only().handler->OnReady();
    world_.executor.RunPosted();
  }
  static bool Policed(const FakeSites::Remote& remote) {
    return remote.target.settings->use_mta_sts();
  }

  World world_;
};

TEST_F(TlsOptional, GoesAsOtherMailWhereThePolicyIsKept) {
  Ready(kOptional);
  EXPECT_TRUE(Policed(Only()));
  EXPECT_EQ(Only().target.route.domain, "example.org");
  Greet();
  const queue::v1::DispatchRequest said = world_.Take();
  ASSERT_EQ(Groups(said), 2u);
  EXPECT_EQ(said.credits(0).queue_ref(), kOptional);
  world_.shard().Lease(11, kOptional);
  ASSERT_EQ(Only().under_way.size(), 1u);
  Only().Answer(kDelivered);
  // Other mail of the domain goes by the same connection.
  Ready(kStrict);
  EXPECT_EQ(world_.sites.open.size(), 1u);
}

TEST_F(TlsOptional, GoesOnWithoutThePolicyAndTheOtherMailWaits) {
  Ready(kStrict);
  Ready(kOptional);
  FailTls();
  FailTls();  // the second host
  const queue::v1::DispatchRequest said = world_.Take();
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_EQ(said.failures(0).queue_ref(), kStrict);
  EXPECT_EQ(said.failures(0).reply().text(), "MTA-STS: no mx of the domain");
  EXPECT_FALSE(Policed(Only()));
  EXPECT_FALSE(Only().target.settings->require_starttls());
  EXPECT_TRUE(Only().target.settings->use_starttls());
  EXPECT_EQ(world_.worker->stats().tls_waived, 1u);
  EXPECT_NE(world_.logged.find("tls_policy_waived"), std::string::npos);
  Greet();
  const queue::v1::DispatchRequest granted = world_.Take();
  EXPECT_GT(granted.credits_size(), 0);
  for (const auto& credit : granted.credits()) EXPECT_EQ(credit.queue_ref(), kOptional);
  world_.shard().Lease(11, kOptional);
  ASSERT_EQ(Only().under_way.size(), 1u);
  // A lease of the other queue, from before it had failed, is not sent.
  world_.shard().Lease(12, kStrict);
  EXPECT_EQ(Only().under_way.size(), 1u);
  EXPECT_EQ(world_.Take().returned_leases_size(), 1);
}

// The retry of the other mail: what was connected without the policy takes nothing more, and all
// begins anew.
TEST_F(TlsOptional, TheNextMailThatInsistsFindsThePolicyAgain) {
  Ready(kOptional);
  FailTls();
  FailTls();
  Greet();
  world_.shard().Lease(11, kOptional);
  FakeSites::Remote& waived = Only();
  world_.Take();
  Ready(kStrict);
  EXPECT_TRUE(waived.quit);
  EXPECT_EQ(Groups(world_.Take()), 0u);
  waived.Answer(kDelivered);
  waived.Close(true);
  EXPECT_TRUE(Policed(Only()));
  Greet();
  EXPECT_EQ(Groups(world_.Take()), 2u);
  world_.shard().Lease(12, kStrict);
  EXPECT_EQ(Only().under_way.size(), 1u);
}

// One that was still being made when mail came that insists.
TEST_F(TlsOptional, AConnectionOfBeforeIsNotUsed) {
  Ready(kOptional);
  FailTls();
  FailTls();
  FakeSites::Remote& waived = Only();
  Ready(kStrict);
  waived.handler->OnReady();
  EXPECT_TRUE(waived.quit);
  EXPECT_TRUE(waived.under_way.empty());
}

TEST_F(TlsOptional, OtherFailuresAreNoReason) {
  Ready(kOptional);
  Only().Close(false);
  Settle();
  Only().Close(false);
  EXPECT_EQ(world_.Take().failures_size(), 1);
  EXPECT_TRUE(world_.sites.open.empty());
}

TEST_F(TlsOptional, FailsWhereNobodyIsReachedWithoutThePolicyEither) {
  Ready(kOptional);
  for (int i = 0; i < 4; ++i) FailTls();
  const queue::v1::DispatchRequest said = world_.Take();
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_EQ(said.failures(0).queue_ref(), kOptional);
  EXPECT_TRUE(world_.sites.open.empty());
}

class TlsOptionalDemanded : public TlsOptional {
 protected:
  TlsOptionalDemanded() : TlsOptional([](auto& s) { s.set_require_starttls(true); }) {}
};

// It is the operator's, and none of the receiver's policies.
TEST_F(TlsOptionalDemanded, RequireStarttlsStays) {
  Ready(kOptional);
  FailTls();
  FailTls();
  EXPECT_FALSE(Policed(Only()));
  EXPECT_TRUE(Only().target.settings->require_starttls());
}

class TlsOptionalLimited : public TlsOptional {
 protected:
  TlsOptionalLimited() : TlsOptional([](auto& s) { s.set_max_smtp_out(1); }) {}
};

TEST_F(TlsOptionalLimited, LimitsHoldForBothTogether) {
  Ready(kStrict, 100);
  Ready(kOptional, 100);
  Greet();
  EXPECT_EQ(world_.sites.open.size(), 1u);
  EXPECT_LE(Groups(world_.Take()), 2u);
  Settle();
  EXPECT_EQ(world_.sites.open.size(), 1u);
}

}  // namespace
}  // namespace sluice::delivery
