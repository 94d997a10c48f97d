#include "services/queue/core/event_log.h"

#include "services/mail/message_id.h"

namespace sluice::queue {
namespace {

using common::v1::EventKind;

constexpr size_t kMaxReplyBytes = 256;

struct Entry {
  LogLevel level;
  const char* name;
};

Entry EntryOf(EventKind kind) {
  switch (kind) {
    case EventKind::EVENT_KIND_RECEIVED:
      return {LogLevel::kDebug, "message_received"};
    case EventKind::EVENT_KIND_TRANSIENT:
      return {LogLevel::kDebug, "message_deferred"};
    case EventKind::EVENT_KIND_QUEUE_TRANSIENT:
      return {LogLevel::kWarn, "queue_failed"};
    case EventKind::EVENT_KIND_DELIVERED:
      return {LogLevel::kDebug, "message_delivered"};
    case EventKind::EVENT_KIND_FAILED:
      return {LogLevel::kInfo, "message_failed"};
    case EventKind::EVENT_KIND_EXPIRED:
      return {LogLevel::kInfo, "message_expired"};
    case EventKind::EVENT_KIND_DELETED:
      return {LogLevel::kInfo, "message_deleted"};
    case EventKind::EVENT_KIND_HELD:
      return {LogLevel::kWarn, "message_held"};
    case EventKind::EVENT_KIND_RELEASED:
      return {LogLevel::kInfo, "message_released"};
    case EventKind::EVENT_KIND_REROUTED:
      return {LogLevel::kDebug, "message_rerouted"};
    case EventKind::EVENT_KIND_QUEUE_BACKOFF:
      return {LogLevel::kWarn, "queue_backoff"};
    case EventKind::EVENT_KIND_QUEUE_NORMAL:
      return {LogLevel::kInfo, "queue_normal"};
    default:
      return {LogLevel::kDebug, "message_event"};
  }
}

}  // namespace

void LogEvent(Log& log, const common::v1::Event& event) {
  const Entry entry = EntryOf(event.kind());
  if (!log.enabled(entry.level)) return;
  const common::v1::Reply& reply = event.reply();
  const std::string id = event.message_id().size() == mail::kMessageIdBytes
                             ? mail::FormatMessageId(event.message_id())
                             : std::string();
  log.Write(entry.level, entry.name, "",
            {{"msg_id", id},
             {"queue", event.queue()},
             {"rcpt", event.rcpt()},
             {"source", event.attempt().source_ip()},
             {"peer", reply.host()},
             {"code", reply.code()},
             {"reply", std::string_view(reply.text()).substr(0, kMaxReplyBytes)},
             {"category", event.bounce_category()},
             {"reason", event.reason()},
             {"author", event.author()}});
}

}  // namespace sluice::queue
