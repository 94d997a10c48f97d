// Queues that reach nobody: they enter retry mode and leave it, or fail all their recipients.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/utf8.h"
#include "services/queue/core/result_rules.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {

void Shard::OnQueueFailure(Queue& queue, const v1::QueueFailure& failure) {
  const int64_t now_us = NowUs();
  common::v1::Reply reply = failure.reply();
  CutReply(reply);
  queues_.Remember(queue, reply, now_us, SettingsOf(queue).max_events_recorded());
  if (failure.permanent()) {
    const bool all = failure.permanent_after_us() <= 0;
    if (all) Release(queue, false);
    // Age says nothing while the clock is not to be trusted.
    if (!failing_.contains(queue.id) && (all || MayExpire())) {
      auto kept = std::make_shared<v1::QueueFailure>(failure);
      *kept->mutable_reply() = reply;
      FailAll(queue, std::move(kept), {});
    }
    if (all) return;
  }
  const auto& settings = SettingsOf(queue);
  int64_t wait_us = settings.retry_after_dns_error_us();
  if (!failure.dns()) wait_us = RetryWaitUs(queue, queue.retry_step);
  const bool penalised = queue.Penalised(now_us);
  if (failure.penalty_us() > 0 && !penalised) {
    const uint32_t doubled = std::min<uint32_t>(queue.penalties++, 30);
    const int64_t most_us = std::max(failure.penalty_us(), failure.penalty_most_us());
    wait_us = failure.penalty_us() > most_us >> doubled ? most_us : failure.penalty_us() << doubled;
    queue.penalty_until_us = now_us + wait_us;
  } else if (penalised) {
    wait_us = std::max(failure.penalty_us() > 0 ? 0 : wait_us, queue.penalty_until_us - now_us);
  }
  queue.mode = v1::QUEUE_MODE_RETRY;
  queue.deferred = failure.by_reply();
  if (!penalised) ++queue.retry_step;
  queue.retry_until_us = OnTheSweep(now_us + wait_us, policy_->global().queue_interval_us());
  TouchRow(queue);
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_QUEUE_TRANSIENT, queue, common::v1::Message(), nullptr);
  *event.mutable_reply() = reply;
  *event.mutable_attempt() = failure.attempt();
  event.set_stage(reply.stage());
  event.set_retry_us(queue.retry_until_us);
  Release(queue, false);
  Offer(queue);
}

int64_t Shard::RetryWaitUs(Queue& queue, uint32_t step) {
  const auto& steps = RetryStepsOf(queue);
  if (steps.us_size() == 0) return 600'000'000;
  return steps.us(static_cast<int>(std::min(step, static_cast<uint32_t>(steps.us_size() - 1))));
}

void Shard::LeaveRetryMode(Queue& queue) {
  if (queue.mode != v1::QUEUE_MODE_RETRY) return;
  queue.mode = v1::QUEUE_MODE_UNSPECIFIED;
  queue.deferred = false;
  queue.retry_step = 0;
  queue.retry_until_us = 0;
  TouchRow(queue);
}

// No such domain: every recipient fails, whenever it is due, but those that an operator paused,
// that are held, or that are not as old as the failure wants them; a bounded number a turn.
// `position` is the last row looked at.
void Shard::FailAll(Queue& queue, std::shared_ptr<const v1::QueueFailure> failure,
                    std::string position) {
  constexpr int kRowsPerTurn = 500;
  failing_.insert(queue.id);
  // Storage keys are the times of arrival, in microseconds.
  const int64_t young_from_us =
      failure->permanent_after_us() > 0 ? NowUs() - failure->permanent_after_us() : INT64_MAX;
  std::vector<DeliveryKey> keys;
  int budget = kRowsPerTurn;
  const auto fail = [&](Lane& lane, const DeliveryKey& key, common::v1::Delivery& delivery) {
    if (lane.busy.contains(key) || (delivery.has_hold() && delivery.hold().until_us() == 0) ||
        static_cast<int64_t>(key.storage_key) > young_from_us) {
      return;
    }
    const auto message = LoadMessage(key.storage_key);
    if (message == nullptr) return;
    lane.busy.insert(key);
    keys.push_back(key);
    delivery.set_attempts(delivery.attempts() + 1);
    Fail(queue, key, delivery, *message, common::v1::EVENT_KIND_FAILED, failure->reply(),
         &failure->attempt());
    RecipientsLess(key.storage_key, *message, 1);
  };
  const bool through = LookThrough(queue, PausedLanes::kSkip, position, budget, fail);
  for (Lane& lane : queue.lanes) {
    // What is left, and when it is due, the next look tells.
    if (!lane.paused) lane.looked_at = false;
  }
  if (!keys.empty()) FreeWhenDurable(queue, std::move(keys), {});
  journal_.WhenDurable([this, id = queue.id, failure = std::move(failure), through,
                        position = std::move(position)](const absl::Status& status) mutable {
    Queue* queue = status.ok() ? queues_.FindById(id) : nullptr;
    if (queue != nullptr && !through) {
      FailAll(*queue, std::move(failure), std::move(position));
      return;
    }
    failing_.erase(id);
    if (queue != nullptr) Offer(*queue);
  });
}

}  // namespace sluice::queue
