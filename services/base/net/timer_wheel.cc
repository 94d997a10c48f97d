#include "services/base/net/timer_wheel.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace sluice {

void Deadline::Set(MonotonicTime when) {
  uint64_t tick = wheel_->TickAtOrAfter(when);
  when_tick_ = tick;
  if (link_.next != nullptr) {
    if (slot_tick_ <= tick) return;
    Unlink();
  }
  slot_tick_ = tick;
  link_.owner = this;
  wheel_->Insert(this);
}

Deadline::~Deadline() {
  Unlink();
  if (wheel_->running_ == this) wheel_->running_ = nullptr;
}

void Deadline::SetAfter(Duration delay) { Set(wheel_->clock_.Now() + delay); }

void Deadline::Unlink() {
  if (link_.next == nullptr) return;
  link_.previous->next = link_.next;
  link_.next->previous = link_.previous;
  link_.previous = link_.next = nullptr;
}

TimerWheel::TimerWheel(const Clock& clock) : clock_(clock), origin_(clock.Now()) {
  due_.previous = due_.next = &due_;
  for (auto& level : slots_) {
    for (Link& slot : level) slot.previous = slot.next = &slot;
  }
}

uint64_t TimerWheel::TickAtOrAfter(MonotonicTime when) const {
  if (when <= origin_) return 0;
  // The far future stays below kNever.
  int64_t us = std::min<int64_t>((when - origin_).count(), INT64_MAX / 2);
  return static_cast<uint64_t>((us + kTick.count() - 1) / kTick.count());
}

void TimerWheel::Append(Link* list, Link* node) {
  node->previous = list->previous;
  node->next = list;
  list->previous->next = node;
  list->previous = node;
}

void TimerWheel::SpliceAll(Link* from, Link* to) {
  if (from->next == from) return;
  from->next->previous = to->previous;
  to->previous->next = from->next;
  from->previous->next = to;
  to->previous = from->previous;
  from->previous = from->next = from;
}

void TimerWheel::Insert(Deadline* deadline) {
  uint64_t tick = deadline->slot_tick_;
  if (tick <= current_tick_) {
    Append(&due_, &deadline->link_);
    return;
  }
  uint64_t distance = tick - current_tick_;
  constexpr uint64_t kFurthest = (uint64_t{1} << (kLevelBits * kLevels)) - 1;
  if (distance > kFurthest) {
    distance = kFurthest;
    tick = deadline->slot_tick_ = current_tick_ + kFurthest;
  }
  int level = (std::bit_width(distance) - 1) / kLevelBits;
  size_t slot = (tick >> (level * kLevelBits)) % kSlots;
  Append(&slots_[level][slot], &deadline->link_);
  occupied_[level][slot / 64] |= uint64_t{1} << (slot % 64);
}

uint64_t TimerWheel::NextTick() const {
  uint64_t best = Deadline::kNever;
  for (int level = 0; level < kLevels; ++level) {
    const auto& words = occupied_[level];
    uint64_t position = current_tick_ >> (level * kLevelBits);
    // Slots come up in the order position+1 ... position+kSlots, whole words at a time.
    for (uint64_t distance = 1; distance <= kSlots;) {
      size_t slot = (position + distance) % kSlots;
      uint64_t word = words[slot / 64] >> (slot % 64);
      if (word != 0) {
        distance += std::countr_zero(word);
        if (distance <= kSlots) {
          best = std::min(best, (position + distance) << (level * kLevelBits));
        }
        break;
      }
      distance += 64 - slot % 64;
    }
  }
  return best;
}

void TimerWheel::CascadeAt(uint64_t tick) {
  for (int level = kLevels - 1; level >= 1; --level) {
    if (tick % (uint64_t{1} << (level * kLevelBits)) != 0) continue;
    size_t slot = (tick >> (level * kLevelBits)) % kSlots;
    Link moved;
    moved.previous = moved.next = &moved;
    SpliceAll(&slots_[level][slot], &moved);
    occupied_[level][slot / 64] &= ~(uint64_t{1} << (slot % 64));
    while (moved.next != &moved) {
      Deadline* deadline = static_cast<Deadline::NodeLink*>(moved.next)->owner;
      deadline->Unlink();
      if (deadline->when_tick_ == Deadline::kNever) continue;
      deadline->slot_tick_ = deadline->when_tick_;
      Insert(deadline);
    }
  }
}

void TimerWheel::Advance(MonotonicTime now) {
  Link firing;
  firing.previous = firing.next = &firing;
  SpliceAll(&due_, &firing);
  uint64_t now_tick =
      now <= origin_ ? 0 : static_cast<uint64_t>((now - origin_).count() / kTick.count());
  while (current_tick_ < now_tick) {
    uint64_t next = NextTick();
    if (next > now_tick) {
      current_tick_ = now_tick;
      break;
    }
    current_tick_ = next;
    CascadeAt(next);
    size_t slot = next % kSlots;
    SpliceAll(&slots_[0][slot], &firing);
    occupied_[0][slot / 64] &= ~(uint64_t{1} << (slot % 64));
    SpliceAll(&due_, &firing);
  }
  while (firing.next != &firing) {
    Deadline* deadline = static_cast<Deadline::NodeLink*>(firing.next)->owner;
    deadline->Unlink();
    if (deadline->when_tick_ == Deadline::kNever) continue;
    if (deadline->when_tick_ > current_tick_) {
      deadline->slot_tick_ = deadline->when_tick_;
      Insert(deadline);
      continue;
    }
    deadline->when_tick_ = Deadline::kNever;
    // Moved out for the call, because the callback may destroy its deadline.
    auto on_expired = std::move(deadline->on_expired_);
    running_ = deadline;
    on_expired();
    if (running_ != nullptr) deadline->on_expired_ = std::move(on_expired);
    running_ = nullptr;
  }
}

std::optional<MonotonicTime> TimerWheel::NextWake() const {
  if (due_.next != &due_) return origin_;
  uint64_t next = NextTick();
  if (next == Deadline::kNever) return std::nullopt;
  return origin_ + kTick * static_cast<int64_t>(next);
}

}  // namespace sluice
