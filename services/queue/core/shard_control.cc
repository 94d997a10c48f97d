// What operators see and change: queues and why they stand, recipients, events.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {
namespace {

constexpr uint32_t kDefaultLimit = 1000;
constexpr uint32_t kMostLimit = 10'000;
constexpr size_t kMaxBodyShown = size_t{1} << 20;

uint32_t LimitOf(uint32_t asked, uint32_t otherwise = kDefaultLimit, uint32_t most = kMostLimit) {
  return asked == 0 ? otherwise : std::min(asked, most);
}

std::string_view ModeName(v1::QueueMode mode) {
  switch (mode) {
    case v1::QUEUE_MODE_RETRY:
      return "retry";
    case v1::QUEUE_MODE_BACKOFF:
      return "backoff";
    default:
      return "normal";
  }
}

}  // namespace

void Shard::GetShardStatus(v1::GetShardStatusRequest, Done<v1::GetShardStatusResponse> done) {
  v1::GetShardStatusResponse status;
  status.set_shard(options_.name);
  status.set_epoch(epoch_);
  uint64_t recipients = 0;
  for (const auto& [name, queue] : queues_.all()) recipients += queue->recipients;
  status.set_recipients(recipients);
  status.set_counting(counting_);
  status.set_queues(queues_.size());
  status.set_spool_bytes(health_.live_bytes);
  status.set_spool_limit_bytes(options_.spool_limit_bytes);
  std::string reason;
  status.set_accepting(Refusal(&reason) == v1::EnqueueResult::OUTCOME_UNSPECIFIED);
  status.set_not_accepting_reason(reason);
  uint64_t leased = 0;
  for (const auto& [id, lease] : leases_) leased += lease->keys.size();
  status.set_leased_recipients(leased);
  status.set_workers(workers_.size());
  status.set_accepted_total(stats_.accepted);
  status.set_accepted_recipients_total(stats_.accepted_recipients);
  status.set_delivered_total(stats_.delivered);
  status.set_transient_total(stats_.transient);
  status.set_failed_total(stats_.failed);
  status.set_expired_total(stats_.expired);
  status.set_lost_leases_total(stats_.lost_leases);
  status.set_held_recipients(stats_.held);
  status.set_events_dropped_total(stats_.events_dropped);
  const CommitterStats commits = committer_.stats();
  status.set_syncs_total(commits.syncs);
  status.set_sync_p50_us(static_cast<uint64_t>(commits.p50.count()));
  status.set_sync_p99_us(static_cast<uint64_t>(commits.p99.count()));
  status.set_snapshot_version(policy_->version());
  status.set_outbox_first_sequence(first_sequence_);
  status.set_outbox_next_sequence(journal_.next_sequence());
  status.set_start_unix_us(started_us_);
  done(std::move(status));
}

// Why nothing moves, and when something will; empty where the queue moves.
std::string Shard::ReasonOf(Queue& queue, int64_t* next_us) {
  const int64_t now_us = NowUs();
  *next_us = 0;
  if (queue.pause != nullptr) {
    *next_us = queue.pause->until_us();
    return absl::StrCat("paused by ", queue.pause->author(), ": ", queue.pause->reason());
  }
  if (queue.mode == v1::QUEUE_MODE_RETRY && queue.retry_until_us > now_us) {
    *next_us = queue.retry_until_us;
    std::string why = "no MX could be reached";
    if (queue.history != nullptr && !queue.history->replies.empty()) {
      absl::StrAppend(&why, ": ", queue.history->replies[0].text());
    }
    return why;
  }
  int64_t due_us = kNever;
  bool lanes_paused = false;
  for (const Lane& lane : queue.lanes) {
    lanes_paused |= lane.paused && lane.recipients > 0;
    if (!lane.paused) due_us = std::min(due_us, lane.next_due_us);
  }
  if (due_us <= now_us) {
    *next_us = now_us;
    if (!queue.blocked_limit.empty()) {
      *next_us = queue.blocked_until_us == 0 ? now_us : queue.blocked_until_us;
      return absl::StrCat("limit reached: ", queue.blocked_limit);
    }
    if (queue.session == nullptr) {
      const bool owned = std::any_of(workers_.begin(), workers_.end(), [&queue](const auto& each) {
        return each->vmtas.contains(queue.vmta);
      });
      if (!owned) {
        return absl::StrCat("no worker is connected that owns a source of virtual MTA ",
                            queue.vmta);
      }
      if (queue.leased > 0) {
        return absl::StrCat("contact with worker ", queue.last_worker,
                            " is lost while it has mail of this queue");
      }
      return "its workers are at their bounds";
    }
    return queue.leased > 0 ? "" : "the worker looks for its MX or connects";
  }
  if (queue.leased > 0) return "";
  if (due_us != kNever) {
    *next_us = due_us;
    return "deferred: waits for the next attempt";
  }
  return lanes_paused ? "its jobs are paused" : "";
}

