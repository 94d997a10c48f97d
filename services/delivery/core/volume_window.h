// Keeps the bytes that leave within a limit: in no window of the stated period more than its count.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "services/base/clock.h"

namespace sluice::delivery {

// Messages are large against what a period holds, and of any size, so that a paced bucket alone
// would let the last one of a window pass its end. So bytes are counted: those of each slot of the
// period count until the whole slot is a period ago. What is reserved counts as if it were sent at
// every moment until it is settled, since nobody knows when its bytes leave. Between messages it
// waits as long as each takes at the even pace, so that the bytes of a period do not go at once.
//
// A message larger than the limit goes alone, where nothing else counts, and the next one waits for
// as many periods as it took.
// Thread-safety: none; a value. Units: bytes.
class VolumeWindow {
 public:
  // What `Settle` is told of the reservation.
  struct Reserved {
    uint64_t bytes = 0;
    MonotonicTime paid_until{};
  };

  // What a ledger allows, once it is durable: see UseLedger.
  struct Promise {
    uint64_t ahead = 0;      // bytes that may be reserved then
    uint64_t unsettled = 0;  // these, and what is reserved now: may be sent until the process ends
    uint64_t generation = 0;
  };

  // The limit from now on; 0 bytes: nothing passes. What has been counted stays, also while there
  // is no limit.
  void Limit(MonotonicTime now, uint64_t bytes, Duration period) {
    if (limited_ && bytes == most_ && period == period_) return;
    Forbid();
    const double debt =
        most_ == 0 ? 0 : std::max<double>(0, Micros(theoretical_ - now)) / MicrosPerByte();
    const uint64_t counted = CountedAt(now) - reserved_;
    const MonotonicTime last = last_;
    limited_ = true;
    most_ = bytes;
    period_ = std::clamp<Duration>(period, Duration(1), kLongest);
    slot_ = std::max(Duration(1), period_ / kSlots + Duration(1));
    sent_.fill(0);
    newest_ = 0;
    if (counted > 0) Add(last, counted);
    if (most_ > 0 && debt > 0) theoretical_ = Later(now, debt * MicrosPerByte());
  }
  void Unlimit() { limited_ = false; }
  // Nothing passes for now; the limit and what has been counted stay.
  void Stop(bool stopped) { stopped_ = stopped; }

  bool limited() const { return limited_; }
  Duration period() const { return period_; }

  // From now on no more is to be reserved than a ledger allows: nothing before the first Allow, and
  // nothing any more when something else than Reserve and Settle has changed what counts.
  void UseLedger() {
    if (!std::exchange(ledgered_, true)) Forbid();
  }
  bool ledgered() const { return ledgered_; }
  uint64_t ahead() const { return ahead_; }  // where ledgered
  void Want(uint64_t bytes) { wanted_ = std::max(wanted_, bytes); }
  // What the ledger is to say now: a part of the limit, or what is wanted where that is more.
  Promise Ask(MonotonicTime now) {
    since_ask_ = 0;
    const bool rests = Rested(now) && wanted_ == 0 && ahead_ == 0;
    const uint64_t ahead =
        rests ? 0 : std::max({std::exchange(wanted_, 0), ahead_, most_ / kSlots});
    return {ahead, reserved_ + ahead, generation_};
  }
  void Allow(const Promise& promise) {
    if (promise.generation != generation_) return;
    ahead_ = promise.ahead - std::min(promise.ahead, since_ask_);
  }
  void Forbid() {
    ahead_ = 0;
    ++generation_;
  }

  // When a message of that size (0: not known) may begin, at the earliest, if nothing else does,
  // and what is reserved is sent; max() where never.
  MonotonicTime Next(MonotonicTime now, uint64_t size) const {
    if (!limited_) return now;
    if (most_ == 0 || stopped_) return MonotonicTime::max();
    size = std::max<uint64_t>(size, 1);  // of any size
    MonotonicTime next = std::max(now, theoretical_);
    uint64_t left = reserved_;
    for (const uint64_t sent : sent_) left += sent;
    const auto fits = [&] { return left == 0 || (size <= most_ && left <= most_ - size); };
    for (int64_t i = newest_ - kRing + 1; i <= newest_ && !fits(); ++i) {
      const uint64_t sent = At(i);
      if (sent == 0) continue;
      left -= sent;
      next = std::max(next, Forgotten(i));
    }
    return fits() ? next : std::max(next, now + period_ + slot_);
  }

  // How many messages of that size a stretch of this length lets pass one by one; at least one.
  size_t CountWithin(Duration length, uint64_t size) const {
    if (most_ == 0 || size == 0) return 1;
    const double count = Micros(length) / (static_cast<double>(size) * MicrosPerByte());
    return static_cast<size_t>(std::clamp<double>(count, 1, 1'000'000));
  }

