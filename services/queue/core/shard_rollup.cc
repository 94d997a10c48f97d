// Queues of domains that <mx-rollup-list> puts together by their MX, which workers look up: they
// have one owner, and the settings of the rollup's name.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/config/queue_mark.h"
#include "services/queue/core/result_rules.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// A queue comes to a rollup at once, and does not leave it sooner: workers whose resolvers disagree
// would pass it to and fro, and what they agree on is that it may be one of the rollup's.
constexpr int64_t kLeastUs = 60 * int64_t{1'000'000};

// Of one turn: queues that are looked at, and as how many of these one counts that is put off.
constexpr int kLooksPerTurn = 4'000;
constexpr int kLooksPerDeferral = 20;
// Rows of queues that are being failed, above which no other begins.
constexpr uint64_t kMostRowsFailing = 1'000;

// One for each of what may be said of a rollup.
std::string WalkOf(const v1::RollupFailure& said) {
  return absl::AsciiStrToLower(absl::StrCat(said.rollup(), "/", said.vmta(),
                                            said.failure().permanent() ? "\nbounce" : "\ndefer"));
}

// Of the queue whose limits and owner it has: its own, or the one beside which it stands.
std::string_view NameOfLimits(const Queue& queue) {
  return config::IsTlsOptional(queue.name) ? config::WithoutMark(queue.name)
                                           : std::string_view(queue.name);
}

}  // namespace

bool Shard::IsRollup(std::string_view name) const {
  for (const auto& entry : policy_->mx_rollup().entries()) {
    if (entry.queue() == name) return true;
  }
  return false;
}

std::string Shard::OwnerKey(const Queue& queue) {
  if (queue.rollup == nullptr) return std::string(NameOfLimits(queue));
  return absl::StrCat(*queue.rollup, "/", std::string(queue.vmta()));
}

bool Shard::IsNamed(const Queue& queue, std::string_view pattern) {
  if (pattern.empty()) return false;
  return config::WildcardMatches(pattern, queue.name) ||
         (config::IsTlsOptional(queue.name) &&
          config::WildcardMatches(pattern, NameOfLimits(queue))) ||
         (queue.rollup != nullptr && config::WildcardMatches(pattern, OwnerKey(queue)));
}

const policy::v1::ControlEntry* Shard::PauseOf(const Queue& queue, std::string_view job_id) const {
  const auto* pause = policy_->FindPause(queue.name, job_id);
  if (pause == nullptr && config::IsTlsOptional(queue.name)) {
    pause = policy_->FindPause(NameOfLimits(queue), job_id);
  }
  if (pause == nullptr && queue.rollup != nullptr) {
    pause = policy_->FindPause(OwnerKey(queue), job_id);
  }
  return pause;
}

void Shard::SetRollup(Queue& queue, const std::string* name) {
  queue.rollup = name;
  queue.rollup_since_us = NowUs();
  queue.settings_version = UINT64_MAX;  // other settings hold now
  TouchRow(queue);
  RefreshPause(queue);
}

void Shard::OnRollup(WorkerSession& session, const v1::QueueRollup& said) {
  const auto found = refs_.find(said.queue_ref());
  if (found == refs_.end() || found->second->session != &session) return;
  Queue& queue = *found->second;
  queue.rollup_wish = said.rollup().empty() ? nullptr : queues_.Shared(said.rollup());
  Offer(queue);
}

void Shard::HeedRollup(Queue& queue) {
  const std::string* const wish = queue.rollup_wish;
  if (queue.session == nullptr || wish == queue.rollup) return;
  if (wish != nullptr && !IsRollup(*wish)) return;  // of a policy that has not come here yet
  const int64_t until_us = queue.rollup_since_us + kLeastUs;
  if (queue.rollup != nullptr && NowUs() < until_us) {
    Wake(queue, until_us);
    return;
  }
  SetRollup(queue, wish);
  if (MayServe(*queue.session, queue)) {
    Announce(queue);
  } else {
    Release(queue, true);
  }
}

