// DSNs, and what runs by the clock: expiry of queues that do not move, counts after a restart, the
// outbox's bounds, lost leases.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/mail/dsn.h"
#include "services/mail/merge_body.h"
#include "services/mail/smtp_command.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr Duration kTickEvery = std::chrono::milliseconds(500);
// Rows that one turn looks at, so that the loop goes on.
constexpr int kRowsPerTurn = 2000;

// Whether the sender wants to be told.
bool Asked(const common::v1::Delivery& delivery, common::v1::EventKind kind) {
  if (delivery.notify() == 0) return kind != common::v1::EVENT_KIND_DELIVERED;
  const uint32_t bit = kind == common::v1::EVENT_KIND_DELIVERED ? mail::kNotifySuccess
                       : kind == common::v1::EVENT_KIND_DELAYED ? mail::kNotifyDelay
                                                                : mail::kNotifyFailure;
  return (delivery.notify() & mail::kNotifyNever) == 0 && (delivery.notify() & bit) != 0;
}

}  // namespace

void Shard::SendDsn(Queue& queue, const common::v1::Delivery& delivery,
                    const StoredMessage& message, uint64_t storage_key,
                    const common::v1::Reply& reply, common::v1::EventKind kind, bool relayed) {
  const common::v1::Message& envelope = message.envelope;
  const auto& settings = SettingsOf(queue);
  if (envelope.mail_from().empty() || settings.suppress_local_dsn() || !Asked(delivery, kind)) {
    return;
  }
  const bool success = kind == common::v1::EVENT_KIND_DELIVERED;
  const bool delayed = kind == common::v1::EVENT_KIND_DELAYED;
  const size_t at = envelope.mail_from().rfind('@');
  if (at == std::string::npos) return;

  std::string original(message.body.view());
  if (message.chunks > 0) {
    auto chunk = store_.Scan(Family::kBodies, U64Key(storage_key), U64Key(storage_key + 1), false);
    if (chunk->Valid()) original = std::string(chunk->value());
  }
  if (envelope.is_template()) {
    original = mail::MergedBody(original, envelope, delivery,
                                policy_->global().mailmerge_expands_undefined_variables());
  }
  const int64_t now_us = NowUs();
  const uint64_t key = NextStorageKey();
  const std::string id = NewMessageId(now_us, key);
  mail::DsnInput input;
  const std::string& host = policy_->global().host_name();
  input.reporting_mta = host.empty() ? std::string_view("localhost") : std::string_view(host);
  input.postmaster = policy_->global().postmaster();
  input.sender = envelope.mail_from();
  input.recipient = delivery.rcpt();
  input.original_recipient = delivery.orcpt();
  input.original_envid = delivery.envelope_id().empty() ? envelope.envid() : delivery.envelope_id();
  const std::string status = kind == common::v1::EVENT_KIND_EXPIRED ? "4.4.7"
                             : !reply.enhanced().empty()            ? reply.enhanced()
                             : success                              ? "2.0.0"
                             : delayed                              ? "4.0.0"
                                                                    : "5.0.0";
  if (delayed) {
    input.kind = mail::DsnKind::kDelayed;
    input.retry_until_unix_us = ExpiryOf(queue, storage_key, delivery);
  }
  if (success) input.kind = relayed ? mail::DsnKind::kRelayed : mail::DsnKind::kDelivered;
  input.status = status;
  // As the remote said it: the status of a report is ours where nobody said one, and programs read
  // this.
  const std::string said = reply.code() != 0 && !reply.local() && !reply.enhanced().empty()
                               ? absl::StrCat(reply.enhanced(), " ", reply.text())
                               : reply.text();
  input.diagnostic = said;
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
  const bool full = envelope.dsn_return() == common::v1::DSN_RETURN_UNSPECIFIED
                        ? settings.dsn_return_default() == "full"
                        : envelope.dsn_return() == common::v1::DSN_RETURN_FULL;
  const auto& global = policy_->global();
  input.plain_text = settings.dsn_format() == "plain-text";
  input.from = global.custom_dsn_from_header();
  if (input.kind == mail::DsnKind::kFailed) {
    if (!global.dsn_failed_from_template().empty()) input.from = global.dsn_failed_from_template();
    input.subject = global.dsn_failed_subject_template();
    input.text = global.dsn_failed_body_template();
  }
  // RFC 3461 section 4.3; RFC 8689 section 5: a report of such mail may have to go in the clear;
  // RFC 3030 section 3: it goes to hosts without BINARYMIME, and as lines, which a binary body is
  // not.
  input.full = full && message.chunks == 0 && !success && !delayed && !envelope.require_tls() &&
               envelope.body_type() != common::v1::BODY_TYPE_BINARYMIME;

  auto dsn = std::make_shared<StoredMessage>();
  dsn->body = Body(mail::BuildDsn(input));
  const std::string_view text = dsn->body.view();
  if (std::any_of(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; })) {
    dsn->envelope.set_body_type(common::v1::BODY_TYPE_8BITMIME);
  }
  dsn->envelope.set_id(id);
  dsn->envelope.set_parent_id(envelope.id());
  dsn->envelope.set_source_type(common::v1::SOURCE_TYPE_DSN);
  dsn->envelope.set_time_queued_us(now_us);
  dsn->envelope.set_body_size(dsn->body.size());
  dsn->envelope.set_tenant(envelope.tenant());
  dsn->envelope.set_require_tls(envelope.require_tls());  // where the way back has it
  std::vector<common::v1::Delivery> deliveries(1);
  deliveries[0].set_rcpt(envelope.mail_from());
  deliveries[0].set_rcpt_given(envelope.mail_from());
  deliveries[0].set_vmta(std::string(queue.vmta()));
  AddMessage(std::move(dsn), std::move(deliveries), key, {});
}