  // A message begins; the caller has waited for Next.
  Reserved Reserve(MonotonicTime now, uint64_t size) {
    if (!limited_ || most_ == 0) return {};
    reserved_ += size;
    ahead_ -= std::min(ahead_, size);
    since_ask_ += size;
    theoretical_ = Later(std::max(theoretical_, now), static_cast<double>(size) * MicrosPerByte());
    return {size, theoretical_};
  }
  // It has ended: its bytes were sent until now, or none was.
  void Settle(MonotonicTime now, const Reserved& reserved, bool sent) {
    const uint64_t bytes = std::min(reserved.bytes, reserved_);
    reserved_ -= bytes;
    if (sent) {
      Add(now, bytes);
    } else if (most_ > 0 && reserved.paid_until == theoretical_) {  // nobody has gone by it since
      constexpr double kMost = static_cast<double>(kLongest.count());
      const double micros = std::min(static_cast<double>(bytes) * MicrosPerByte(), kMost);
      theoretical_ -= Duration(static_cast<int64_t>(micros));
    }
  }
  // So much was sent by somebody else, until now.
  void Count(MonotonicTime now, uint64_t bytes) {
    if (!limited_) return;
    Forbid();
    Add(now, bytes);
  }
  // As if all that may be sent had just been: what somebody before us sent until `now` is not
  // known.
  void Exhaust(MonotonicTime now) {
    if (!limited_ || most_ == 0) return;
    Forbid();
    Add(now, most_);
    unknown_until_ = std::max(unknown_until_, now);
  }
  // Whether that still keeps mail back.
  bool waits_for_unknown(MonotonicTime now) const {
    return limited_ && unknown_until_ != MonotonicTime{} && now <= unknown_until_ + period_ + slot_;
  }

  // What counts, for another window with the same limit. Times rise.
  struct Record {
    Duration period{};
    MonotonicTime paid_until{};
    std::vector<std::pair<MonotonicTime, uint64_t>> sent;  // bytes until then
  };
  // Of what is reserved, as if it were sent now, or nothing.
  Record RecordOf(MonotonicTime now, bool with_reserved = true) const {
    Record record{period_, theoretical_, {}};
    for (int64_t i = newest_ - kRing + 1; i <= newest_; ++i) {
      if (At(i) > 0 && Forgotten(i) > now) {
        record.sent.emplace_back(MonotonicTime(slot_ * (i + 1)) - Duration(1), At(i));
      }
    }
    if (reserved_ > 0 && with_reserved) {
      record.sent.emplace_back(std::max(now, MonotonicTime(slot_ * (newest_ + 1))), reserved_);
    }
    return record;
  }
  // After Limit. With another period than then all of it counts as sent at the last moment.
  // `unknown_until`: what was sent before was not known then either.
  void TakeOver(const Record& record, MonotonicTime unknown_until) {
    if (!limited_) return;
    Forbid();
    unknown_until_ = std::max(unknown_until_, unknown_until);
    for (const auto& [when, bytes] : record.sent) {
      Add(record.period == period_ ? when : record.sent.back().first, bytes);
    }
    theoretical_ = std::max(theoretical_, record.paid_until);
  }
  // Whether it would behave as a new one.
  bool Rested(MonotonicTime now) const {
    return reserved_ == 0 && theoretical_ <= now && CountedAt(now) == 0;
  }

 private:
  static constexpr int64_t kSlots = 32;
  // One is begun, and one is forgotten only when it ended a period ago.
  static constexpr int64_t kRing = kSlots + 2;
  static constexpr Duration kLongest{int64_t{1} << 50};

  static double Micros(Duration time) { return static_cast<double>(time.count()); }
  double MicrosPerByte() const { return Micros(period_) / static_cast<double>(most_); }
  static MonotonicTime Later(MonotonicTime time, double micros) {
    constexpr double kMost = static_cast<double>(kLongest.count());
    return std::min(time, MonotonicTime(kLongest * 8)) +
           Duration(static_cast<int64_t>(std::min(micros, kMost)) + 1);
  }
  static size_t Place(int64_t slot) { return static_cast<size_t>((slot % kRing + kRing) % kRing); }
  uint64_t At(int64_t slot) const { return sent_[Place(slot)]; }
  MonotonicTime Forgotten(int64_t slot) const {
    return MonotonicTime(slot_ * (slot + 1)) + period_;
  }
  uint64_t CountedAt(MonotonicTime now) const {
    uint64_t counted = reserved_;
    for (int64_t i = newest_ - kRing + 1; i <= newest_; ++i) {
      if (Forgotten(i) > now) counted += At(i);
    }
    return counted;
  }
  void Add(MonotonicTime now, uint64_t bytes) {
    if (most_ == 0) return;
    const int64_t slot = std::max(newest_, now.time_since_epoch() / slot_);
    if (slot - newest_ >= kRing) sent_.fill(0);
    for (int64_t i = std::max(newest_ + 1, slot - kRing + 1); i <= slot; ++i) sent_[Place(i)] = 0;
    newest_ = slot;
    sent_[Place(slot)] += bytes;
    last_ = now;
  }

  bool limited_ = false;
  bool stopped_ = false;
  bool ledgered_ = false;
  uint64_t ahead_ = 0;
  uint64_t wanted_ = 0;
  uint64_t since_ask_ = 0;  // reserved
  uint64_t generation_ = 0;
  uint64_t most_ = 0;
  Duration period_{1};
  Duration slot_{1};
  std::array<uint64_t, kRing> sent_{};
  int64_t newest_ = 0;
  uint64_t reserved_ = 0;
  MonotonicTime last_{};
  MonotonicTime theoretical_{};
  MonotonicTime unknown_until_{};
};

}  // namespace sluice::delivery
