#include "services/delivery/core/queue_caps.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"

namespace sluice::delivery {
namespace {

constexpr Duration kHour = std::chrono::hours(1);

RateCap CapOf(const char* directive, bool said, const policy::v1::Rate& rate) {
  RateCap cap{directive, rate.count(), Duration(rate.period_us()), false};
  cap.limited = said && !rate.unlimited();
  return cap;
}

RatePacer PacerOf(const RateCap& cap, uint32_t burst) {
  return cap.limited ? RatePacer(cap.count, cap.period, burst) : RatePacer();
}

void Follow(ModePacer* pacer, const RateCap& cap, uint32_t burst, const RateCap& backoff) {
  ModePacer fresh(PacerOf(cap, burst), PacerOf(backoff, 1), pacer->in_backoff());
  fresh.TakeOver(*pacer);
  *pacer = fresh;
}

// Whether `a` lets less through than `b`.
bool IsTighter(const RateCap& a, const RateCap& b) {
  if (!a.limited || !b.limited) return a.limited;
  return static_cast<unsigned __int128>(a.count) * static_cast<uint64_t>(b.period.count()) <
         static_cast<unsigned __int128>(b.count) * static_cast<uint64_t>(a.period.count());
}

// The entry of the longest network that has the address; of equals the last.
template <class Entries>
auto* EntryOf(const Entries& entries, const IpAddress& ip) {
  decltype(&entries.entries(0)) best = nullptr;
  int longest = -1;
  for (const auto& entry : entries.entries()) {
    const auto network = Cidr::Parse(entry.key());
    if (!network || !network->Contains(ip) || network->prefix_bits() < longest) continue;
    longest = network->prefix_bits();
    best = &entry;
  }
  return best;
}

}  // namespace

std::string RateCap::ToString() const {
  const int64_t us = period.count();
  return absl::StrCat(
      directive, " ", count, "/",
      us % 1'000'000 == 0 ? absl::StrCat(us / 1'000'000, "s") : absl::StrCat(us / 1000, "ms"));
}

QueueCaps CapsOf(const policy::v1::QueueSettings& settings, bool in_backoff) {
  QueueCaps caps;
  caps.connections_directive = "max-smtp-out";
  caps.connections = settings.max_smtp_out();
  caps.messages = CapOf("max-msg-rate", settings.has_max_msg_rate(), settings.max_msg_rate());
  caps.per_hour = RateCap{"max-msg-per-hour", settings.max_msg_per_hour(), kHour,
                          settings.max_msg_per_hour() > 0};
  caps.connects =
      CapOf("max-connect-rate", settings.has_max_connect_rate(), settings.max_connect_rate());
  caps.volume = CapOf("max-data-volume-rate", settings.has_max_data_volume_rate(),
                      settings.max_data_volume_rate());
  caps.burst = std::max<uint32_t>(1, settings.rate_burst());
  caps.backoff_messages = CapOf("backoff-max-msg-rate", settings.has_backoff_max_msg_rate(),
                                settings.backoff_max_msg_rate());
  caps.backoff_per_hour = RateCap{"backoff-max-msg-per-hour", settings.backoff_max_msg_per_hour(),
                                  kHour, settings.backoff_max_msg_per_hour() > 0};
  caps.backoff_connects = CapOf("backoff-max-connect-rate", settings.has_backoff_max_connect_rate(),
                                settings.backoff_max_connect_rate());
  caps.in_backoff = in_backoff;
  if (!in_backoff) return caps;
  const uint32_t connections = settings.backoff_max_smtp_out();
  if (connections > 0 && (caps.connections == 0 || connections < caps.connections)) {
    caps.connections = connections;
    caps.connections_directive = "backoff-max-smtp-out";
  }
  const RateCap volume =
      CapOf("backoff-max-data-volume-rate", settings.has_backoff_max_data_volume_rate(),
            settings.backoff_max_data_volume_rate());
  if (IsTighter(volume, caps.volume)) caps.volume = volume;
  return caps;
}

bool HasCapsBySource(const policy::v1::QueueSettings& settings) {
  return settings.max_smtp_out_per_source_ip() > 0 ||
         settings.source_ip_max_smtp_out().entries_size() > 0 ||
         settings.source_ip_max_msg_rate().entries_size() > 0 ||
         settings.source_ip_max_connect_rate().entries_size() > 0 ||
         settings.source_ip_max_data_volume_rate().entries_size() > 0;
}

QueueCaps CapsOf(const policy::v1::QueueSettings& settings, const std::string& source_ip) {
  QueueCaps caps;
  caps.burst = std::max<uint32_t>(1, settings.rate_burst());
  caps.connections_directive = "max-smtp-out-per-source-ip";
  caps.connections = settings.max_smtp_out_per_source_ip();
  const auto ip = IpAddress::Parse(source_ip);
  if (!ip) return caps;  // the system chooses the address
  if (const auto* entry = EntryOf(settings.source_ip_max_smtp_out(), *ip)) {
    if (entry->count() > 0 && (caps.connections == 0 || entry->count() < caps.connections)) {
      caps.connections_directive = "source-ip-max-smtp-out";
      caps.connections = static_cast<uint32_t>(std::min<uint64_t>(entry->count(), UINT32_MAX));
    }
  }
  const auto rate = [&ip](const char* directive, const policy::v1::KeyedRates& rates) {
    const auto* entry = EntryOf(rates, *ip);
    return entry == nullptr ? RateCap{directive} : CapOf(directive, true, entry->rate());
  };
  caps.messages = rate("source-ip-max-msg-rate", settings.source_ip_max_msg_rate());
  caps.connects = rate("source-ip-max-connect-rate", settings.source_ip_max_connect_rate());
  caps.volume = rate("source-ip-max-data-volume-rate", settings.source_ip_max_data_volume_rate());
  return caps;
}

void Pace::Limit(const QueueCaps& caps, MonotonicTime now) {
  Follow(&messages, caps.messages, caps.burst, caps.backoff_messages);
  Follow(&per_hour, caps.per_hour, caps.burst, caps.backoff_per_hour);
  Follow(&connects, caps.connects, caps.burst, caps.backoff_connects);
  if (caps.volume.limited) {
    if (volume == nullptr) volume = std::make_unique<VolumeWindow>();
    volume->Limit(now, caps.volume.count, caps.volume.period);
  } else if (volume != nullptr) {
    volume->Unlimit();
  }
}

void Pace::SetBackoff(bool on, MonotonicTime since) {
  for (ModePacer* pacer : {&messages, &per_hour, &connects}) pacer->SetBackoff(on, since);
}

MonotonicTime Pace::Next(MonotonicTime now, uint64_t bytes) const {
  MonotonicTime next = std::max(messages.Next(now), per_hour.Next(now));
  if (has_volume()) next = std::max(next, volume->Next(now, bytes));
  return next;
}

const RateCap& Pace::Slowest(const QueueCaps& caps, MonotonicTime now, uint64_t bytes) const {
  const MonotonicTime next = Next(now, bytes);
  if (messages.limited() && messages.Next(now) == next) {
    return messages.backoff_decides(now) ? caps.backoff_messages : caps.messages;
  }
  if (per_hour.limited() && per_hour.Next(now) == next) {
    return per_hour.backoff_decides(now) ? caps.backoff_per_hour : caps.per_hour;
  }
  return caps.volume;
}

size_t Pace::CountWithin(Duration length, uint64_t bytes) const {
  size_t count = SIZE_MAX;
  if (messages.limited()) count = std::min(count, messages.CellsWithin(length));
  if (per_hour.limited()) count = std::min(count, per_hour.CellsWithin(length));
  if (has_volume()) count = std::min(count, volume->CountWithin(length, bytes));
  return count;
}

void Pace::Exhaust(MonotonicTime now) {
  ExhaustRates(now);
  if (volume != nullptr) volume->Exhaust(now);
}

void Pace::ExhaustRates(MonotonicTime now) {
  messages.Exhaust(now);
  per_hour.Exhaust(now);
  connects.Exhaust(now);
}

bool Pace::Rested(MonotonicTime now) const {
  return messages.Rested(now) && per_hour.Rested(now) && connects.Rested(now) &&
         (volume == nullptr || volume->Rested(now));
}

}  // namespace sluice::delivery