// Many connections are likely to have had the same reply: one walk at a time is enough.
void Shard::OnRollupFailure(const v1::RollupFailure& said) {
  if (said.rollup().empty() || !failing_rollups_.insert(WalkOf(said)).second) return;
  FailRollup(std::make_shared<v1::RollupFailure>(said), {});
}

// Some queues a turn, from the one behind `position` on.
void Shard::FailRollup(std::shared_ptr<const v1::RollupFailure> said, std::string position) {
  const bool permanent = said->failure().permanent();
  uint64_t rows = 0;
  if (permanent) {
    for (const uint64_t id : failing_) {
      if (const Queue* queue = queues_.FindById(id)) rows += RowsFailing(*queue);
    }
  }
  int left = kLooksPerTurn;
  const std::string* known = nullptr;  // most have one of a few names
  bool is_known_in = false;
  auto it = queues_.all().upper_bound(position);
  for (; left > 0 && rows < kMostRowsFailing && it != queues_.all().end(); --left) {
    Queue& queue = *it->second;
    position = queue.name;
    ++it;  // before a change, which may add queues
    if (queue.rollup == nullptr) continue;
    if (std::exchange(known, queue.rollup) != queue.rollup) {
      is_known_in = absl::EqualsIgnoreCase(*queue.rollup, said->rollup());
    }
    const std::string_view vmta = queue.vmta();
    if (!is_known_in || !absl::EqualsIgnoreCase({vmta.data(), vmta.size()}, said->vmta())) continue;
    if (permanent) {
      rows += RowsFailing(queue);
    } else {
      left -= kLooksPerDeferral;
    }
    FailWithRollup(queue, said->failure());
    journal_.Seal();
  }
  const bool through = it == queues_.all().end();
  journal_.WhenDurable([this, said = std::move(said), through,
                        position = std::move(position)](const absl::Status& status) mutable {
    if (!status.ok() || through) {
      failing_rollups_.erase(WalkOf(*said));
      return;
    }
    PostTask([this, said = std::move(said), position = std::move(position)]() mutable {
      FailRollup(std::move(said), std::move(position));
    });
  });
}

// Of what FailAll writes in a turn.
uint64_t Shard::RowsFailing(const Queue& queue) const {
  constexpr uint64_t kFew = 500;
  return counting_ ? kFew : std::clamp<uint64_t>(queue.recipients, 1, kFew);
}

void Shard::FailWithRollup(Queue& queue, const v1::QueueFailure& failure) {
  const int64_t now_us = NowUs();
  if (failing_.contains(queue.id)) return;
  if (failure.permanent()) {
    // An operator's word is the nearer one.
    if (queue.paused || (queue.recipients == 0 && !counting_)) return;
  } else if (queue.mode == v1::QUEUE_MODE_RETRY && queue.retry_until_us > now_us) {
    // It waits already, and is to wait no shorter than the others; but no longer each time that one
    // of them is refused again.
    if (queue.deferred) return;
    const int64_t wait_us = RetryWaitUs(queue, queue.retry_step == 0 ? 0 : queue.retry_step - 1);
    const int64_t until_us = OnTheSweep(now_us + wait_us, policy_->global().queue_interval_us());
    queue.retry_until_us = std::max(queue.retry_until_us, until_us);
    queue.deferred = failure.by_reply();
    common::v1::Reply reply = failure.reply();
    CutReply(reply);
    queues_.Remember(queue, reply, now_us, SettingsOf(queue).max_events_recorded());
    TouchRow(queue);
    return;
  }
  Release(queue, true);  // its worker may not know yet
  OnQueueFailure(queue, failure);
}

bool Shard::DropRollups() {
  bool any = false;
  absl::flat_hash_map<const std::string*, bool> listed;  // each name once
  for (const auto& [name, queue] : queues_.all()) {
    if (queue->rollup == nullptr) continue;
    const auto [entry, fresh] = listed.try_emplace(queue->rollup, false);
    if (fresh) entry->second = IsRollup(*queue->rollup);
    if (entry->second) continue;
    SetRollup(*queue, nullptr);
    any = true;
  }
  return any;
}

}  // namespace sluice::queue
