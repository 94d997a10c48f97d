#include "services/queue/core/shard.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/queue/core/event_log.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/unknown_fields.h"

namespace sluice::queue {
namespace {

constexpr char kEpochKey[] = "epoch";
constexpr char kStorageKeyMark[] = "storage-key-mark";
// How far ahead the stored mark is, in keys (microseconds). A restart goes on from the mark, and
// keys tell how old mail is: so little, though it is written that often.
constexpr uint64_t kStorageKeyStep = 1'000'000;

}  // namespace

template <class Req, class Resp, class Session>
struct Shard::Service final : StreamService<Req, Resp> {
  using Stream = typename StreamService<Req, Resp>::ServerStream;
  Service(Shard& shard, std::list<std::unique_ptr<Session>>& sessions)
      : shard(shard), sessions(sessions) {}
  Executor& executor() override { return shard.executor_; }
  void OnStream(std::shared_ptr<Stream> stream) override {
    sessions.push_back(std::make_unique<Session>(shard, std::move(stream)));
    Session& session = *sessions.back();
    session.stream->Start(&session);
    if (!shard.serving_) session.stream->Close(absl::UnavailableError("the shard does not serve"));
  }
  Shard& shard;
  std::list<std::unique_ptr<Session>>& sessions;
};

namespace {
template <class Session>
void Erase(std::list<std::unique_ptr<Session>>& sessions, const Session* session) {
  sessions.remove_if([session](const auto& each) { return each.get() == session; });
}
}  // namespace

void Shard::EnqueueSession::OnClosed(absl::Status) {
  *self = nullptr;
  Erase(shard.enqueue_sessions_, this);
}

void Shard::FetchSession::OnClosed(absl::Status) { Erase(shard.fetch_sessions_, this); }

void WorkerSession::OnClosed(absl::Status) { shard.OnWorkerGone(*this); }

void WorkerSession::OnWritable() { shard.OnWorkerWritable(*this); }

Shard::Shard(const ShardOptions& options, Executor& executor, Store& store, Committer& committer)
    : options_(options),
      executor_(executor),
      store_(store),
      committer_(committer),
      journal_(executor, store, committer, options.journal),
      queues_(store),
      policy_(config::PolicyView::Defaults()),
      enqueue_service_(
          std::make_unique<Service<v1::EnqueueRequest, v1::EnqueueResponse, EnqueueSession>>(
              *this, enqueue_sessions_)),
      upload_service_(
          std::make_unique<Service<v1::UploadRequest, v1::UploadResponse, UploadSession>>(
              *this, upload_sessions_)),
      dispatch_service_(
          std::make_unique<Service<v1::DispatchRequest, v1::DispatchResponse, WorkerSession>>(
              *this, workers_)),
      fetch_service_(
          std::make_unique<Service<v1::FetchBodyRequest, v1::FetchBodyResponse, FetchSession>>(
              *this, fetch_sessions_)) {}

Shard::~Shard() {
  alive_.reset();
  for (TimerId timer : {tick_, index_timer_, sweep_timer_}) {
    if (timer != 0) executor_.Cancel(timer);
  }
  for (const auto& [name, queue] : queues_.all()) {
    if (queue->timer != 0) executor_.Cancel(queue->timer);
  }
}

absl::Status Shard::Start() {
  started_us_ = NowUs();
  if (absl::Status status = queues_.Load(); !status.ok()) return status;
  KeepDamagedQueueRows();
  std::string value;
  epoch_ = StoredNumber(kEpochKey, [this] {
    return std::max(HighestKey(Family::kEvents), HighestKey(Family::kLeases)) >> 40;
  });
  last_storage_key_ = storage_key_mark_ = StoredNumber(kStorageKeyMark, [this] {
    return std::max(HighestKey(Family::kMessages), static_cast<uint64_t>(NowUs())) +
           kStorageKeyStep;
  });
  bodies_bytes_ = stored_bodies_bytes_ = StoredNumber(kBodiesKey, [] { return uint64_t{0}; });
  ReadClock();
  ++epoch_;
  last_lease_id_ = epoch_ << 40;
  moves_back_ = epoch_ << 40;  // other than it was before the restart
  journal_.batch().Put(Family::kMeta, kEpochKey, U64Key(epoch_));

  auto events = store_.Scan(Family::kEvents, "", "", false);
  // Records are numbered without gaps within an epoch; a new epoch begins far above the last one.
  journal_.set_next_sequence(epoch_ << 40);
  first_sequence_ = events->Valid() ? ReadU64(events->key(), 0) : epoch_ << 40;
  events.reset();
  LoadOutbox();
  if (store_.Get(Family::kMeta, kWatermarkKey, &value).ok() && value.size() == 8) {
    watermark_ = ReadU64(value, 0);
  } else {
    auto first = store_.Scan(Family::kMessages, "", "", false);
    watermark_ = first->Valid() ? ReadU64(first->key(), 0) : static_cast<uint64_t>(started_us_);
  }
  durable_watermark_ = watermark_;
  unknown_below_ = storage_key_mark_;

  auto rows = store_.Scan(Family::kLeases, "", "", false);
  for (; rows->Valid(); rows->Next()) {
    v1::LeaseRow row;
    if (rows->key().size() != 8) continue;  // of a later release
    if (!row.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
      NoteDamage(Family::kLeases, rows->key(),
                 "a lease cannot be read: its recipients are tried again, some of them too early");
      continue;
    }
    if (row.taken_back()) {
      LostLease& lost = lost_[ReadU64(rows->key(), 0)];
      lost.forget = executor_.clock().Now() + std::chrono::hours(1);
      for (const std::string& encoded : row.delivery_keys()) {
        if (const auto key = DeliveryKey::Decode(encoded)) lost.keys.push_back(*key);
      }
      continue;
    }
    auto lease = std::make_unique<Lease>();
    lease->id = ReadU64(rows->key(), 0);
    lease->worker = row.worker();
    lease->incarnation = row.incarnation();
    lease->sent = true;
    lease->expires = executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
    for (const std::string& encoded : row.delivery_keys()) {
      const auto key = DeliveryKey::Decode(encoded);
      Queue* queue = key ? queues_.FindById(key->queue_id) : nullptr;
      if (queue == nullptr) {
        NoteDamage(Family::kLeases, rows->key(), "a lease names a queue that is not there");
        continue;
      }
      lease->queue = queue;
      queue->last_worker = queues_.Shared(lease->worker);
      lease->lane = key->lane;
      queue->LaneOf(key->lane).busy.insert(*key);
      lease->keys.push_back(*key);
      ++queue->leased;
    }
    if (lease->queue == nullptr) continue;
    lease->delete_asked.insert(row.delete_asked().begin(), row.delete_asked().end());
    lease->delete_author = row.delete_author();
    lease->delete_reason = row.delete_reason();
    lease->delete_bounce = row.delete_bounce();
    lease->unknown_fields = UnknownFieldsOf(row);
    leases_.emplace(lease->id, std::move(lease));
  }
  if (!rows->status().ok()) return rows->status();

  // Uploads that no message ever named.
  auto uploads = store_.Scan(Family::kMeta, "U", "V", false);
  for (; uploads->Valid(); uploads->Next()) {
    if (uploads->key().size() != 9) continue;
    const uint64_t key = ReadU64(uploads->key(), 1);
    journal_.batch().DeleteRange(Family::kBodies, U64Key(key), U64Key(key + 1));
    journal_.batch().Delete(Family::kMeta, uploads->key());
  }

  journal_.set_on_failed([this](const absl::Status& status) {
    serving_ = false;
    if (options_.log != nullptr) {
      options_.log->Error("store_failed", std::string(status.message()),
                          {{"shard", options_.name}});
    }
    if (on_failed_) on_failed_(status);
  });
  if (options_.log != nullptr) {
    journal_.set_on_events([log = options_.log](const v1::EventBatch& batch) {
      for (const common::v1::Event& event : batch.events()) LogEvent(*log, event);
    });
    options_.log->Info("shard_started", "",
                       {{"shard", options_.name},
                        {"epoch", epoch_},
                        {"queues", queues_.size()},
                        {"leases", leases_.size()}});
  }
  queues_.set_on_write([this](const Queue& queue, v1::QueueRow& row) {
    if (!queue.paused) return;
    if (policy_->version() == 0) {
      const v1::QueueRow before = queues_.StoredRow(queue);
      row.set_pause_reason(before.pause_reason());
      row.set_pause_author(before.pause_author());
      row.set_pause_until_us(before.pause_until_us());
    } else if (const auto* pause = PauseOf(queue, ""); pause != nullptr) {
      row.set_pause_reason(pause->reason());
      row.set_pause_author(pause->author());
      row.set_pause_until_us(pause->until_us());
    }
    row.set_paused(true);
  });
  journal_.set_on_idle([this] { CountSome(); });
  journal_.set_on_close([this] {
    queues_.WriteTouched(journal_.batch());
    if (std::exchange(stored_bodies_bytes_, bodies_bytes_) == bodies_bytes_) return;
    journal_.batch().Put(Family::kMeta, kBodiesKey, U64Key(bodies_bytes_));
  });
  counting_ = queues_.size() > 0;
  health_ = store_.Health();
  serving_ = true;
  for (const auto& [name, queue] : queues_.all()) {
    RefreshPause(*queue);
    // Looked at before it is believed that there is something to do, some queues a turn.
    if (queue->stored_next_due_us > NowUs()) {
      Wake(*queue, queue->stored_next_due_us);
    } else {
      start_queue_.push_back(queue->id);
    }
  }
  LookAtSome();
  Tick();
  AdvanceWatermark();
  SweepSome();
  return absl::OkStatus();
}

void Shard::LookAtSome() {
  constexpr int kQueuesPerTurn = 64;
  for (int i = 0; i < kQueuesPerTurn && !start_queue_.empty(); ++i) {
    Queue* queue = queues_.FindById(start_queue_.front());
    start_queue_.pop_front();
    if (queue != nullptr) Offer(*queue);
  }
  if (!start_queue_.empty()) PostTask([this] { LookAtSome(); });
}

void Shard::set_on_failed(absl::AnyInvocable<void(const absl::Status&)> on_failed) {
  on_failed_ = std::move(on_failed);
}

void Shard::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  if (policy->bounce_categories().SerializeAsString() !=
      policy_->bounce_categories().SerializeAsString()) {
    categories_ = config::BounceCategories(policy->bounce_categories());
  }
  policy_ = std::move(policy);
  policy_since_ = executor_.clock().Now();
  const uint64_t buffer = policy_->global().spool_buffer_size();
  const size_t most = options_.journal.max_batch_bytes;
  journal_.set_max_batch_bytes(buffer == 0 ? most : std::min<size_t>(most, buffer));
  if (!serving_) return;
  std::vector<Queue*> moving;
  for (const auto& [name, queue] : queues_.all()) {
    const bool was_paused = queue->paused;
    bool lanes_moved = false;
    for (const Lane& lane : queue->lanes) lanes_moved |= lane.paused;
    RefreshPause(*queue);
    const bool wishes = queue->session != nullptr && queue->rollup_wish != queue->rollup;
    if (was_paused || lanes_moved || wishes) moving.push_back(queue.get());
  }
  if (DropRollups()) {
    LineUpAnew();
    for (const auto& worker : workers_) ReleaseForeign(*worker);
  }
  for (Queue* queue : moving) Offer(*queue);
  PumpWaitingLater();
}

