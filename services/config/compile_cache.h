// What a compilation leaves for the next one: sections whose lines are the same are not compiled
// again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/config/lexer.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// Of global <domain> sections: there may be ten thousands of them. Only sections of which nothing
// was to be said are kept. Thread-safety: one thread at a time. Bound: what the last compilation
// had.
class CompileCache {
 public:
  struct Entry {
    uint64_t fingerprint = 0;     // of the lines
    uint32_t effective = 0;       // lines
    uint32_t aliases = 0;         // lines
    policy::v1::Section section;  // as in the snapshot; without a name where it is of no use
  };

  // The end of the section that opens at `open`, where it could be kept: a plain pattern, and
  // nothing but directives inside.
  static std::optional<size_t> EndOf(const std::vector<Statement>& statements, size_t open);
  // The same for the same lines; others have the same one time in 2^64.
  static uint64_t FingerprintOf(const std::vector<Statement>& statements, size_t open, size_t end);

  // What the compilation before made of these lines; it is kept for the next one. nullptr where it
  // had none. The pointer is valid until Turn().
  const Entry* Take(const std::string& pattern, uint64_t fingerprint);
  // A new entry of this compilation; as above.
  Entry* Keep(const std::string& pattern, Entry entry);
  // The compilation is over.
  void Turn();

 private:
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> last_;
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> next_;
};

}  // namespace sluice::config
