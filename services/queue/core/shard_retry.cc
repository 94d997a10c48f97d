// DSNs, and what runs by the clock: expiry of queues that do not move, counts after a restart, the
// outbox's bounds, lost leases.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/mail/dsn.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr Duration kTickEvery = std::chrono::milliseconds(500);
// Rows that one turn looks at, so that the loop goes on.
constexpr int kRowsPerTurn = 2000;
constexpr uint32_t kNotifyNever = 1;
constexpr uint32_t kNotifyFailure = 4;

}  // namespace

void Shard::SendDsn(Queue& queue, const common::v1::Delivery& delivery,
                    const StoredMessage& message, uint64_t storage_key,
                    const common::v1::Reply& reply, common::v1::EventKind kind) {
  const common::v1::Message& envelope = message.envelope;
  const auto& settings = SettingsOf(queue);
  if (envelope.mail_from().empty() || settings.suppress_local_dsn() ||
      (delivery.notify() & kNotifyNever) != 0 ||
      (delivery.notify() != 0 && (delivery.notify() & kNotifyFailure) == 0)) {
    return;
  }
  const size_t at = envelope.mail_from().rfind('@');
  if (at == std::string::npos) return;

  std::string original(message.body.view());
  if (message.chunks > 0) {
    auto chunk = store_.Scan(Family::kBodies, U64Key(storage_key), U64Key(storage_key + 1), false);
    if (chunk->Valid()) original = std::string(chunk->value());
  }
  const int64_t now_us = NowUs();
  const uint64_t key = NextStorageKey();
  // Milliseconds, then what no other message has: the epoch and key of this shard, and its name.
  std::string id = U64Key(static_cast<uint64_t>(now_us / 1000)).substr(2) + U64Key(key) +
                   U64Key(std::hash<std::string>()(options_.name) ^ epoch_).substr(6);
  mail::DsnInput input;
  const std::string& host = policy_->global().host_name();
  input.reporting_mta = host.empty() ? std::string_view("localhost") : std::string_view(host);
  input.postmaster = policy_->global().postmaster();
  input.sender = envelope.mail_from();
  input.recipient = delivery.rcpt();
  input.original_recipient = delivery.orcpt();
  input.original_envid = envelope.envid();
  const std::string status = kind == common::v1::EVENT_KIND_EXPIRED ? "4.4.7"
                             : reply.enhanced().empty()             ? "5.0.0"
                                                                    : reply.enhanced();
  input.status = status;
  input.diagnostic = reply.text();
  input.diagnostic_code = reply.code();
  input.remote_mta = reply.host();
  input.arrived_unix_us = envelope.time_queued_us();
  input.last_attempt_unix_us = delivery.last_attempt_us();
  input.now_unix_us = now_us;
  std::string printable_id;
  for (char c : id)
    absl::StrAppend(&printable_id, absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  input.message_id = printable_id;
  input.original = original;
  input.full = envelope.dsn_return() == common::v1::DSN_RETURN_FULL && message.chunks == 0;

  auto dsn = std::make_shared<StoredMessage>();
  dsn->body = Body(mail::BuildDsn(input));
  dsn->envelope.set_id(id);
  dsn->envelope.set_parent_id(envelope.id());
  dsn->envelope.set_source_type(common::v1::SOURCE_TYPE_DSN);
  dsn->envelope.set_time_queued_us(now_us);
  dsn->envelope.set_body_size(dsn->body.size());
  dsn->envelope.set_tenant(envelope.tenant());
  std::vector<common::v1::Delivery> deliveries(1);
  deliveries[0].set_rcpt(envelope.mail_from());
  deliveries[0].set_rcpt_given(envelope.mail_from());
  deliveries[0].set_vmta(queue.vmta);
  AddMessage(std::move(dsn), std::move(deliveries), key, {});
}

void Shard::Tick() {
  tick_ = executor_.After(kTickEvery, [this] { Tick(); });
  if (!serving_) return;
  health_ = store_.Health();
  CheckLeases();
  SweepSome();
  TrimEvents();
  const int64_t bucket = NowUs() / options_.key_bucket.count();
  if (bucket != dropped_key_bucket_) {
    dropped_key_bucket_ = bucket;
    journal_.batch().DeleteRange(Family::kKeys, U64Key(0),
                                 U64Key(static_cast<uint64_t>(bucket - 1)));
  }
  if (counting_ && !journal_.busy()) CountSome();
}

// After a restart: how many recipients each queue has. Runs between commits, when store and memory
// agree.
void Shard::CountSome() {
  if (!counting_) return;
  auto rows = store_.Scan(Family::kDeliveries, count_position_, "", false);
  int looked = 0;
  for (; rows->Valid() && looked < kRowsPerTurn; rows->Next(), ++looked) {
    const auto key = DeliveryKey::Decode(rows->key());
    Queue* queue = key ? queues_.FindById(key->queue_id) : nullptr;
    if (queue == nullptr) continue;
    ++queue->recipients;
    ++queue->LaneOf(key->lane, "", 0).recipients;
    count_position_ = rows->key();
    count_position_.push_back('\0');
  }
  if (rows->Valid() || !rows->status().ok()) {
    // Between commits there is a pause of a millisecond or more; with nothing to commit the tick
    // goes on with it.
    executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired() && counting_ && !journal_.busy()) CountSome();
    });
    return;
  }
  counting_ = false;
  count_position_.clear();
  std::vector<Queue*> all;
  for (const auto& [name, queue] : queues_.all()) all.push_back(queue.get());
  for (Queue* queue : all) ForgetWhenEmpty(*queue);
}

