// Lets an object that calls out notice that the call destroyed it.
#pragma once

namespace sluice {

// On the stack around a callback; the owner keeps a `DestructionGuard*` and tells the guard from
// its destructor. Guards of one owner nest. Thread-safety: none.
class DestructionGuard {
 public:
  explicit DestructionGuard(DestructionGuard** slot) : slot_(slot), outer_(*slot) { Enter(); }
  ~DestructionGuard() {
    if (!destroyed_) *slot_ = outer_;
  }
  DestructionGuard(const DestructionGuard&) = delete;
  DestructionGuard& operator=(const DestructionGuard&) = delete;

  // Called from the owner's destructor with what its slot holds, which may be null.
  static void OwnerDestroyed(DestructionGuard* innermost) {
    for (; innermost != nullptr; innermost = innermost->outer_) innermost->destroyed_ = true;
  }
  bool owner_destroyed() const { return destroyed_; }

 private:
  // Out of line: GCC 12 takes the store for a dangling pointer, and misses the destructor.
  [[gnu::noinline]] void Enter() { *slot_ = this; }

  DestructionGuard** slot_;
  DestructionGuard* outer_;
  bool destroyed_ = false;
};

}  // namespace sluice
