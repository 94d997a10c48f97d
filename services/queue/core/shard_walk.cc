#include "services/queue/core/shard_walk.h"

#include "services/config/domain_pattern.h"

namespace sluice::queue {
namespace {
constexpr int kRowsPerTurn = 2000;

bool SameAddress(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  const size_t at = a.rfind('@');
  for (size_t i = 0; i < a.size(); ++i) {
    const bool domain = at != std::string_view::npos && i > at;
    const auto lower = [domain](char c) {
      return domain && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    };
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}
}  // namespace

void Shard::RunWalk(std::shared_ptr<Walk> walk) {
  const v1::MessageFilter& filter = walk->filter;
  const bool needs_message = walk->needs_message || !filter.message_id().empty() ||
                             !filter.sender().empty() || !filter.envid().empty();
  const int64_t now_us = NowUs();
  int looked = 0;
  std::string lower = walk->position.empty() ? std::string() : walk->position + '\0';
  auto rows = store_.Scan(Family::kDeliveries, lower, "", false);
  std::shared_ptr<const common::v1::Message> message;
  uint64_t message_key = 0;
  while (rows->Valid() && looked < kRowsPerTurn && walk->matched < walk->limit) {
    ++looked;
    WalkRow row;
    const auto key = DeliveryKey::Decode(rows->key());
    row.queue = key ? queues_.FindById(key->queue_id) : nullptr;
    if (row.queue == nullptr) {
      walk->position = rows->key();
      rows->Next();
      continue;
    }
    row.key = *key;
    const bool wanted_queue = (filter.queue_pattern().empty() ||
                               config::WildcardMatches(filter.queue_pattern(), row.queue->name)) &&
                              (filter.vmta().empty() || filter.vmta() == row.queue->vmta);
    if (!wanted_queue) {  // all of it at once
      walk->position = DeliveryKey{key->queue_id, UINT64_MAX, -1, UINT64_MAX, UINT32_MAX}.Encode();
      rows->Seek(walk->position + '\0');
      continue;
    }
    walk->position = rows->key();
    const bool parsed =
        row.delivery.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()));
    rows->Next();
    if (!parsed) continue;
    if (!filter.job_id().empty() && filter.job_id() != row.delivery.job_id()) continue;
    if (!filter.rcpt().empty() && !SameAddress(filter.rcpt(), row.delivery.rcpt())) continue;
    if (filter.held_only() && !row.delivery.has_hold()) continue;
    if (filter.older_than_us() != 0 &&
        now_us - static_cast<int64_t>(row.key.storage_key) <= filter.older_than_us()) {
      continue;
    }
    if (needs_message) {
      if (message == nullptr || message_key != row.key.storage_key) {
        auto loaded = std::make_shared<common::v1::Message>();
        std::string value;
        message_key = row.key.storage_key;
        if (store_.Get(Family::kMessages, U64Key(message_key), &value).ok()) {
          loaded->ParseFromString(value);
        }
        message = std::move(loaded);
      }
      if (!filter.message_id().empty() && filter.message_id() != message->id()) continue;
      if (!filter.sender().empty() && !SameAddress(filter.sender(), message->mail_from())) continue;
      if (!filter.envid().empty() && filter.envid() != message->envid()) continue;
      row.message = message;
    }
    if (const Lane* lane = row.queue->FindLane(row.key.lane)) {
      row.busy = lane->busy.contains(row.key);
      row.lane_paused = lane->paused;
    }
    if (walk->on_row(row)) ++walk->matched;
  }
  const bool more = rows->Valid();
  if (!more || walk->matched >= walk->limit) {
    walk->on_end(more, walk->position);
    return;
  }
  rows.reset();
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_), walk = std::move(walk)]() mutable {
    if (!alive.expired()) RunWalk(std::move(walk));
  });
}

}  // namespace sluice::queue