void Shard::Drain(absl::AnyInvocable<void()> done) {
  draining_ = true;
  if (options_.log != nullptr) {
    options_.log->Info("shard_drains", "no more mail and no more leases",
                       {{"shard", options_.name}, {"recipients", recipients_}});
  }
  journal_.WhenDurable([done = std::move(done)](const absl::Status&) mutable { done(); });
}

uint64_t Shard::NextStorageKey() {
  last_storage_key_ = std::max(last_storage_key_ + 1, static_cast<uint64_t>(NowUs()));
  if (last_storage_key_ >= storage_key_mark_) {
    storage_key_mark_ = last_storage_key_ + kStorageKeyStep;
    journal_.batch().Put(Family::kMeta, kStorageKeyMark, U64Key(storage_key_mark_));
  }
  return last_storage_key_;
}

const policy::v1::QueueSettings& Shard::SettingsOf(Queue& queue) {
  if (queue.settings == nullptr || queue.settings_version != policy_->version()) {
    auto settings = policy_->ForQueue(
        queue.rollup != nullptr ? std::string_view(*queue.rollup) : queue.domain(), queue.vmta(),
        *queue.pool);
    const auto often = [](const policy::v1::QueueSettings& from) {
      return from.notify_of_delay_every_us() > 0 ? from.notify_of_delay_every_us() : kNever;
    };
    if (queue.settings != nullptr &&
        (settings->bounce_after_us() < queue.settings->bounce_after_us() ||
         often(*settings) < often(*queue.settings))) {
      queue.earliest_expiry_us = 0;  // the sweep finds out
      TouchRow(queue);
    }
    queue.settings = std::move(settings);
    queue.settings_version = policy_->version();
  }
  return *queue.settings;
}

