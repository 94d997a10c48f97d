// The ledger of volumes: before bytes of a limit are used, the ledger says that they may have been.
// It allows a part of each limit at a time, so that it is written now and then, and not with each
// message; what a killed worker had left of its part counts as sent.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/volume_ledger.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// Between two writes, and so many times what one took.
constexpr Duration kGap = std::chrono::milliseconds(20);
constexpr int kGapTimes = 10;
// While the disk does not take it.
constexpr Duration kTryAgain = std::chrono::seconds(5);

}  // namespace

void Worker::EachVolume(absl::FunctionRef<void(const std::string&, VolumeWindow&)> use) const {
  const auto one = [&](const std::string& key, const std::unique_ptr<VolumeWindow>& volume) {
    if (volume != nullptr && volume->limited()) use(key, *volume);
  };
  for (const auto& [key, pace] : resting_) one(key, pace.volume);
  for (const auto& [name, queue] : queues_) {
    one(name, queue->pace.volume);
    for (const auto& part : queue->parts) {
      one(absl::StrCat(name, "\n", part->source->ip), part->pace.volume);
    }
  }
  for (const auto& [name, rollup] : rollups_) {
    one(rollup->limits.own.volume_key, rollup->limits.own.volume);
    for (const auto& part : rollup->parts) {
      one(absl::StrCat(rollup->key, "\n", part->source->ip), part->pace.volume);
    }
  }
  for (const auto& [name, limits] : vmta_limits_) one(limits->own.volume_key, limits->own.volume);
  for (const auto& [name, pool] : pool_limits_) one(pool->volume_key, pool->volume);
}

// Whether the ledger allows a message of that size now; else it is asked.
bool Worker::LedgerAllows(Queue& queue, Conn& conn, uint64_t bytes) {
  const uint64_t epoch = owners_ == nullptr ? 0 : owners_->epoch();
  if (ledger_ == nullptr || executor_.clock().Now() < ledger_off_until_) return true;
  // What is written down holds for one table of owners.
  if (ledger_epoch_ != epoch) WriteLedger();
  bool allowed = true;
  const auto look = [&](const std::unique_ptr<VolumeWindow>& volume) {
    if (volume == nullptr || !volume->limited() || volume->period() < options_.ledger_from) return;
    volume->UseLedger();
    if (volume->ahead() >= bytes) return;
    volume->Want(bytes);
    allowed = false;
  };
  look(queue.pace.volume);
  if (conn.part != nullptr) look(conn.part->pace.volume);
  if (queue.limits->has_volume) {
    look(queue.limits->own.volume);
    for (const auto& pool : queue.limits->pools) look(pool->volume);
  }
  if (!allowed) WriteLedger();
  return allowed;
}

void Worker::WriteLedger() {
  if (ledger_writing_ || ledger_timer_ != 0) return;
  const MonotonicTime now = executor_.clock().Now();
  if (now < ledger_next_) {
    ledger_timer_ = executor_.At(ledger_next_, [this] {
      ledger_timer_ = 0;
      WriteLedger();
    });
    return;
  }
  ledger_writing_ = true;
  ledger_epoch_ = owners_ == nullptr ? 0 : owners_->epoch();
  VolumePromises promises;
  EachVolume([&](const std::string& key, VolumeWindow& volume) {
    if (volume.ledgered()) promises[key] = volume.Ask(now);
  });
  v1::VolumeRecords records = VolumesWith(promises);
  records.set_running(true);
  ledger_->Keep(std::move(records),
                [this, now, promises = std::move(promises)](VolumeLedger::Kept kept) mutable {
                  OnLedger(now, promises, kept);
                });
}

void Worker::OnLedger(MonotonicTime began, const VolumePromises& promises,
                      VolumeLedger::Kept kept) {
  ledger_writing_ = false;
  ledger_fails_ = kept == VolumeLedger::Kept::kBefore;
  const MonotonicTime now = executor_.clock().Now();
  ledger_next_ = now + std::max(kGap, kGapTimes * (now - began));
  if (kept != VolumeLedger::Kept::kYes) {
    ledger_next_ = now + kTryAgain;
    // Nothing is written down: after a kill nothing is known, which holds mail back then.
    if (kept == VolumeLedger::Kept::kNothing) ledger_off_until_ = ledger_next_;
  }
  EachVolume([&](const std::string& key, VolumeWindow& volume) {
    const auto found = promises.find(key);
    if (kept == VolumeLedger::Kept::kYes && found != promises.end()) {
      volume.Allow(found->second);
    } else if (kept == VolumeLedger::Kept::kNothing) {
      volume.Forbid();  // until it is written again
    }
  });
  for (const std::string& name : std::exchange(ledger_waits_, {})) {
    const auto found = queues_.find(name);
    if (found != queues_.end()) SendPaced(*found->second);
  }
}

}  // namespace sluice::delivery
