// What operators see and change: queues and why they stand, recipients, events.
#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "services/base/utf8.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {
namespace {

constexpr uint32_t kDefaultLimit = 1000;
constexpr uint32_t kMostLimit = 10'000;
constexpr size_t kMaxBodyShown = size_t{1} << 20;

// "paused by anna: why", as far as there is a why.
std::string By(std::string_view what, std::string_view author, std::string_view reason) {
  std::string text(what);
  text.append(" by ").append(author);
  if (!reason.empty()) text.append(": ").append(reason);
  return text;
}

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
  status.set_recipients(recipients_);
  status.set_counting(counting_);
  status.set_queues(queues_.size());
  status.set_bytes(bodies_bytes_);
  status.set_spool_bytes(health_.live_bytes);
  status.set_spool_limit_bytes(SpoolLimit());
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
  if (policy_->version() != 0) {
    status.set_snapshot_age_us((executor_.clock().Now() - policy_since_).count());
  }
  status.set_outbox_first_sequence(first_sequence_);
  status.set_outbox_next_sequence(journal_.next_sequence());
  status.set_start_unix_us(started_us_);
  status.set_expiry_frozen_us(
      std::max<int64_t>(0, (expiry_frozen_until_ - executor_.clock().Now()).count()));
  status.set_wall_unix_us(NowUs());
  if (status.expiry_frozen_us() > 0) status.set_clock_step_us(clock_step_us_);
  FillDamage(&status);
  done(std::move(status));
}

