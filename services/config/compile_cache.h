// What a compilation leaves for the next one: sections whose lines are the same are not compiled
// again.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/config/lexer.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {

// Of global <domain> sections: there may be ten thousands of them. Only sections of which nothing
// was to be said are kept. Thread-safety: one thread at a time. Bound: what the last compilation
// had.
class CompileCache {
 public:
  struct Entry {
    std::string pattern;
    policy::v1::QueueSettings settings;
    uint32_t effective = 0;  // lines
    uint32_t aliases = 0;
    uint64_t hash = 0;  // of the section that has these settings alone; 0: not known
  };

  // The end of the section that opens at `open`, where it could be kept: a plain pattern, and
  // nothing but directives inside.
  static std::optional<size_t> EndOf(const std::vector<Statement>& statements, size_t open);
  // The same for the same lines, and for no others.
  static std::string KeyOf(const std::vector<Statement>& statements, size_t open, size_t end);

  // Of the compilation before; nullptr where it had none.
  const Entry* Find(const std::string& key) const;
  void Keep(std::string key, Entry entry) {
    next_.insert_or_assign(std::move(key), std::move(entry));
  }
  Entry* FindKept(const std::string& key);
  // The compilation is over.
  void Turn();

 private:
  absl::flat_hash_map<std::string, Entry> last_;
  absl::flat_hash_map<std::string, Entry> next_;
};

}  // namespace sluice::config
