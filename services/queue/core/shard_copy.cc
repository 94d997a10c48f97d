// Copies of what was delivered (bcc-upon-delivery).
#include "services/mail/smtp_command.h"
#include "services/queue/core/shard.h"

namespace sluice::queue {

std::string Shard::NewMessageId(int64_t now_us, uint64_t storage_key) const {
  // Milliseconds, then what no other message has: the epoch and key of this shard, and its name.
  return U64Key(static_cast<uint64_t>(now_us / 1000)).substr(2) + U64Key(storage_key) +
         U64Key(std::hash<std::string>()(options_.name) ^ epoch_).substr(6);
}

void Shard::CopyUponDelivery(Queue& queue, const StoredMessage& message,
                             const common::v1::Delivery& delivered, uint64_t storage_key) {
  const std::string& to = SettingsOf(queue).bcc_upon_delivery();
  // A copy, or a report, has a parent: copies of copies would never end.
  if (to.empty() || !message.envelope.parent_id().empty()) return;
  const int64_t now_us = NowUs();
  const uint64_t key = NextStorageKey();
  auto copy = std::make_shared<StoredMessage>();
  copy->envelope = message.envelope;
  copy->envelope.set_id(NewMessageId(now_us, key));
  copy->envelope.set_parent_id(message.envelope.id());
  copy->envelope.set_time_queued_us(now_us);
  copy->envelope.clear_not_before_us();
  copy->envelope.clear_deliver_by_us();
  copy->envelope.clear_idempotency_key();
  copy->body = message.body;
  copy->chunks = message.chunks;
  if (copy->chunks > 0) {
    // In this batch, so that the copy is as durable as the delivery; at most max-message-size.
    const std::string from = U64Key(storage_key);
    auto rows = store_.Scan(Family::kBodies, from, U64Key(storage_key + 1), false);
    for (; rows->Valid(); rows->Next()) {
      const std::string_view row = rows->key();
      journal_.batch().Put(Family::kBodies, U64Key(key) + std::string(row.substr(from.size())),
                           rows->value());
      bytes_since_health_ += rows->value().size();
    }
  }
  std::vector<common::v1::Delivery> deliveries(1);
  deliveries[0].set_rcpt(to);
  deliveries[0].set_rcpt_given(to);
  deliveries[0].set_notify(mail::kNotifyNever);
  deliveries[0].set_vmta(std::string(queue.vmta()));
  // Of a mail merge: the text as that recipient got it.
  *deliveries[0].mutable_merge_variables() = delivered.merge_variables();
  *deliveries[0].mutable_parts() = delivered.parts();
  AddMessage(std::move(copy), std::move(deliveries), key, {});
}

}  // namespace sluice::queue