// Why nothing moves, and when something will; empty where the queue moves.
std::string Shard::ReasonOf(Queue& queue, int64_t* next_us) {
  const int64_t now_us = NowUs();
  *next_us = 0;
  if (const auto* pause = PauseOf(queue, ""); queue.paused && pause != nullptr) {
    *next_us = pause->until_us();
    return By("paused", pause->author(), pause->reason());
  }
  if (queue.paused) {  // no snapshot has come yet
    const v1::QueueRow row = queues_.StoredRow(queue);
    *next_us = row.pause_until_us();
    return By("paused", row.pause_author(), row.pause_reason());
  }
  if (!serving_) return "the store failed: the shard must be opened again";
  if (draining_) return "the shard shuts down";
  if (queue.mode == v1::QUEUE_MODE_RETRY && queue.retry_until_us > now_us) {
    *next_us = queue.retry_until_us;
    std::string why = "no MX could be reached";
    const Queue::History* history = queues_.HistoryOf(queue);
    if (history != nullptr && !history->replies.empty()) {
      absl::StrAppend(&why, ": ", ToUtf8(history->replies[0].text()));
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
    if (queue.blocked_limit != nullptr) {
      *next_us = queue.blocked_until_us == 0 ? now_us : queue.blocked_until_us;
      const std::string& limit = *queue.blocked_limit;
      return limit.starts_with("max-") || limit.starts_with("backoff-max-")
                 ? absl::StrCat("limit reached: ", limit)
                 : limit;
    }
    if (queue.session == nullptr) {
      const bool owned = std::any_of(workers_.begin(), workers_.end(), [&queue](const auto& each) {
        return each->vmtas.contains(queue.vmta());
      });
      if (!owned) {
        return absl::StrCat("no worker is connected that owns a source of virtual MTA ",
                            std::string(queue.vmta()));
      }
      if (const WorkerLine* line = FullLineOf(queue); line != nullptr) {
        return absl::StrCat("behind other queues of its virtual MTA, which stand in line: ",
                            line->limit);
      }
      if (owners_ != nullptr) {
        const std::string_view owner = owners_->OwnerOf(OwnerKey(queue), queue.vmta());
        return owner.empty() ? std::string("the policy service has given it to no worker yet")
                             : absl::StrCat("waits for worker ",
                                            absl::string_view(owner.data(), owner.size()),
                                            ", to which the policy service has given it");
      }
      if (queue.leased > 0 && queue.last_worker != nullptr) {
        return absl::StrCat("contact with worker ", *queue.last_worker,
                            " is lost while it has mail of this queue");
      }
      return "its workers are at their bounds";
    }
    return queue.leased > 0 ? "" : "the worker looks for its MX or connects";
  }
  if (queue.leased > 0) return "";
  if (due_us != kNever) {
    *next_us = due_us;
    return WhyLater(queue, due_us);
  }
  if (lanes_paused) return "its jobs are paused";
  return queue.recipients > 0 && queue.pending == 0 && !counting_
             ? "its recipients are held, or cannot be read: `sluicectl messages list` says which"
             : "";
}

// Of the first recipient that is due at a later time.
std::string Shard::WhyLater(const Queue& queue, int64_t due_us) const {
  for (const Lane& lane : queue.lanes) {
    if (lane.paused || lane.next_due_us != due_us) continue;
    const std::string lower = lane.cursor.Encode();
    auto rows =
        store_.Scan(Family::kDeliveries, lower, PrefixEnd(std::string_view(lower).substr(0, 16)));
    common::v1::Delivery delivery;
    if (!rows->Valid() ||
        !delivery.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
      continue;
    }
    if (delivery.has_hold()) {
      return absl::StrCat("held: ", delivery.hold().reason(),
                          "; `sluicectl messages release` lets it go on, or it expires");
    }
    if (delivery.attempts() == 0) return "waits for the time that its sender gave";
  }
  return "deferred: waits for the next attempt";
}

// By the storage keys of rows, which are times. A row that was never deferred is due when it was
// queued, so in a backlog the first row is the oldest; what was deferred may lie anywhere.
void Shard::FillOldest(const Queue& queue, v1::QueueStatus* status) const {
  constexpr int kMostLanes = 4;
  constexpr int kRowsPerLane = 16;
  constexpr int kBusyPerLane = 64;
  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  bool at_least = counting_;
  int lanes = 0;
  for (const Lane& lane : queue.lanes) {
    int busy = 0;
    for (const DeliveryKey& key : lane.busy) {
      if (busy++ == kBusyPerLane) break;
      oldest = std::min(oldest, key.storage_key);
    }
    at_least |= lane.busy.size() > kBusyPerLane;
    if (!counting_ && lane.recipients <= lane.busy.size()) continue;
    if (lanes++ == kMostLanes) {
      at_least = true;
      break;
    }
    const std::string lower = lane.cursor.Encode();
    auto rows =
        store_.Scan(Family::kDeliveries, lower, PrefixEnd(std::string_view(lower).substr(0, 16)));
    int seen = 0;
    for (; rows->Valid() && seen < kRowsPerLane; rows->Next(), ++seen) {
      if (const auto key = DeliveryKey::Decode(rows->key())) {
        oldest = std::min(oldest, key->storage_key);
      }
    }
    at_least |= rows->Valid();
  }
  if (oldest == std::numeric_limits<uint64_t>::max()) return;
  status->set_oldest_queued_us(static_cast<int64_t>(oldest));
  status->set_oldest_at_least(at_least);
}

void Shard::FillStatus(Queue& queue, v1::QueueStatus* status, bool with_lanes) {
  status->set_name(queue.name);
  status->set_domain(std::string(queue.domain()));
  status->set_vmta(std::string(queue.vmta()));
  status->set_recipients(queue.recipients);
  status->set_leased(queue.leased);
  status->set_mode(InBackoff(queue) ? "backoff" : std::string(ModeName(queue.mode)));
  if (queue.mode == v1::QUEUE_MODE_RETRY) status->set_retry_until_us(queue.retry_until_us);
  if (queue.backoff != nullptr) {
    *status->mutable_backoff() = queue.backoff->mode;
    for (const auto& source : queue.backoff->sources) {
      if (source.disabled()) *status->add_sources() = source;
    }
  }
  status->set_paused(queue.paused);
  int64_t next_us = 0;
  status->set_reason(ReasonOf(queue, &next_us));
  status->set_next_time_us(next_us);
  if (const auto* pause = PauseOf(queue, ""); queue.paused && pause != nullptr) {
    status->set_author(pause->author());
  }
  if (queue.rollup != nullptr) status->set_rollup(*queue.rollup);
  if (const Queue::History* history = queues_.HistoryOf(queue); history != nullptr) {
    for (const auto& reply : history->replies) *status->add_last_replies() = reply;
    for (int64_t time_us : history->times_us) status->add_last_reply_times_us(time_us);
  }
  FillOldest(queue, status);
  status->set_shard(options_.name);
  status->set_delivered(queue.delivered);
  status->set_transient(queue.transient);
  status->set_failed(queue.failed);
  status->set_counting(counting_);
  if (!with_lanes) return;
  for (const Lane& lane : queue.lanes) {
    if (lane.id == 0 && lane.recipients == 0 && queue.lanes.size() > 1) continue;
    v1::LaneStatus* shown = status->add_lanes();
    shown->set_job_id(lane.job_id());
    shown->set_priority(lane.priority);
    shown->set_recipients(lane.recipients);
    shown->set_paused(lane.paused);
    shown->set_next_due_us(lane.next_due_us == kNever ? 0 : lane.next_due_us);
  }
}

// Looks through the queues some thousand a turn, keeping the best `limit` of them.
struct Shard::QueueListing {
  v1::ListQueuesRequest request;
  Done<v1::ListQueuesResponse> done;
  size_t limit = 0;
  bool by_name = false;
  // Where the page before ended: recipients then, as the counts move on while somebody reads.
  uint64_t after_recipients = std::numeric_limits<uint64_t>::max();
  std::string position;
  std::vector<std::pair<uint64_t, std::string>> best;  // a heap; the worst first
  bool more = false;
  v1::ListQueuesResponse response;

  static bool Before(const std::pair<uint64_t, std::string>& a,
                     const std::pair<uint64_t, std::string>& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  }
};

void Shard::ListQueues(v1::ListQueuesRequest request, Done<v1::ListQueuesResponse> done) {
  auto listing = std::make_shared<QueueListing>();
  listing->limit = LimitOf(request.limit());
  listing->by_name = request.sort() == "name";
  if (listing->by_name) {
    listing->position = request.after();
  } else if (const Queue* after = queues_.Find(request.after()); after != nullptr) {
    listing->after_recipients = after->recipients;
  }
  listing->request = std::move(request);
  listing->done = std::move(done);
  ListMoreQueues(std::move(listing));
}

void Shard::ListMoreQueues(std::shared_ptr<QueueListing> listing) {
  constexpr int kQueuesPerTurn = 4000;
  const v1::ListQueuesRequest& request = listing->request;
  auto it = queues_.all().upper_bound(listing->position);
  for (int i = 0; i < kQueuesPerTurn && it != queues_.all().end(); ++i, ++it) {
    const Queue& queue = *it->second;
    if (listing->by_name && listing->best.size() == listing->limit) {
      listing->more = true;
      it = queues_.all().end();
      break;
    }
    if (!request.pattern().empty() && !IsNamed(queue, request.pattern())) {
      continue;
    }
    if (request.paused_only() && !queue.paused) continue;
    if (!request.mode().empty() && !(request.mode() == "backoff" && InBackoff(queue)) &&
        !(request.mode() == ModeName(queue.mode) &&
          (request.mode() != "normal" || !InBackoff(queue)))) {
      continue;
    }
    if (!counting_ && queue.recipients == 0 && !queue.paused &&
        queue.mode == v1::QUEUE_MODE_UNSPECIFIED && !InBackoff(queue)) {
      continue;
    }
    std::pair<uint64_t, std::string> entry(listing->by_name ? 0 : queue.recipients, queue.name);
    if (!listing->by_name && !request.after().empty() &&
        !QueueListing::Before({listing->after_recipients, request.after()}, entry)) {
      continue;
    }
    listing->best.push_back(std::move(entry));
    std::push_heap(listing->best.begin(), listing->best.end(), QueueListing::Before);
    if (listing->best.size() <= listing->limit) continue;
    std::pop_heap(listing->best.begin(), listing->best.end(), QueueListing::Before);
    listing->best.pop_back();
    listing->more = true;
  }
  if (it != queues_.all().end()) {
    listing->position = std::string(std::prev(it)->first);
    PostTask(
        [this, listing = std::move(listing)]() mutable { ListMoreQueues(std::move(listing)); });
    return;
  }
  std::sort(listing->best.begin(), listing->best.end(), QueueListing::Before);
  listing->response.set_more(listing->more);
  std::reverse(listing->best.begin(), listing->best.end());  // taken from the end
  FillMoreQueues(std::move(listing));
}

// Each status reads some rows.
void Shard::FillMoreQueues(std::shared_ptr<QueueListing> listing) {
  constexpr int kQueuesPerTurn = 100;
  for (int i = 0; i < kQueuesPerTurn && !listing->best.empty(); ++i, listing->best.pop_back()) {
    if (Queue* queue = queues_.Find(listing->best.back().second)) {
      FillStatus(*queue, listing->response.add_queues(), false);
    }
  }
  if (listing->best.empty()) {
    listing->done(std::move(listing->response));
    return;
  }
  PostTask([this, listing = std::move(listing)]() mutable { FillMoreQueues(std::move(listing)); });
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
  if (row.damaged) {
    shown->set_state("damaged");
  } else if (row.busy) {
    shown->set_state("leased");
    if (row.queue->last_worker != nullptr) shown->set_worker(*row.queue->last_worker);
  } else if (row.delivery.has_hold()) {
    shown->set_state("held");
  } else if (row.queue->paused || row.lane_paused) {
    shown->set_state("paused");
  } else if (row.queue->mode == v1::QUEUE_MODE_RETRY) {
    shown->set_state("retry");
  } else {
    shown->set_state("queued");
  }
  shown->set_reason(ReasonOfRow(row));
}

// Why this recipient waits: what stands in its own way first, then what stands in its queue's.
std::string Shard::ReasonOfRow(const WalkRow& row) {
  const common::v1::Delivery& delivery = row.delivery;
  if (row.damaged) {
    return absl::StrCat("it cannot be read, and stays as it is: row ", HexOf(row.key.Encode()),
                        "; `sluicectl messages delete` removes it");
  }
  if (row.busy) return "";
  if (delivery.has_hold()) {
    return By("held", delivery.hold().author(), delivery.hold().reason());
  }
  if (row.lane_paused && !row.queue->paused) {
    const auto* pause = PauseOf(*row.queue, delivery.job_id());
    if (pause == nullptr) return "its job is paused";
    return By("its job was paused", pause->author(), pause->reason());
  }
  const bool later = row.key.due_us > NowUs();
  if (later && !row.queue->paused && row.queue->mode != v1::QUEUE_MODE_RETRY) {
    return delivery.attempts() > 0 ? ToUtf8(delivery.last_reply().text())
                                   : "waits for the time that its sender gave";
  }
  int64_t next_us = 0;
  return ReasonOf(*row.queue, &next_us);
}

void Shard::ListMessages(v1::ListMessagesRequest request, Done<v1::ListMessagesResponse> done) {
  auto walk = std::make_shared<Walk>();
  walk->filter = request.filter();
  walk->limit = LimitOf(request.limit());
  if (!walk->SetPosition(request.after())) {
    done(absl::InvalidArgumentError("`after` is not what an earlier answer gave"));
    return;
  }
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
                  done = std::move(done)](bool more, const std::string&) mutable {
    response->set_more(more);
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

}  // namespace sluice::queue
