// The wall clock may be set: its steps say nothing about the age of mail.
#include <algorithm>

#include "services/queue/core/shard.h"
#include "services/queue/core/unknown_fields.h"

namespace sluice::queue {
namespace {

constexpr char kClockKey[] = "clock";
constexpr int64_t kStepUs = 60'000'000;
// Nothing expires before the clock has been quiet for so long.
constexpr Duration kQuiet = std::chrono::minutes(10);
// Between two rows, where others are written anyway, and where not.
constexpr Duration kWriteBusy = std::chrono::minutes(1);
constexpr Duration kWriteIdle = std::chrono::minutes(10);

bool IsStep(int64_t step_us) { return step_us <= -kStepUs || step_us >= kStepUs; }

}  // namespace

// At start: what the clocks did since the last row. After another boot how long the machine was
// down is not known, so what looks like a step is taken for one: expiry then waits a little.
void Shard::ReadClock() {
  std::string value;
  v1::ClockRow row;
  if (!store_.Get(Family::kMeta, kClockKey, &value).ok() || !row.ParseFromString(value)) return;
  clock_unknown_fields_ = UnknownFieldsOf(row);
  const MonotonicTime now = executor_.clock().Now();
  const int64_t monotonic_us = now.time_since_epoch().count();
  int64_t step_us = NowUs() - row.wall_us();
  if (row.boot() == options_.boot_id && monotonic_us >= row.monotonic_us()) {
    step_us -= monotonic_us - row.monotonic_us();
  }
  if (IsStep(step_us)) NoteStep(step_us);
  expiry_frozen_until_ = now + (IsStep(step_us) ? kQuiet : Duration(row.frozen_us()));
}

void Shard::NoteStep(int64_t step_us) {
  clock_step_us_ = step_us;
  if (options_.log == nullptr) return;
  options_.log->Warn("clock_step", "the wall clock was set: nothing expires before it is quiet",
                     {{"shard", options_.name},
                      {"step_seconds", step_us / 1'000'000},
                      {"quiet_seconds", kQuiet / std::chrono::seconds(1)}});
}

void Shard::WriteClock() {
  const MonotonicTime now = executor_.clock().Now();
  v1::ClockRow row;
  row.set_wall_us(NowUs());
  row.set_monotonic_us(now.time_since_epoch().count());
  row.set_boot(options_.boot_id);
  row.set_frozen_us(std::max<int64_t>(0, (expiry_frozen_until_ - now).count()));
  journal_.batch().Put(Family::kMeta, kClockKey, row.SerializeAsString() + clock_unknown_fields_);
  clock_written_ = now;
}

void Shard::ConfirmClock(v1::ConfirmClockRequest request, Done<v1::ConfirmClockResponse> done) {
  // A step that no turn of the watch has seen yet is confirmed, too.
  WatchWallClock();
  const MonotonicTime now = executor_.clock().Now();
  v1::ConfirmClockResponse response;
  response.set_wall_unix_us(NowUs());
  response.set_was_frozen_us(std::max<int64_t>(0, (expiry_frozen_until_ - now).count()));
  if (response.was_frozen_us() > 0) {
    if (options_.log != nullptr) {
      options_.log->Info("clock_confirmed", "the wall clock is right: mail expires again",
                         {{"shard", options_.name},
                          {"author", request.author()},
                          {"frozen_seconds", response.was_frozen_us() / 1'000'000}});
    }
    expiry_frozen_until_ = now;
    clock_step_us_ = 0;
    WriteClock();
  }
  journal_.WhenDurable([response, done = std::move(done)](const absl::Status& status) mutable {
    if (status.ok()) {
      done(std::move(response));
    } else {
      done(status);
    }
  });
}

// After a step expiry waits until the clock has been quiet for a while, and timers that were set by
// the old time are set anew.
void Shard::WatchWallClock() {
  const MonotonicTime now = executor_.clock().Now();
  const int64_t offset_us = NowUs() - now.time_since_epoch().count();
  const int64_t step_us = offset_us - wall_offset_us_.value_or(offset_us);
  const bool first = !wall_offset_us_.has_value();
  wall_offset_us_ = offset_us;
  if (!IsStep(step_us)) {
    const Duration wait = journal_.busy() ? kWriteBusy : kWriteIdle;
    if (first || now >= clock_written_ + wait) WriteClock();
    return;
  }
  NoteStep(step_us);
  expiry_frozen_until_ = now + kQuiet;
  WriteClock();
  for (const auto& [name, queue] : queues_.all()) {
    if (queue->timer != 0) executor_.Cancel(std::exchange(queue->timer, 0));
    start_queue_.push_back(queue->id);
  }
  PostTask([this] { LookAtSome(); });
}

}  // namespace sluice::queue
