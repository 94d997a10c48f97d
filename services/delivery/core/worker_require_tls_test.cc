// Mail that requires TLS (RFC 8689 section 4.2.1): all hosts are tried before it bounces, and other
// mail does not suffer for it.
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::FakeSites;
using testing::Groups;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
constexpr auto kPermanent = queue::v1::RECIPIENT_OUTCOME_PERMANENT;
constexpr auto kNotAttempted = queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;

// As the session refuses it, without a word to the remote.
void Refuse(FakeSites::Remote& remote, const std::string& enhanced = "5.7.30") {
  queue::v1::GroupResult result;
  result.set_lease_id(remote.under_way.front().lease->lease_id());
  result.set_outcome(enhanced[0] == '5' ? kPermanent : kTransient);
  result.mutable_reply()->set_local(true);
  result.mutable_reply()->set_stage(common::v1::STAGE_MAIL);
  result.mutable_reply()->set_enhanced(enhanced);
  result.mutable_reply()->set_text("no REQUIRETLS");
  remote.under_way.erase(remote.under_way.begin());
  remote.handler->OnResult(std::move(result));
}

class RequireTls : public ::testing::Test {
 protected:
  // Leases with odd numbers require TLS.
  explicit RequireTls(uint32_t max_smtp_out = 20)
      : world_([max_smtp_out](auto& vmta) {
          vmta.mutable_queue_defaults()->set_max_smtp_out(max_smtp_out);
        }) {
    world_.shard().edit = [](queue::v1::Lease& lease) {
      lease.mutable_message()->set_require_tls(lease.lease_id() % 2 == 1);
      lease.mutable_message()->set_mail_from(lease.lease_id() < 100 ? "s@x" : "");
    };
  }
  FakeSites::Remote* To(const std::string& host) {
    for (FakeSites::Remote* each : world_.sites.open) {
      if (each->target.host == host && !each->quit) return each;
    }
    return nullptr;
  }
  FakeSites::Remote* To(const std::string& host, bool greet) {
    FakeSites::Remote* const found = To(host);
    if (found != nullptr && greet) {
      found->greeted = true;
      found->handler->OnReady();
      world_.executor.RunPosted();
    }
    return found;
  }
  void Lease(uint64_t id) {
    world_.shard().Lease(id, 1);
    Settle();
  }
  void Settle() { world_.executor.Advance(std::chrono::milliseconds(1)); }
  queue::v1::GroupResult TheResult() {
    const auto said = world_.Take();
    EXPECT_EQ(said.results_size(), 1);
    return said.results_size() == 1 ? said.results(0) : queue::v1::GroupResult();
  }

  World world_;
};

TEST_F(RequireTls, TheNextHostIsTried) {
  FakeSites::Remote& first = world_.Connected(1);
  EXPECT_EQ(first.target.host, "mx1");
  Lease(1);
  world_.Take();
  Refuse(first);
  EXPECT_EQ(TheResult().outcome(), kNotAttempted);
  Lease(3);  // the shard gives it again at once
  EXPECT_TRUE(first.under_way.empty());
  FakeSites::Remote* const second = To("mx2", true);
  ASSERT_NE(second, nullptr);
  ASSERT_EQ(second->under_way.size(), 1u);
  second->Answer(kDelivered, 250);
  EXPECT_EQ(TheResult().outcome(), kDelivered);
  // Other mail may go by the first host all the time.
  EXPECT_FALSE(first.quit);
  EXPECT_EQ(world_.sites.open.size(), 2u);
}

// RFC 8689 section 5: a report asks for it, and is not held up for it.
TEST_F(RequireTls, AReportWaitsForNoSearch) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  Refuse(first);
  world_.Take();
  Lease(101);
  ASSERT_EQ(first.under_way.size(), 1u);
  EXPECT_TRUE(first.under_way[0].lease->message().require_tls());
}

TEST_F(RequireTls, OtherMailDoesNotWaitForTheSearch) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  Refuse(first);
  world_.Take();
  Lease(3);
  ASSERT_NE(To("mx2"), nullptr);  // and does not answer
  Lease(2);
  ASSERT_EQ(first.under_way.size(), 1u);
  EXPECT_FALSE(first.under_way[0].lease->message().require_tls());
  first.Answer(kDelivered, 250);
  EXPECT_EQ(TheResult().outcome(), kDelivered);
  Lease(4);
  EXPECT_EQ(first.under_way.size(), 1u);
}