// When the sender is next to be told that this recipient still waits (notify-of-delay-every).
int64_t Shard::NoticeOf(Queue& queue, uint64_t storage_key, const common::v1::Delivery& delivery) {
  const int64_t every_us = SettingsOf(queue).notify_of_delay_every_us();
  if (every_us <= 0 || !Asked(delivery, common::v1::EVENT_KIND_DELAYED)) return kNever;
  return delivery.next_delay_notice_us() != 0 ? delivery.next_delay_notice_us()
                                              : static_cast<int64_t>(storage_key) + every_us;
}

int64_t Shard::SweepTimeOf(Queue& queue, uint64_t storage_key,
                           const common::v1::Delivery& delivery) {
  return std::min(ExpiryOf(queue, storage_key, delivery), NoticeOf(queue, storage_key, delivery));
}

void Shard::TellOfDelay(Queue& queue, const DeliveryKey& key, common::v1::Delivery delivery) {
  const auto message = LoadMessage(key.storage_key);
  if (message == nullptr) return;
  const int64_t now_us = NowUs();
  delivery.set_next_delay_notice_us(now_us + SettingsOf(queue).notify_of_delay_every_us());
  if (!message->envelope.mail_from().empty()) {
    common::v1::Event& event =
        NewEvent(common::v1::EVENT_KIND_DELAYED, queue, message->envelope, &delivery);
    event.set_dsn_action("delayed");
    *event.mutable_reply() = delivery.last_reply();
    SendDsn(queue, delivery, *message, key.storage_key, delivery.last_reply(),
            common::v1::EVENT_KIND_DELAYED);
  }
  MoveRow(queue, key, queue, key, delivery, message->envelope);
}

