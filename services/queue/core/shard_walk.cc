#include "services/queue/core/shard_walk.h"

#include <algorithm>

namespace sluice::queue {
namespace {

constexpr int kRowsPerTurn = 1000;
// Of the messages behind the watermark that one turn looks at: storage keys are microseconds, and
// mail that went straight through leaves deleted rows there.
constexpr uint64_t kRecentKeysPerTurn = 1'000'000;
// Of a walk's position before the key: phase, watermark, recipient, two times and a count.
constexpr size_t kPositionHead = 37;
// How often the place of a recipient is read anew that moves while it is looked for.
constexpr int kMostMoves = 4;

}  // namespace

std::string IndexedAddress(std::string_view address) {
  std::string text(address);
  const size_t at = text.rfind('@');
  for (size_t i = at == std::string::npos ? text.size() : at; i < text.size(); ++i) {
    if (text[i] >= 'A' && text[i] <= 'Z') text[i] = static_cast<char>(text[i] - 'A' + 'a');
  }
  return text;
}

bool SameAddress(std::string_view a, std::string_view b) {
  return a.size() == b.size() && IndexedAddress(a) == IndexedAddress(b);
}

bool Shard::Walk::SetPosition(std::string_view position) {
  if (position.empty()) return true;
  if (position.size() < kPositionHead) return false;
  phase = static_cast<Phase>(position[0]);
  if (phase != Phase::kDeliveries && phase != Phase::kMoved && phase != Phase::kIndex &&
      phase != Phase::kRecent) {
    return false;
  }
  watermark = ReadU64(position, 1);
  recipient = ReadU32(position, 9);
  began_us = static_cast<int64_t>(ReadU64(position, 13));
  moved_since_us = static_cast<int64_t>(ReadU64(position, 21));
  moves = ReadU64(position, 29);
  next = std::string(position.substr(kPositionHead));
  return phase != Phase::kRecent || next.size() >= 8;
}

std::string Shard::Walk::Position() const {
  std::string position(1, static_cast<char>(phase));
  AppendU64(position, watermark);
  AppendU32(position, recipient);
  AppendU64(position, static_cast<uint64_t>(began_us));
  AppendU64(position, static_cast<uint64_t>(moved_since_us));
  AppendU64(position, moves);
  return position + next;
}

// Where the filter leads: a prefix of the index, or nothing.
std::string Shard::IndexPrefixOf(const v1::MessageFilter& filter) {
  if (!filter.message_id().empty()) return IndexPrefix(IndexKind::kId, filter.message_id());
  if (!filter.rcpt().empty()) {
    return IndexPrefix(IndexKind::kRecipient, IndexedAddress(filter.rcpt()));
  }
  if (!filter.sender().empty()) {
    return IndexPrefix(IndexKind::kSender, IndexedAddress(filter.sender()));
  }
  if (!filter.job_id().empty()) return IndexPrefix(IndexKind::kJob, filter.job_id());
  return {};
}

void Shard::RunWalk(std::shared_ptr<Walk> walk) {
  journal_.Seal();
  walk->budget = kRowsPerTurn;
  const std::string prefix = IndexPrefixOf(walk->filter);
  if (walk->phase == Walk::Phase::kStart) {
    walk->watermark = durable_watermark_;
    walk->phase = prefix.empty() ? Walk::Phase::kDeliveries : Walk::Phase::kIndex;
    walk->next = prefix;
    walk->began_us = NowUs();
    walk->moves = moves_back_;
  }
  bool through = false;
  switch (walk->phase) {
    case Walk::Phase::kDeliveries:
    case Walk::Phase::kMoved: {
      const uint64_t before = moves_back_;
      through = WalkDeliveries(*walk);
      walk->moves += moves_back_ - before;  // its own are of rows that it has met
      if (!through || walk->moves == moves_back_) break;
      through = false;
      walk->phase = Walk::Phase::kMoved;
      walk->next.clear();
      walk->moved_since_us = std::min(walk->began_us, NowUs());
      walk->began_us = NowUs();
      walk->moves = moves_back_;
      if (walk->matched >= walk->limit) break;
      // What is on its way must have arrived.
      journal_.WhenDurable([this, walk](const absl::Status&) mutable { RunWalk(std::move(walk)); });
      return;
    }
    case Walk::Phase::kIndex:
      if (WalkIndex(*walk, prefix)) {
        walk->phase = Walk::Phase::kRecent;
        walk->next = U64Key(walk->watermark);
        walk->recipient = 0;
      }
      break;
    default:
      through = WalkRecent(*walk);
  }
  if (through || walk->matched >= walk->limit) {
    walk->on_end(!through, walk->Position());
    return;
  }
  PostTask([this, walk = std::move(walk)]() mutable { RunWalk(std::move(walk)); });
}

// Completes the row, and gives it to the walk where it matches.
void Shard::VisitRow(Walk& walk, const DeliveryKey& key, std::string_view value) {
  const v1::MessageFilter& filter = walk.filter;
  WalkRow row;
  row.key = key;
  row.queue = queues_.FindById(key.queue_id);
  if (row.queue == nullptr) return;
  bool unread = false;  // its message
  if (!row.delivery.ParseFromArray(value.data(), static_cast<int>(value.size()))) {
    NoteDamage(Family::kDeliveries, key.Encode(), "a recipient's row cannot be read",
               row.queue->name);
    row.damaged = true;
    row.delivery.Clear();
  }
  if ((!filter.queue_pattern().empty() && !IsNamed(*row.queue, filter.queue_pattern())) ||
      (!filter.vmta().empty() && filter.vmta() != row.queue->vmta()) ||
      (!filter.job_id().empty() && filter.job_id() != row.delivery.job_id()) ||
      (!filter.rcpt().empty() && !SameAddress(filter.rcpt(), row.delivery.rcpt())) ||
      (filter.held_only() && !row.delivery.has_hold()) ||
      (filter.older_than_us() != 0 &&
       NowUs() - static_cast<int64_t>(key.storage_key) <= filter.older_than_us())) {
    return;
  }
  if (walk.needs_message || !filter.message_id().empty() || !filter.sender().empty() ||
      !filter.envid().empty()) {
    if (walk.message == nullptr || walk.message_key != key.storage_key) {
      auto loaded = std::make_shared<common::v1::Message>();
      std::string text;
      if (!store_.Get(Family::kMessages, U64Key(key.storage_key), &text).ok() ||
          !loaded->ParseFromString(text)) {
        loaded = nullptr;
      } else {
        loaded->clear_shard_positions();
      }
      walk.message = std::move(loaded);
      walk.message_key = key.storage_key;
    }
    if (walk.message == nullptr) {
      unread = true;
      walk.message = std::make_shared<common::v1::Message>();
      walk.message_key = 0;  // what another recipient finds is not known
    }
    const common::v1::Message& message = *walk.message;
    if ((!filter.message_id().empty() && filter.message_id() != message.id()) ||
        (!filter.sender().empty() && !SameAddress(filter.sender(), message.mail_from())) ||
        (!filter.envid().empty() &&
         filter.envid() !=
             (row.delivery.envelope_id().empty() ? message.envid() : row.delivery.envelope_id()))) {
      return;
    }
    row.message = walk.message;
  }
  if (const Lane* lane = row.queue->FindLane(key.lane)) {
    row.busy = lane->busy.contains(key);
    row.lane_paused = lane->paused;
  }
  row.damaged |= unread && !row.busy;  // that of a busy one may just be ending
  if (walk.on_row(row)) ++walk.matched;
}

bool Shard::WalkDeliveries(Walk& walk) {
  const v1::MessageFilter& filter = walk.filter;
  auto rows = store_.Scan(Family::kDeliveries, walk.next, "", false);
  while (rows->Valid() && walk.budget > 0 && walk.matched < walk.limit) {
    --walk.budget;
    const auto key = DeliveryKey::Decode(rows->key());
    const Queue* queue = key ? queues_.FindById(key->queue_id) : nullptr;
    if (queue != nullptr &&
        ((!filter.queue_pattern().empty() && !IsNamed(*queue, filter.queue_pattern())) ||
         (!filter.vmta().empty() && filter.vmta() != queue->vmta()))) {
      walk.next = U64Key(key->queue_id + 1);  // all of it at once
      rows->Seek(walk.next);
      continue;
    }
    walk.next = std::string(rows->key()) + '\0';
    if (queue == nullptr) {
      NoteDamage(Family::kDeliveries, rows->key(), "a row of a queue that is not there");
    } else if (walk.phase != Walk::Phase::kMoved || HasMoved(walk, *key, rows->value())) {
      VisitRow(walk, *key, rows->value());
    }
    rows->Next();
  }
  return !rows->Valid();
}

// Whether the row may have come to where it is since the round before began: an operator has made
// it due at that time, or somebody has sent it by another virtual MTA.
bool Shard::HasMoved(const Walk& walk, const DeliveryKey& key, std::string_view value) const {
  if (key.due_us >= walk.moved_since_us && key.due_us <= NowUs()) {
    return static_cast<int64_t>(key.storage_key) < walk.moved_since_us;
  }
  common::v1::Delivery delivery;
  return delivery.ParseFromArray(value.data(), static_cast<int>(value.size())) &&
         delivery.reroute().since_us() >= walk.moved_since_us;
}

// Finds the row of a recipient that is at `key`, or was there before it moved. False: it has ended.
bool Shard::FindRow(DeliveryKey& key, std::string* value) const {
  std::string place = key.Encode();
  for (int i = 0; i < kMostMoves; ++i) {
    if (store_.Get(Family::kDeliveries, place, value).ok()) return true;
    std::string moved;
    if (!store_.Get(Family::kIndex, PositionKey(key.storage_key, key.recipient), &moved).ok() ||
        moved == place) {
      return false;
    }
    const auto decoded = DeliveryKey::Decode(moved);
    if (!decoded) return false;
    key = *decoded;
    place = std::move(moved);
  }
  return false;
}

// The recipients of one message from walk.recipient on, by the places of those that moved and, for
// a message that was not indexed, its own list. True: all were looked at.
bool Shard::VisitMessage(Walk& walk, uint64_t storage_key, std::string_view positions,
                         uint32_t last) {
  std::string value;
  const auto count = static_cast<uint32_t>(positions.size() / kPositionBytes);
  for (; walk.recipient < count; ++walk.recipient) {
    if (walk.budget <= 0 || walk.matched >= walk.limit) return false;
    --walk.budget;
    const size_t at = size_t{walk.recipient} * kPositionBytes;
    DeliveryKey key{ReadU64(positions, at), ReadU64(positions, at + 8),
                    static_cast<int64_t>(ReadU64(positions, at + 16)), storage_key, walk.recipient};
    if (FindRow(key, &value)) VisitRow(walk, key, value);
  }
  if (count > 0) return true;
  auto places = store_.Scan(Family::kIndex, PositionKey(storage_key, walk.recipient),
                            last == UINT32_MAX ? PrefixEnd("p" + U64Key(storage_key))
                                               : PositionKey(storage_key, last + 1));
  for (; places->Valid(); places->Next()) {
    walk.recipient = ReadU32(places->key(), 9);
    if (walk.budget <= 0 || walk.matched >= walk.limit) return false;
    --walk.budget;
    auto key = DeliveryKey::Decode(places->value());
    if (key && FindRow(*key, &value)) VisitRow(walk, *key, value);
  }
  return true;
}

bool Shard::WalkIndex(Walk& walk, const std::string& prefix) {
  auto rows = store_.Scan(Family::kIndex, walk.next, PrefixEnd(prefix), false);
  for (; rows->Valid(); rows->Next()) {
    const std::string_view key = rows->key();
    if (walk.budget <= 0 || walk.matched >= walk.limit) return false;
    --walk.budget;
    if (key.size() == prefix.size() + 12) {
      walk.next = std::string(key);
      const uint64_t storage_key = ReadU64(key, prefix.size());
      const uint32_t recipient = ReadU32(key, prefix.size() + 8);
      if (recipient != UINT32_MAX) walk.recipient = recipient;
      if (storage_key < walk.watermark && !VisitMessage(walk, storage_key, {}, recipient)) {
        return false;
      }
    }
    walk.next = std::string(key) + '\0';
    walk.recipient = 0;
  }
  return true;
}

bool Shard::WalkRecent(Walk& walk) {
  const uint64_t from = ReadU64(walk.next, 0);
  const uint64_t until =
      from +
      std::max(kRecentKeysPerTurn, (last_storage_key_ - std::min(from, last_storage_key_)) / 64);
  const v1::MessageFilter& filter = walk.filter;
  auto rows = store_.Scan(Family::kMessages, walk.next, U64Key(until), false);
  for (; rows->Valid(); rows->Next()) {
    if (walk.budget <= 0 || walk.matched >= walk.limit) return false;
    --walk.budget;
    if (rows->key().size() != 8) continue;
    auto message = std::make_shared<common::v1::Message>();
    if (!message->ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
      continue;
    }
    walk.next = std::string(rows->key());
    if ((filter.message_id().empty() || filter.message_id() == message->id()) &&
        (filter.sender().empty() || SameAddress(filter.sender(), message->mail_from()))) {
      const uint64_t storage_key = ReadU64(rows->key(), 0);
      const std::string positions = std::move(*message->mutable_shard_positions());
      message->clear_shard_positions();
      walk.message = std::move(message);
      walk.message_key = storage_key;
      if (!VisitMessage(walk, storage_key, positions, UINT32_MAX)) return false;
    }
    walk.next = std::string(rows->key()) + '\0';
    walk.recipient = 0;
  }
  walk.next = U64Key(until);
  return until > last_storage_key_;
}

}  // namespace sluice::queue