void Shard::FillStatus(Queue& queue, v1::QueueStatus* status, bool with_lanes) {
  status->set_name(queue.name);
  status->set_domain(queue.domain);
  status->set_vmta(queue.vmta);
  status->set_recipients(queue.recipients);
  status->set_leased(queue.leased);
  status->set_mode(std::string(ModeName(queue.mode)));
  status->set_paused(queue.pause != nullptr);
  int64_t next_us = 0;
  status->set_reason(ReasonOf(queue, &next_us));
  status->set_next_time_us(next_us);
  if (queue.pause != nullptr) status->set_author(queue.pause->author());
  if (queue.history != nullptr) {
    for (const auto& reply : queue.history->replies) *status->add_last_replies() = reply;
    for (int64_t time_us : queue.history->times_us) status->add_last_reply_times_us(time_us);
  }
  status->set_shard(options_.name);
  status->set_delivered(queue.delivered);
  status->set_transient(queue.transient);
  status->set_failed(queue.failed);
  status->set_counting(counting_);
  if (!with_lanes) return;
  for (const Lane& lane : queue.lanes) {
    if (lane.id == 0 && lane.recipients == 0 && queue.lanes.size() > 1) continue;
    v1::LaneStatus* shown = status->add_lanes();
    shown->set_job_id(lane.job_id);
    shown->set_priority(lane.priority);
    shown->set_recipients(lane.recipients);
    shown->set_paused(lane.paused);
    shown->set_next_due_us(lane.next_due_us == kNever ? 0 : lane.next_due_us);
  }
}

void Shard::ListQueues(v1::ListQueuesRequest request, Done<v1::ListQueuesResponse> done) {
  v1::ListQueuesResponse response;
  const uint32_t limit = LimitOf(request.limit());
  std::vector<Queue*> found;
  for (auto it = queues_.all().upper_bound(request.after()); it != queues_.all().end(); ++it) {
    Queue& queue = *it->second;
    if ((request.pattern().empty() || config::WildcardMatches(request.pattern(), queue.name)) &&
        (!request.paused_only() || queue.pause != nullptr) &&
        (request.mode().empty() || request.mode() == ModeName(queue.mode)) &&
        (counting_ || queue.recipients > 0 || queue.pause != nullptr ||
         queue.mode != v1::QUEUE_MODE_UNSPECIFIED)) {
      found.push_back(&queue);
    }
  }
  if (request.sort() != "name") {
    std::stable_sort(found.begin(), found.end(),
                     [](const Queue* a, const Queue* b) { return a->recipients > b->recipients; });
  }
  response.set_more(found.size() > limit);
  if (found.size() > limit) found.resize(limit);
  for (Queue* queue : found) FillStatus(*queue, response.add_queues(), false);
  done(std::move(response));
}

void Shard::GetQueue(v1::GetQueueRequest request, Done<v1::GetQueueResponse> done) {
  Queue* queue = queues_.Find(request.name());
  if (queue == nullptr) {
    done(absl::NotFoundError(absl::StrCat("shard ", options_.name, " has no queue ", request.name(),
                                          ": queues are named domain/vmta")));
    return;
  }
  v1::GetQueueResponse response;
  FillStatus(*queue, response.mutable_queue(), true);
  done(std::move(response));
}

