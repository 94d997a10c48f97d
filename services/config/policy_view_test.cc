// Proves that the most particular setting holds, for queues, clients and pauses.
#include "services/config/policy_view.h"

#include <gtest/gtest.h>

#include "services/config/domain_pattern.h"

namespace sluice::config {
namespace {

using policy::v1::PolicySnapshot;

policy::v1::SectionContent* Add(PolicySnapshot& snapshot, const std::string& name) {
  auto* section = snapshot.add_sections();
  section->set_name(name);
  return section->mutable_content();
}

void AddDomain(PolicySnapshot& snapshot, const std::string& pattern, uint32_t max_smtp_out) {
  auto* domain = Add(snapshot, "domain/" + pattern)->mutable_domain();
  domain->set_pattern(pattern);
  domain->mutable_settings()->set_max_smtp_out(max_smtp_out);
}

TEST(DomainPattern, MatchesAsPowerMtaDoes) {
  struct Case {
    const char* pattern;
    const char* domain;
    bool matches;
  };
  for (const Case& c :
       {Case{"*", "any.example", true}, Case{"d.example", "d.example", true},
        Case{"d.example", "x.d.example", false}, Case{"*.d.example", "x.d.example", true},
        Case{"*.d.example", "d.example", false}, Case{"[*.]d.example", "d.example", true},
        Case{"[*.]d.example", "a.b.d.example", true},
        Case{"[*.]d.example", "notd.example", false}}) {
    EXPECT_EQ(PatternMatches(c.pattern, c.domain), c.matches) << c.pattern << " " << c.domain;
  }
}

TEST(PolicyView, DefaultsLetLoopbackRelayAndNobodyElse) {
  const auto view = PolicyView::Defaults();
  EXPECT_TRUE(view->ForClient("127.0.0.1")->allow_relay());
  EXPECT_TRUE(view->ForClient("::1")->allow_relay());
  EXPECT_FALSE(view->ForClient("192.0.2.1")->allow_relay());
  EXPECT_FALSE(view->ForClient("not an address")->allow_relay());
  EXPECT_EQ(view->version(), 0U);
  ASSERT_NE(view->FindVirtualMta("Default"), nullptr);
  const auto queue = view->ForQueue("x.example", "default", "");
  EXPECT_EQ(queue->max_smtp_out(), 20U);
  EXPECT_TRUE(queue->max_msg_rate().unlimited());
}

TEST(PolicyView, TheMoreParticularPatternWinsWhateverTheOrder) {
  PolicySnapshot snapshot;
  AddDomain(snapshot, "a.b.example", 4);
  AddDomain(snapshot, "[*.]b.example", 3);
  AddDomain(snapshot, "*.example", 2);
  AddDomain(snapshot, "*", 1);
  const auto view = *PolicyView::Build(snapshot);
  EXPECT_EQ(view->ForQueue("other", "v", "")->max_smtp_out(), 1U);
  EXPECT_EQ(view->ForQueue("c.example", "v", "")->max_smtp_out(), 2U);
  EXPECT_EQ(view->ForQueue("b.example", "v", "")->max_smtp_out(), 3U);
  EXPECT_EQ(view->ForQueue("a.b.example", "v", "")->max_smtp_out(), 4U);
}

TEST(PolicyView, AVirtualMtasSectionsGoOverItsPoolsOverTheGlobalOnes) {
  PolicySnapshot snapshot;
  AddDomain(snapshot, "x.example", 1);
  auto* pool = Add(snapshot, "pool/p")->mutable_pool();
  pool->set_name("p");
  auto* in_pool = pool->add_domains();
  in_pool->set_pattern("*");
  in_pool->mutable_settings()->set_max_smtp_out(2);
  auto* vmta = Add(snapshot, "vmta/v")->mutable_virtual_mta();
  vmta->set_name("V");
  auto* in_vmta = vmta->add_domains();
  in_vmta->set_pattern("x.example");
  in_vmta->mutable_settings()->mutable_retry_after()->add_us(5);
  const auto view = *PolicyView::Build(snapshot);
  EXPECT_EQ(view->ForQueue("x.example", "other", "")->max_smtp_out(), 1U);
  EXPECT_EQ(view->ForQueue("x.example", "v", "p")->max_smtp_out(), 2U);
  const auto queue = view->ForQueue("x.example", "v", "P");
  ASSERT_EQ(queue->retry_after().us_size(), 1) << "a list replaces, it does not add";
  EXPECT_EQ(queue->retry_after().us(0), 5);
}

TEST(PolicyView, TheMoreParticularNetworkWins) {
  PolicySnapshot snapshot;
  for (const auto& [cidr, relay] :
       {std::pair{"10.1.0.0/16", false}, {"10.0.0.0/8", true}, {"10.1.2.3", true}}) {
    auto* client = Add(snapshot, std::string("client/") + cidr)->mutable_client();
    client->set_cidr(cidr);
    client->mutable_settings()->set_allow_relay(relay);
  }
  const auto view = *PolicyView::Build(snapshot);
  EXPECT_TRUE(view->ForClient("10.2.0.1")->allow_relay());
  EXPECT_FALSE(view->ForClient("10.1.0.1")->allow_relay());
  EXPECT_TRUE(view->ForClient("10.1.2.3")->allow_relay());
  EXPECT_TRUE(view->ForClient("::ffff:10.2.0.1")->allow_relay());
  Add(snapshot, "client/bad")->mutable_client()->set_cidr("10.0.0.0/99");
  const auto bad = PolicyView::Build(snapshot);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PolicyView, PausesHoldForQueuesAndForJobs) {
  PolicySnapshot snapshot;
  auto* queue = Add(snapshot, "control/1")->mutable_control();
  queue->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
  queue->set_queue_pattern("gmail.*/m?");
  auto* job = Add(snapshot, "control/2")->mutable_control();
  job->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
  job->set_job_id("j1");
  const auto view = *PolicyView::Build(snapshot);
  EXPECT_NE(view->FindPause("gmail.com/m1", ""), nullptr);
  EXPECT_EQ(view->FindPause("gmail.com/x1", ""), nullptr);
  EXPECT_EQ(view->FindPause("other/x", ""), nullptr);
  EXPECT_NE(view->FindPause("other/x", "j1"), nullptr);
  EXPECT_EQ(view->FindPause("other/x", "j2"), nullptr);
  // Of several the one that lasts longest.
  queue->set_until_us(5);
  auto* longer = Add(snapshot, "control/3")->mutable_control();
  longer->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
  longer->set_queue_pattern("*/m1");
  longer->set_until_us(7);
  EXPECT_EQ((*PolicyView::Build(snapshot))->FindPause("gmail.com/m1", "")->until_us(), 7);
  longer->clear_until_us();
  EXPECT_EQ((*PolicyView::Build(snapshot))->FindPause("gmail.com/m1", "")->until_us(), 0);
}

TEST(PolicyViewTest, NobodyButLoopbackMayRelayUnasked) {
  const auto view = PolicyView::Defaults();
  EXPECT_TRUE(view->ForClient("127.0.0.1")->allow_relay());
  for (const char* ip : {"192.0.2.1", "2001:db8::1"}) {
    EXPECT_FALSE(view->ForClient(ip)->allow_relay());
    EXPECT_FALSE(view->ForClient(ip)->allow_submission());
  }
}

}  // namespace
}  // namespace sluice::config