void Shard::RefreshPause(Queue& queue) {
  const int64_t now_us = NowUs();
  const auto* pause = PauseOf(queue, "");
  const bool was_paused = queue.paused;
  int64_t until_us = pause == nullptr ? 0 : pause->until_us();
  queue.paused = pause != nullptr;
  if (was_paused && policy_->version() == 0) {
    // There is no snapshot yet that could say otherwise.
    queue.paused = true;
    until_us = queues_.StoredRow(queue).pause_until_us();
  }
  queue.paused &= until_us == 0 || until_us > now_us;
  if (queue.paused && until_us != 0) Wake(queue, until_us);
  if (queue.paused != was_paused) TouchRow(queue);
  queue.lanes_resume_us = kNever;
  for (Lane& lane : queue.lanes) RefreshPause(queue, lane);
}

void Shard::RefreshPause(Queue& queue, Lane& lane) {
  if (lane.job == nullptr) return;
  const auto* pause = PauseOf(queue, *lane.job);
  lane.paused = pause != nullptr && (pause->until_us() == 0 || pause->until_us() > NowUs());
  if (!lane.paused || pause->until_us() == 0) return;
  queue.lanes_resume_us = std::min(queue.lanes_resume_us, pause->until_us());
  Wake(queue, pause->until_us());
}

