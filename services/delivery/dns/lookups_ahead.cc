#include "services/delivery/dns/lookups_ahead.h"

#include <algorithm>
#include <utility>

namespace sluice::delivery {
namespace {

// Mail that waits for its own lookups must not wait behind these.
constexpr size_t kMostUnderWay = 8;
constexpr Duration kShortestInterval = std::chrono::seconds(1);

}  // namespace

LookupsAhead::LookupsAhead(Executor& executor, Refresh refresh)
    : executor_(executor), refresh_(std::move(refresh)) {}

LookupsAhead::~LookupsAhead() {
  if (timer_ != 0) executor_.Cancel(timer_);
}

void LookupsAhead::SetPolicy(const policy::v1::GlobalSettings& settings) {
  const auto& named = settings.precached_domains().values();
  const size_t most = settings.precached_max_domains();
  std::vector<std::string> domains(
      named.begin(),
      named.begin() + static_cast<int>(std::min<size_t>(most, static_cast<size_t>(named.size()))));
  const Duration interval =
      std::max(kShortestInterval, Duration(settings.precached_refresh_interval_us()));
  if (domains == domains_ && interval == interval_) return;
  domains_ = std::move(domains);
  interval_ = interval;
  if (timer_ != 0) executor_.Cancel(std::exchange(timer_, 0));
  left_.clear();
  Round();
}

// One that takes longer than the interval goes on.
void LookupsAhead::Round() {
  if (domains_.empty()) return;
  if (left_.empty()) left_.assign(domains_.begin(), domains_.end());
  timer_ = executor_.After(interval_, [this] {
    timer_ = 0;
    Round();
  });
  Next();
}

void LookupsAhead::Next() {
  while (under_way_ < kMostUnderWay && !left_.empty()) {
    const std::string domain = std::move(left_.front());
    left_.pop_front();
    ++under_way_;
    refresh_(domain, executor_.clock().Now() + interval_,
             [this, alive = std::weak_ptr<bool>(alive_)](std::shared_ptr<const MxResult>) {
               if (alive.expired()) return;
               // Posted: what is known is said at once, and 500 of these would be a deep stack.
               executor_.Post([this, alive] {
                 if (alive.expired()) return;
                 --under_way_;
                 Next();
               });
             });
  }
}

}  // namespace sluice::delivery
