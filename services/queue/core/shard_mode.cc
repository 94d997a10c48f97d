// Backoff mode of queues and the sources that they do without: kept in their rows, changed by what
// workers report and by operators (shard_mode_control.cc), ended by time.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;
// An empty queue is forgotten after this, unless an operator put it into backoff mode.
constexpr int64_t kKeptEmptyUs = 7 * kDayUs;
// Between two messages to people about one queue.
constexpr int64_t kTellEveryUs = 60 * int64_t{1'000'000};

bool Holds(const v1::DisabledSource& source, int64_t now_us) {
  return source.disabled() && (source.until_us() == 0 || now_us < source.until_us());
}

bool SameWords(const v1::QueueModeState& a, const v1::QueueModeState& b) {
  return a.author() == b.author() && a.reason() == b.reason() && a.until_us() == b.until_us();
}

// For a header and a text of ASCII.
std::string Plain(std::string_view text) {
  std::string plain(text);
  for (char& c : plain) {
    if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) > 0x7e) c = '?';
  }
  return plain;
}

}  // namespace

bool Shard::InBackoff(const Queue& queue) const {
  if (queue.backoff == nullptr) return false;
  const v1::QueueModeState& mode = queue.backoff->mode;
  return mode.backoff() && (mode.until_us() == 0 || NowUs() < mode.until_us());
}

bool Shard::KeepsMode(const Queue& queue) const {
  if (queue.backoff == nullptr) return false;
  const int64_t now_us = NowUs();
  const v1::QueueModeState& mode = queue.backoff->mode;
  if (InBackoff(queue) && mode.by_operator()) return true;
  // An operator's "normal" stays to contradict those that have not heard of it.
  int64_t since_us = InBackoff(queue) || mode.by_operator() ? mode.since_us() : 0;
  for (const auto& source : queue.backoff->sources) {
    if (Holds(source, now_us)) {
      if (source.by_operator()) return true;
      since_us = std::max(since_us, source.since_us());
    } else if (source.by_operator() && now_us < source.since_us() + kDayUs) {
      return true;
    }
  }
  return since_us != 0 && now_us < std::max(since_us, queue.active_us) + kKeptEmptyUs;
}

const policy::v1::DurationList& Shard::RetryStepsOf(Queue& queue) {
  const auto& settings = SettingsOf(queue);
  return InBackoff(queue) && settings.backoff_retry_after().us_size() > 0
             ? settings.backoff_retry_after()
             : settings.retry_after();
}

void Shard::OnModeChange(Queue& queue, const v1::QueueModeChange& change) {
  if (queue.backoff == nullptr) queue.backoff = std::make_unique<Queue::Backoff>();
  Queue::Backoff& own = *queue.backoff;
  bool knows_less = change.mode().since_us() < own.mode.since_us();
  if (change.mode().since_us() > own.mode.since_us()) AdoptMode(queue, change.mode());
  for (const v1::DisabledSource& source : change.sources()) {
    auto known = std::find_if(own.sources.begin(), own.sources.end(),
                              [&](const auto& each) { return each.ip() == source.ip(); });
    if (known == own.sources.end()) known = own.sources.emplace(known);
    if (source.since_us() > known->since_us()) AdoptSource(queue, *known, source);
    knows_less |= source.since_us() < known->since_us();
  }
  knows_less |= static_cast<size_t>(change.sources_size()) < own.sources.size();
  if (knows_less) TellMode(queue);
}

void Shard::AdoptMode(Queue& queue, const v1::QueueModeState& mode) {
  v1::QueueModeState& own = queue.backoff->mode;
  const bool flips = own.backoff() != mode.backoff();
  const bool by_time =
      own.backoff() && !mode.backoff() && own.until_us() != 0 && mode.since_us() >= own.until_us();
  const bool tell = mode.notify() || (by_time && own.notify());
  const bool is_news = flips || (mode.backoff() && mode.by_operator() && !SameWords(own, mode));
  own = mode;
  TouchRow(queue);
  if (flips && serving_) RerouteWaiting(queue);
  if (!is_news) return;
  common::v1::Event& event = NewEvent(
      mode.backoff() ? common::v1::EVENT_KIND_QUEUE_BACKOFF : common::v1::EVENT_KIND_QUEUE_NORMAL,
      queue, common::v1::Message(), nullptr);
  event.set_author(mode.author());
  event.set_reason(mode.reason());
  event.set_retry_us(mode.until_us());
  if (tell && flips) {
    const char* const name = mode.backoff() ? "backoff" : "normal";
    TellPeople(queue, SettingsOf(queue).backoff_notify(),
               absl::StrCat("Queue ", queue.name, " is in ", name, " mode"),
               absl::StrCat("The queue ", queue.name, " went into ", name, " mode, as decided by ",
                            mode.author(), ":\r\n\r\n    ", mode.reason()));
  }
}