// Expiry holds in every state: queues that nobody reads (paused, in retry mode, without a worker)
// are looked through, a bounded number of rows a turn.
void Shard::SweepSome() {
  const int64_t now_us = NowUs();
  const auto& all = queues_.all();
  auto it = all.upper_bound(sweep_queue_);
  int looked = 0;
  for (size_t visited = 0; visited < all.size() && visited < 10'000 && looked < kRowsPerTurn;
       ++visited, ++it) {
    if (it == all.end()) it = all.begin();
    Queue& queue = *it->second;
    sweep_queue_ = queue.name;
    if (queue.earliest_expiry_us > now_us ||
        (queue.session != nullptr && MayDispatch(queue, now_us) && queue.blocked_limit.empty())) {
      continue;
    }
    int64_t earliest_us = kNever;
    std::vector<std::pair<DeliveryKey, common::v1::Delivery>> expired;
    for (Lane& lane : queue.lanes) {
      const std::string lower = lane.floor.Encode();
      auto rows = store_.Scan(Family::kDeliveries, lower,
                              PrefixEnd(std::string_view(lower).substr(0, 16)), false);
      for (; rows->Valid() && looked < kRowsPerTurn; rows->Next(), ++looked) {
        const auto key = DeliveryKey::Decode(rows->key());
        common::v1::Delivery delivery;
        if (!key || lane.busy.contains(*key) ||
            !delivery.ParseFromArray(rows->value().data(),
                                     static_cast<int>(rows->value().size()))) {
          continue;
        }
        const int64_t expires_us = ExpiryOf(queue, key->storage_key, delivery);
        if (expires_us <= now_us) {
          expired.emplace_back(*key, std::move(delivery));
        } else {
          earliest_us = std::min(earliest_us, expires_us);
        }
      }
      // Not looked at to its end: ask again next time.
      if (rows->Valid()) earliest_us = 0;
    }
    queue.earliest_expiry_us = earliest_us;
    for (auto& [key, delivery] : expired) Expire(queue, key, delivery);
  }
}

void Shard::TrimEvents() {
  // One row a commit; looked at in the order of time, oldest first.
  constexpr int kRecordsPerTurn = 512;
  const int64_t oldest_us = NowUs() - options_.events_keep.count();
  auto rows = store_.Scan(Family::kEvents, U64Key(first_sequence_), "", false);
  uint64_t drop_before = first_sequence_;
  for (int i = 0; rows->Valid() && i < kRecordsPerTurn; rows->Next(), ++i) {
    v1::EventBatch record;
    if (!record.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) break;
    const bool too_old = !record.events().empty() && record.events(0).time_us() < oldest_us;
    const bool too_many = outbox_bytes_ > options_.events_keep_bytes;
    if (!too_old && !too_many) break;
    outbox_bytes_ -= std::min<uint64_t>(outbox_bytes_, rows->value().size());
    stats_.events_dropped += static_cast<uint64_t>(record.events_size());
    drop_before = ReadU64(rows->key(), 0) + 1;
  }
  outbox_bytes_ += journal_.event_bytes_total() - seen_event_bytes_;
  seen_event_bytes_ = journal_.event_bytes_total();
  if (drop_before == first_sequence_) return;
  journal_.batch().DeleteRange(Family::kEvents, U64Key(first_sequence_), U64Key(drop_before));
  first_sequence_ = drop_before;
}

}  // namespace sluice::queue
