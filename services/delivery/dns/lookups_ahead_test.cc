// Which domains are looked up ahead of mail, how often, and how many at a time.
#include "services/delivery/dns/lookups_ahead.h"

#include <map>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"

namespace sluice::delivery {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class LookupsAheadTest : public ::testing::Test {
 protected:
  void Name(int count, Duration interval, uint32_t most = 500) {
    policy::v1::GlobalSettings settings;
    settings.mutable_precached_domains();
    for (int i = 0; i < count; ++i) {
      settings.mutable_precached_domains()->add_values("d" + std::to_string(i) + ".test");
    }
    settings.set_precached_refresh_interval_us(interval.count());
    settings.set_precached_max_domains(most);
    ahead_.SetPolicy(settings);
    executor_.RunPosted();
  }
  void AnswerAll() {
    while (!waiting_.empty()) {
      auto done = std::move(waiting_);
      waiting_.clear();
      for (auto& each : done) each(std::make_shared<MxResult>());
      executor_.RunPosted();
    }
  }

  sluice::testing::ManualExecutor executor_;
  std::map<std::string, int> asked_;
  std::vector<Duration> ahead_of_;
  std::vector<MxResolver::Done> waiting_;
  LookupsAhead ahead_{
      executor_, [this](const std::string& domain, MonotonicTime until, MxResolver::Done done) {
        ++asked_[domain];
        ahead_of_.push_back(until - executor_.clock().Now());
        waiting_.push_back(std::move(done));
      }};
};

TEST_F(LookupsAheadTest, EachOfThemAtOnceAndOnceAnInterval) {
  Name(20, minutes(5));
  EXPECT_EQ(waiting_.size(), 8U) << "a few at a time";
  AnswerAll();
  EXPECT_EQ(asked_.size(), 20U);
  EXPECT_EQ(ahead_of_.front(), Duration(minutes(5))) << "until the next round";
  executor_.Advance(minutes(4));
  EXPECT_EQ(asked_["d7.test"], 1);
  executor_.Advance(minutes(1));
  AnswerAll();
  EXPECT_EQ(asked_["d7.test"], 2);
}

TEST_F(LookupsAheadTest, NoMoreThanTheMost) {
  Name(20, minutes(5), 3);
  AnswerAll();
  EXPECT_EQ(asked_.size(), 3U);
}

TEST_F(LookupsAheadTest, OtherDomainsAtOnceAndTheSamePolicyChangesNothing) {
  Name(2, minutes(5));
  AnswerAll();
  Name(2, minutes(5));
  AnswerAll();
  EXPECT_EQ(asked_["d0.test"], 1);
  Name(3, minutes(5));
  AnswerAll();
  EXPECT_EQ(asked_["d2.test"], 1);
  Name(0, minutes(5));
  executor_.Advance(minutes(20));
  EXPECT_EQ(asked_["d2.test"], 1);
}

TEST_F(LookupsAheadTest, ARoundThatTakesLongGoesOn) {
  Name(10, seconds(1));
  executor_.Advance(seconds(10));
  EXPECT_EQ(asked_.size(), 8U) << "the first ones have no answer yet";
  AnswerAll();
  EXPECT_EQ(asked_.size(), 10U);
  EXPECT_EQ(asked_["d0.test"], 1);
}

}  // namespace
}  // namespace sluice::delivery