void Shard::AdoptSource(Queue& queue, v1::DisabledSource& own, const v1::DisabledSource& source) {
  const bool flips = own.disabled() != source.disabled();
  own = source;
  TouchRow(queue);
  if (!flips) return;
  common::v1::Event& event = NewEvent(source.disabled() ? common::v1::EVENT_KIND_SOURCE_DISABLED
                                                        : common::v1::EVENT_KIND_SOURCE_ENABLED,
                                      queue, common::v1::Message(), nullptr);
  event.mutable_attempt()->set_source_ip(source.ip());
  event.set_author(source.author());
  event.set_reason(source.reason());
  event.set_retry_us(source.until_us());
  const auto& settings = SettingsOf(queue);
  if (options_.log != nullptr && settings.log_disabled_ips()) {
    options_.log->Write(LogLevel::kWarn, source.disabled() ? "source_disabled" : "source_enabled",
                        "",
                        {{"queue", queue.name},
                         {"source", source.ip()},
                         {"author", source.author()},
                         {"reason", source.reason()}});
  }
  if (!source.disabled() || !source.notify()) return;
  TellPeople(
      queue, settings.disabled_source_ip_notify(),
      absl::StrCat("Source ", source.ip(), " is disabled for ", queue.name),
      absl::StrCat("The source address ", source.ip(), " is not used for the queue ", queue.name,
                   " any more, as decided by ", source.author(), ":\r\n\r\n    ", source.reason()));
}

// The queue's worker ends them in the same way by itself.
void Shard::EndByTime(Queue& queue) {
  Queue::Backoff& own = *queue.backoff;
  const int64_t now_us = NowUs();
  if (own.mode.backoff() && own.mode.until_us() != 0 && own.mode.until_us() <= now_us) {
    v1::QueueModeState normal;
    normal.set_since_us(std::max(own.mode.until_us(), own.mode.since_us() + 1));
    normal.set_author(own.mode.author());
    normal.set_reason("the time of backoff mode is over");
    AdoptMode(queue, normal);
  }
  for (v1::DisabledSource& source : own.sources) {
    if (!source.disabled() || Holds(source, now_us)) continue;
    v1::DisabledSource enabled;
    enabled.set_ip(source.ip());
    enabled.set_since_us(std::max(source.until_us(), source.since_us() + 1));
    enabled.set_author(source.author());
    enabled.set_reason("its time is over");
    AdoptSource(queue, source, enabled);
  }
  // What is enabled is of interest to those who still think otherwise, for a while.
  std::erase_if(own.sources, [now_us](const v1::DisabledSource& source) {
    return !source.disabled() && source.since_us() + kDayUs < now_us;
  });
}

void Shard::TellMode(Queue& queue) {
  if (queue.session == nullptr || queue.backoff == nullptr) return;
  v1::QueueModeChange* change = queue.session->out.header.add_modes();
  change->set_queue_ref(queue.queue_ref);
  *change->mutable_mode() = queue.backoff->mode;
  change->mutable_mode()->clear_notify();
  for (const auto& source : queue.backoff->sources) {
    *change->add_sources() = source;
    change->mutable_sources()->rbegin()->clear_notify();
  }
  queue.session->dirty = true;
  FlushLater();
}

void Shard::TellPeople(Queue& queue, const policy::v1::StringList& addresses,
                       const std::string& subject, const std::string& text) {
  const int64_t now_us = NowUs();
  if (addresses.values().empty() || now_us < queue.backoff->told_us + kTellEveryUs) return;
  queue.backoff->told_us = now_us;
  const uint64_t key = NextStorageKey();
  auto message = std::make_shared<StoredMessage>();
  message->envelope.set_id(NewMessageId(now_us, key));
  message->envelope.set_source_type(common::v1::SOURCE_TYPE_DSN);
  message->envelope.set_time_queued_us(now_us);
  const std::string host =
      policy_->global().host_name().empty() ? "localhost" : policy_->global().host_name();
  const std::string& own = policy_->global().postmaster();
  std::string to;
  std::vector<common::v1::Delivery> deliveries;
  for (const std::string& address : addresses.values()) {
    absl::StrAppend(&to, to.empty() ? "" : ",\r\n\t", "<", Plain(address), ">");
    common::v1::Delivery& delivery = deliveries.emplace_back();
    delivery.set_rcpt(address);
    delivery.set_rcpt_given(address);
    delivery.set_vmta(std::string(queue.vmta()));
  }
  std::string lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find("\r\n", begin), text.size());
    absl::StrAppend(&lines, Plain(std::string_view(text).substr(begin, end - begin)), "\r\n");
    begin = end + 2;
  }
  message->body = Body(absl::StrCat(
      "From: Mail Delivery System <", own.empty() ? absl::StrCat("postmaster@", host) : own,
      ">\r\nTo: ", to, "\r\nSubject: ", Plain(subject), "\r\nDate: ",
      absl::FormatTime("%a, %d %b %Y %H:%M:%S +0000", absl::FromUnixMicros(now_us),
                       absl::UTCTimeZone()),
      "\r\nMessage-ID: <mode-", key, "@", host, ">\r\nAuto-Submitted: auto-generated\r\n\r\n",
      lines));
  AddMessage(std::move(message), std::move(deliveries), key, {});
}

}  // namespace sluice::queue
