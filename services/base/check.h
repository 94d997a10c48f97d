// Always-on assertions for broken invariants. What a peer, a disk or a network can cause is an
// absl::Status, never a CHECK.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace sluice::internal {
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, what);
  std::fflush(stderr);
  std::abort();
}
}  // namespace sluice::internal

// Aborts with file and line where `condition` does not hold, in every build.
#define SLUICE_CHECK(condition)                      \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::sluice::internal::CheckFailed(__FILE__, __LINE__, #condition))