TEST_F(RequireTls, ItBouncesWhereNoHostCan) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  Refuse(first);
  world_.Take();
  Lease(3);
  FakeSites::Remote* const second = To("mx2", true);
  ASSERT_NE(second, nullptr);
  world_.Take();
  Refuse(*second, "5.7.10");
  const auto result = TheResult();
  EXPECT_EQ(result.outcome(), kPermanent);
  EXPECT_EQ(result.reply().enhanced(), "5.7.10");
  // The next one is told by a connection that stands.
  Lease(5);
  ASSERT_EQ(world_.sites.open.size(), 2u);
  EXPECT_EQ(first.under_way.size() + second->under_way.size(), 1u);
}

TEST_F(RequireTls, ItIsPutOffWhereTheOthersAreNotReached) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  Refuse(first);
  world_.Take();
  Lease(3);
  FakeSites::Remote* const second = To("mx2");
  ASSERT_NE(second, nullptr);
  second->Close(false);
  Settle();
  // The known host is the last resort of that search.
  FakeSites::Remote* again = nullptr;
  for (FakeSites::Remote* each : world_.sites.open) {
    if (each != &first && each->target.host == "mx1") again = each;
  }
  ASSERT_NE(again, nullptr);
  again->handler->OnReady();
  Settle();
  world_.Take();
  ASSERT_EQ(again->under_way.size(), 1u);
  Refuse(*again);
  const auto result = TheResult();
  EXPECT_EQ(result.outcome(), kTransient);
  EXPECT_EQ(result.reply().enhanced(), "4.7.30");
  EXPECT_NE(result.reply().text().find("not reached"), std::string::npos);
}

TEST_F(RequireTls, NobodyReachedIsNoEndlessSearch) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  Refuse(first);
  world_.Take();
  Lease(3);
  To("mx2")->Close(false);
  Settle();
  for (FakeSites::Remote* each : world_.sites.open) {
    if (each == &first) continue;
    each->Close(false);
    break;
  }
  Settle();
  // It is told by the one that stands, and not looked for again within the minute.
  ASSERT_EQ(first.under_way.size(), 1u);
  world_.Take();
  Refuse(first);
  EXPECT_EQ(TheResult().outcome(), kTransient);
  const size_t connects = world_.sites.connects.size();
  Lease(5);
  ASSERT_EQ(first.under_way.size(), 1u);
  Refuse(first);
  EXPECT_EQ(TheResult().outcome(), kTransient);
  EXPECT_EQ(world_.sites.connects.size(), connects);
}

// A handshake that broke says little of the next one: nothing bounces for it, other hosts are
// tried, and the connections in clear are no use.
TEST_F(RequireTls, ItIsPutOffWhereHandshakesFailed) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  world_.Take();
  Refuse(first, "4.7.10");
  EXPECT_EQ(TheResult().outcome(), kNotAttempted);
  EXPECT_FALSE(first.quit);
  Lease(3);
  FakeSites::Remote* const second = To("mx2", true);
  ASSERT_NE(second, nullptr);
  world_.Take();
  Refuse(*second, "4.7.10");
  EXPECT_EQ(TheResult().outcome(), kTransient);
  EXPECT_TRUE(second->quit);
}

class RequireTlsAlone : public RequireTls {
 protected:
  RequireTlsAlone() : RequireTls(1) {}
};

// The only connection gives way, and what the host said outlives it.
TEST_F(RequireTlsAlone, OneConnectionGivesWay) {
  FakeSites::Remote& first = world_.Connected(1);
  Lease(1);
  Refuse(first);
  world_.Take();
  Lease(3);
  EXPECT_TRUE(first.quit);
  first.Close(true);
  Settle();
  EXPECT_EQ(world_.Take().returned_leases_size(), 1);
  world_.shard().Ready(1, 1);
  Settle();
  FakeSites::Remote* const second = To("mx2", true);
  ASSERT_NE(second, nullptr);
  Lease(5);
  ASSERT_EQ(second->under_way.size(), 1u);
  second->Answer(kDelivered, 250);
  EXPECT_EQ(TheResult().outcome(), kDelivered);
}

}  // namespace
}  // namespace sluice::delivery
