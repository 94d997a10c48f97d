// The limits of a queue: what its settings say, and how much of it is used.
//
// CapsOf is the one place where settings become limits of a queue: a mode with limits of its own
// (backoff) chooses there, and all that paces, blocks or names a limit follows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "services/base/clock.h"
#include "services/delivery/core/mode_pacer.h"
#include "services/delivery/core/rate_pacer.h"
#include "services/delivery/core/volume_window.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::delivery {

// A rate, with the name of the directive that says it.
struct RateCap {
  const char* directive = "";
  uint64_t count = 0;
  Duration period{};
  bool limited = false;

  // "max-msg-rate 10/60s"
  std::string ToString() const;
};

// A queue's, or those of what a queue sends from one source.
struct QueueCaps {
  const char* connections_directive = "";
  uint32_t connections = 0;  // 0: no limit
  RateCap messages;          // recipients
  RateCap per_hour;          // recipients
  RateCap connects;
  RateCap volume;      // bytes
  uint32_t burst = 1;  // of the first three
  // These hold beside the others while the queue is in backoff mode; what has no rate is the
  // tighter one of both already.
  bool in_backoff = false;
  RateCap backoff_messages;
  RateCap backoff_per_hour;
  RateCap backoff_connects;

  bool any() const {
    return connections > 0 || messages.limited || per_hour.limited || connects.limited ||
           volume.limited;
  }
};

QueueCaps CapsOf(const policy::v1::QueueSettings& settings, bool in_backoff = false);
// Of those from `source_ip`, where a source-ip-... directive names its network: the longest one.
QueueCaps CapsOf(const policy::v1::QueueSettings& settings, const std::string& source_ip);
bool HasCapsBySource(const policy::v1::QueueSettings& settings);

// How much of the rates is used. Thread-safety: none; a value.
struct Pace {
  ModePacer messages;
  ModePacer per_hour;
  ModePacer connects;
  std::unique_ptr<VolumeWindow> volume;  // made with the first limit

  // New limits; what was charged stays.
  void Limit(const QueueCaps& caps, MonotonicTime now);
  // Whether the limits of backoff mode hold; on: since then.
  void SetBackoff(bool on, MonotonicTime since);
  bool counts_recipients() const { return messages.limited() || per_hour.limited(); }
  bool limited() const { return paces() || connects.limited(); }
  // Whether each message waits for its moment.
  bool paces() const { return counts_recipients() || has_volume(); }
  bool has_volume() const { return volume != nullptr && volume->limited(); }
  // When one recipient of a message of `bytes` may be attempted; max() where never.
  MonotonicTime Next(MonotonicTime now, uint64_t bytes) const;
  // The cap that says so, of `caps` that it was made with.
  const RateCap& Slowest(const QueueCaps& caps, MonotonicTime now, uint64_t bytes) const;
  // How many messages of that size, to a recipient each, pass in a stretch of that length; at
  // least one.
  size_t CountWithin(Duration length, uint64_t bytes) const;
  void Charge(MonotonicTime now, uint64_t recipients) {
    messages.Charge(now, recipients);
    per_hour.Charge(now, recipients);
  }
  // What others did until then is not known: as if it were all that may be.
  void Exhaust(MonotonicTime now);
  void ExhaustRates(MonotonicTime now);  // all but the volume
  bool Rested(MonotonicTime now) const;
};

}  // namespace sluice::delivery