// While a restart's count is under way, rows behind its position are not in the counts yet.
void Shard::CountRow(Queue& queue, const DeliveryKey& key, int change) {
  if (counting_ && key.Encode() >= count_position_) return;
  const auto difference = static_cast<uint64_t>(static_cast<int64_t>(change));
  queue.recipients += difference;
  queue.LaneOf(key.lane).recipients += difference;
  recipients_ += difference;
}

void Shard::CountHeld(const DeliveryKey& key, int change) {
  journal_.WhenDurable([this, key, change](const absl::Status& status) {
    if (!status.ok() || (counting_ && key.Encode() >= count_position_)) return;
    stats_.held += static_cast<uint64_t>(static_cast<int64_t>(change));
  });
}

void Shard::MoveFloor(Queue& queue, Lane& lane) {
  constexpr uint32_t kRowsBetweenFloors = 256;
  if (lane.taken_since_floor < kRowsBetweenFloors) return;
  lane.taken_since_floor = 0;
  // Not beyond now, though nothing may be due for long: what comes next is due from now on.
  DeliveryKey floor = std::min(lane.cursor, DeliveryKey{queue.id, lane.id, NowUs(), 0, 0});
  if (!lane.busy.empty()) floor = std::min(floor, *lane.busy.begin());
  if (floor <= lane.floor) return;
  lane.floor = floor;
  int64_t due_us = kNever;
  for (const Lane& each : queue.lanes) {
    due_us = std::min(due_us, each.next_due_us);
    if (!each.busy.empty()) due_us = std::min(due_us, each.busy.begin()->due_us);
  }
  queue.stored_next_due_us = due_us;
  queues_.Touch(queue, lane);
  journal_.batch();
}

// A job that is done leaves nothing behind in a queue that lives on.
void Shard::ForgetLaneWhenEmpty(Queue& queue, Lane& lane) {
  if (counting_ || lane.id == 0 || lane.recipients > 0 || !lane.busy.empty()) {
    return;
  }
  queues_.RemoveLane(queue, lane, journal_.batch());
}