void Shard::Tick() {
  tick_ = executor_.After(kTickEvery, [this] { Tick(); });
  if (!serving_) return;
  health_ = store_.Health();
  bytes_since_health_ = 0;
  NoteIntake();
  WatchWallClock();
  CheckLeases();
  DropUnnamedUploads();
  ForgetWorkers();
  CloseOutboxSegment();
  TrimEvents();
  const int64_t oldest_bucket = NowUs() / kKeyBucketUs - KeyBucketsBack();
  if (oldest_bucket != oldest_key_bucket_) {
    oldest_key_bucket_ = oldest_bucket;
    journal_.batch().DeleteRange(Family::kKeys, U64Key(0),
                                 U64Key(static_cast<uint64_t>(oldest_bucket)));
  }
  if (counting_ && !journal_.busy()) CountSome();
}

// Tells an operator that mail is turned away, and when it is taken again.
void Shard::NoteIntake() {
  if (options_.log == nullptr) return;
  std::string reason;
  const bool refuses = Refusal(&reason) != v1::EnqueueResult::OUTCOME_UNSPECIFIED;
  if (refuses == std::exchange(intake_refused_, refuses)) return;
  if (refuses) {
    options_.log->Warn("intake_stopped", reason, {{"shard", options_.name}});
  } else {
    options_.log->Info("intake_resumed", "", {{"shard", options_.name}});
  }
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
    count_position_ = rows->key();
    count_position_.push_back('\0');
    if (queue == nullptr) {
      NoteDamage(Family::kDeliveries, rows->key(), "a recipient of a queue that is not there");
      continue;
    }
    ++queue->recipients;
    ++queue->LaneOf(key->lane).recipients;
    ++recipients_;
    // The tag of `hold`, where it may be: most rows are not worth a parse.
    if (rows->value().find("\xb2\x01") == std::string_view::npos) continue;
    common::v1::Delivery delivery;
    if (delivery.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size())) &&
        delivery.has_hold()) {
      ++stats_.held;
    }
  }
  if (!rows->status().ok()) {
    NoteDamage(Family::kDeliveries, count_position_, "the rows from here on cannot be counted");
    return;  // the tick tries again
  }
  if (rows->Valid()) {
    // Between commits there is a pause of a millisecond or more; with nothing to commit the tick
    // goes on with it.
    PostTask([this] {
      if (!journal_.busy()) CountSome();
    });
    return;
  }
  counting_ = false;
  count_position_.clear();
}

// Expiry holds in every state: what nobody reads (paused, in retry mode, without a worker) is
// looked through, a bounded number of rows a turn. On its way this forgets what is empty.
void Shard::SweepSome() {
  constexpr int kQueuesPerTurn = 1000;
  sweep_timer_ = 0;
  int budget = kRowsPerTurn / 2;
  bool end = false;
  for (int visited = 0; serving_ && visited < kQueuesPerTurn && budget > 0; ++visited) {
    auto it = sweep_.row.empty() ? queues_.all().upper_bound(sweep_.queue)
                                 : queues_.all().lower_bound(sweep_.queue);
    if (it == queues_.all().end()) {
      sweep_ = {};
      end = true;
      break;
    }
    Queue& queue = *it->second;
    if (queue.backoff != nullptr) EndByTime(queue);
    RerouteWaiting(queue);
    if (queue.name != sweep_.queue) sweep_ = {.queue = queue.name};
    if (SweepQueue(queue, budget)) {
      sweep_.row.clear();
      EvictIdle(queue);
    }
  }
  const Duration pause = end || !serving_ ? kTickEvery : Duration(std::chrono::milliseconds(5));
  sweep_timer_ = executor_.After(pause, [this] { SweepSome(); });
}