void Shard::FillRecipient(const WalkRow& row, v1::QueuedRecipient* shown) {
  *shown->mutable_delivery() = row.delivery;
  shown->set_queue(row.queue->name);
  shown->set_due_us(row.key.due_us);
  shown->set_time_queued_us(static_cast<int64_t>(row.key.storage_key));
  shown->set_shard(options_.name);
  if (row.message != nullptr) {
    shown->set_message_id(row.message->id());
    shown->set_mail_from(row.message->mail_from());
    shown->set_body_size(row.message->body_size());
    if (row.message->time_queued_us() != 0) {
      shown->set_time_queued_us(row.message->time_queued_us());
    }
  }
  if (row.busy) {
    shown->set_state("leased");
    shown->set_worker(row.queue->last_worker);
  } else if (row.delivery.has_hold()) {
    shown->set_state("held");
    shown->set_reason(row.delivery.hold().reason());
  } else if (row.queue->pause != nullptr || row.lane_paused) {
    shown->set_state("paused");
  } else if (row.queue->mode == v1::QUEUE_MODE_RETRY) {
    shown->set_state("retry");
  } else {
    shown->set_state("queued");
  }
  if (shown->reason().empty() && row.delivery.attempts() > 0) {
    shown->set_reason(row.delivery.last_reply().text());
  }
}

void Shard::ListMessages(v1::ListMessagesRequest request, Done<v1::ListMessagesResponse> done) {
  auto walk = std::make_shared<Walk>();
  walk->filter = request.filter();
  walk->limit = LimitOf(request.limit());
  walk->position = request.after();
  walk->needs_message = true;
  auto response = std::make_shared<v1::ListMessagesResponse>();
  walk->on_row = [this, response](const WalkRow& row) {
    FillRecipient(row, response->add_recipients());
    return true;
  };
  walk->on_end = [response, done = std::move(done)](bool more,
                                                    const std::string& position) mutable {
    if (more) response->set_after(position);
    done(std::move(*response));
  };
  RunWalk(std::move(walk));
}

void Shard::GetMessage(v1::GetMessageRequest request, Done<v1::GetMessageResponse> done) {
  auto walk = std::make_shared<Walk>();
  walk->filter.set_message_id(request.message_id());
  walk->limit = kMostLimit;
  walk->needs_message = true;
  auto response = std::make_shared<v1::GetMessageResponse>();
  auto storage_key = std::make_shared<uint64_t>(0);
  walk->on_row = [this, response, storage_key](const WalkRow& row) {
    *storage_key = row.key.storage_key;
    *response->mutable_message() = *row.message;
    FillRecipient(row, response->add_recipients());
    return true;
  };
  walk->on_end = [this, response, storage_key, with_body = request.with_body(),
                  done = std::move(done)](bool, const std::string&) mutable {
    if (response->recipients().empty()) {
      done(absl::NotFoundError("no recipient of such a message is queued on this shard"));
      return;
    }
    if (with_body) {
      auto chunks = store_.Scan(Family::kBodies, U64Key(*storage_key), U64Key(*storage_key + 1));
      for (; chunks->Valid() && response->body().size() < kMaxBodyShown; chunks->Next()) {
        response->mutable_body()->append(
            chunks->value().substr(0, kMaxBodyShown - response->body().size()));
      }
    }
    done(std::move(*response));
  };
  RunWalk(std::move(walk));
}

void Shard::ReadEvents(v1::ReadEventsRequest request, Done<v1::ReadEventsResponse> done) {
  constexpr int kRecords = 20'000;
  v1::ReadEventsResponse response;
  response.set_first_sequence(first_sequence_);
  const uint32_t limit = LimitOf(request.limit());
  const uint64_t from = std::max(request.from_sequence(), first_sequence_);
  response.set_next_sequence(from);
  auto rows = store_.Scan(Family::kEvents, U64Key(from), "", false);
  for (int i = 0; rows->Valid() && i < kRecords; rows->Next(), ++i) {
    if (response.events_size() >= static_cast<int>(limit)) break;
    v1::EventBatch record;
    if (!record.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
      done(absl::DataLossError("an event record cannot be read"));
      return;
    }
    const uint64_t sequence = ReadU64(rows->key(), 0);
    response.set_next_sequence(sequence + 1);
    uint32_t position = 0;
    for (common::v1::Event& event : *record.mutable_events()) {
      std::string id = U64Key(sequence);
      AppendU32(id, position++);
      event.set_id(id + options_.name);
      if (!request.message_id().empty() && event.message_id() != request.message_id()) continue;
      *response.add_events() = std::move(event);
    }
  }
  response.set_more(rows->Valid());
  done(std::move(response));
}

}  // namespace sluice::queue