void Shard::ForgetWhenEmpty(Queue& queue) {
  if (counting_ || queue.recipients > 0 || queue.pending > 0 || queue.leased > 0 ||
      queue.session != nullptr || queue.in_ready_list || queue.mode != v1::QUEUE_MODE_UNSPECIFIED ||
      KeepsMode(queue)) {
    return;
  }
  for (const Lane& lane : queue.lanes) {
    if (!lane.busy.empty()) return;
  }
  if (queue.timer != 0) executor_.Cancel(queue.timer);
  reroutes_.erase(queue.id);
  queues_.Remove(queue, journal_.batch());
}

common::v1::Event& Shard::NewEvent(common::v1::EventKind kind, const Queue& queue,
                                   const common::v1::Message& envelope,
                                   const common::v1::Delivery* delivery) {
  common::v1::Event& event = journal_.AddEvent();
  event.set_kind(kind);
  event.set_time_us(NowUs());
  event.set_queue(queue.name);
  event.set_shard(options_.name);
  event.set_snapshot_version(policy_->version());
  event.set_message_id(envelope.id());
  event.set_parent_id(envelope.parent_id());
  event.set_mail_from(envelope.mail_from());
  event.set_envid(envelope.envid());
  event.set_time_queued_us(envelope.time_queued_us());
  event.set_source_type(envelope.source_type());
  event.set_source_mta(envelope.client_name());
  event.set_client_ip(envelope.client_ip());
  event.set_local_ip(envelope.local_ip());
  event.set_user(envelope.user());
  event.set_tenant(envelope.tenant());
  event.set_body_size(envelope.body_size());
  *event.mutable_captured_headers() = envelope.captured_headers();
  *event.mutable_metadata() = envelope.metadata();
  event.set_vmta(std::string(queue.vmta()));
  if (delivery == nullptr) return event;
  event.set_rcpt(delivery->rcpt());
  event.set_rcpt_given(delivery->rcpt_given());
  event.set_orcpt(delivery->orcpt());
  event.set_job_id(delivery->job_id());
  event.set_pool(delivery->pool());
  if (!delivery->envelope_id().empty()) event.set_envid(delivery->envelope_id());
  event.set_attempts(delivery->attempts());
  event.set_time_first_attempt_us(delivery->first_attempt_us());
  return event;
}

void Shard::FlushLater() {
  if (flush_posted_) return;
  flush_posted_ = true;
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) Flush();
  });
}

void Shard::Flush() {
  flush_posted_ = false;
  for (auto& session : enqueue_sessions_) {
    if (!session->dirty) continue;
    session->dirty = false;
    v1::ShardLoad* load = session->out.header.mutable_load();
    std::string reason;
    load->set_queued_batches_bytes(
        static_cast<uint32_t>(std::min<size_t>(journal_.pending_bytes(), UINT32_MAX)));
    load->set_accepting(Refusal(&reason) == v1::EnqueueResult::OUTCOME_UNSPECIFIED);
    load->set_not_accepting_reason(reason);
    session->stream->Send(std::exchange(session->out, {}));
  }
  for (auto& worker : workers_) {
    while (worker->dirty && !worker->congested) {
      FillFrame(*worker);
      worker->dirty = !worker->to_send.empty();
      worker->congested = !worker->stream->Send(std::exchange(worker->out, {}));
    }
  }
}

void Shard::KeepFresh(uint64_t storage_key, std::shared_ptr<const StoredMessage> message) {
  if (fresh_.contains(storage_key)) return;
  const size_t bytes = message->body.size() + 512;
  fresh_order_.push_front(storage_key);
  fresh_.emplace(storage_key, FreshMessage{std::move(message), fresh_order_.begin(), bytes});
  fresh_bytes_ += bytes;
  while (fresh_bytes_ > options_.fresh_window_bytes) {
    const auto oldest = fresh_.find(fresh_order_.back());
    fresh_bytes_ -= oldest->second.bytes;
    fresh_.erase(oldest);
    fresh_order_.pop_back();
  }
}

}  // namespace sluice::queue