bool Shard::LookThrough(Queue& queue, PausedLanes paused, std::string& position, int& budget,
                        absl::FunctionRef<OnQueuedRow> on_row) {
  std::vector<Lane*> lanes;
  for (Lane& lane : queue.lanes) lanes.push_back(&lane);
  std::sort(lanes.begin(), lanes.end(), [](auto* a, auto* b) { return a->id < b->id; });
  for (Lane* lane : lanes) {
    std::string lower = lane->floor.Encode();
    const std::string upper = PrefixEnd(std::string_view(lower).substr(0, 16));
    if ((lane->paused && paused == PausedLanes::kSkip) || position >= upper) continue;
    if (!position.empty()) lower = std::max(lower, position + '\0');
    auto rows = store_.Scan(Family::kDeliveries, lower, upper, false);
    for (; rows->Valid() && budget > 0; rows->Next(), --budget) {
      position = rows->key();
      const auto key = DeliveryKey::Decode(rows->key());
      common::v1::Delivery delivery;
      if (key &&
          delivery.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
        on_row(*lane, *key, delivery);
      } else {
        NoteDamage(Family::kDeliveries, rows->key(), "a recipient's row cannot be read",
                   queue.name);
      }
    }
    if (rows->Valid()) return false;
  }
  return true;
}

// True when it is through with this queue.
bool Shard::SweepQueue(Queue& queue, int& budget) {
  // A queue that is read finds what expires by itself; whatever it does not find follows.
  constexpr int64_t kGraceUs = 60'000'000;
  const int64_t now_us = NowUs();
  if (queue.settings != nullptr) SettingsOf(queue);  // a new policy may expire mail earlier
  if (sweep_.row.empty()) {
    const bool read = queue.session != nullptr && MayDispatch(queue, now_us);
    if (!MayExpire() || queue.earliest_expiry_us > now_us - (read ? kGraceUs : 0)) return true;
    sweep_.began_us = now_us;
    sweep_.earliest_us = kNever;
    queue.expiry_added_us = kNever;
  }
  std::vector<std::pair<DeliveryKey, common::v1::Delivery>> expired;
  std::vector<std::pair<DeliveryKey, common::v1::Delivery>> late;
  const auto look = [&](Lane& lane, const DeliveryKey& key, common::v1::Delivery& delivery) {
    const int64_t expires_us = ExpiryOf(queue, key.storage_key, delivery);
    const int64_t notice_us = NoticeOf(queue, key.storage_key, delivery);
    if (std::min(expires_us, notice_us) > now_us) {
      sweep_.earliest_us = std::min({sweep_.earliest_us, expires_us, notice_us});
    } else if (lane.busy.contains(key)) {
      sweep_.earliest_us = std::min(sweep_.earliest_us, now_us + kGraceUs);
    } else if (expires_us > now_us) {
      late.emplace_back(key, std::move(delivery));
    } else {
      expired.emplace_back(key, std::move(delivery));
    }
  };
  const bool through = LookThrough(queue, PausedLanes::kToo, sweep_.row, budget, look);
  for (auto& [key, delivery] : expired) Expire(queue, key, delivery);
  for (auto& [key, delivery] : late) TellOfDelay(queue, key, std::move(delivery));
  if (!through) return false;
  // A walk through a large queue is not begun again before twenty times what it took.
  queue.earliest_expiry_us =
      std::max(std::min(sweep_.earliest_us, queue.expiry_added_us),
               now_us + std::max<int64_t>(1, 20 * (now_us - sweep_.began_us)));
  TouchRow(queue);
  return true;
}

void Shard::EvictIdle(Queue& queue) {
  constexpr int64_t kIdleUs = 30'000'000;
  for (auto lane = queue.lanes.begin(); lane != queue.lanes.end();) {
    ForgetLaneWhenEmpty(queue, *lane++);  // those that were empty while rows were counted
  }
  if (counting_ || queue.recipients > 0 || queue.leased > 0 || queue.pending > 0 ||
      queue.active_us + kIdleUs > NowUs()) {
    return;
  }
  if (queue.mode == v1::QUEUE_MODE_RETRY && queue.retry_until_us <= NowUs()) LeaveRetryMode(queue);
  Release(queue, true);
  ForgetWhenEmpty(queue);
}

}  // namespace sluice::queue
