// What a compilation leaves for the next one: sections whose text is the same are neither read nor
// compiled again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// A run of lines of a file.
struct TextPart {
  std::string_view text;  // whole lines
  int first_line = 1;
  // `text` is from <domain PATTERN> to its </domain>, with no other section between, no include and
  // no macro. It means the same wherever it stands outside of sections.
  bool section = false;
};

// Cuts a file between statements, looking at the ends of lines only; what is not sure to be a
// section that can be kept is left among the rest. Pure; takes any bytes.
std::vector<TextPart> CutSections(std::string_view text);

// Of global <domain> sections: there may be ten thousands of them. Only sections of which nothing
// was to be said are kept. Thread-safety: one thread at a time. Bound: what the last compilation
// had, and its text.
class CompileCache {
 public:
  struct Entry {
    std::string pattern;
    uint32_t effective = 0;       // lines
    uint32_t aliases = 0;         // lines
    policy::v1::Section section;  // as in the snapshot; without a name where it is of no use
    uint64_t used = 0;            // the last compilation that used it
  };

  // What an earlier compilation made of this text; nullptr where there is nothing. The pointer is
  // valid until Turn().
  Entry* Find(std::string_view text) const;
  // Keeps what Find gave for the next compilation.
  void Use(Entry* entry) { entry->used = compilation_; }
  // A new entry of this compilation; as above.
  Entry* Keep(std::string_view text, Entry entry);
  // The compilation is over: what it did not use is forgotten.
  void Turn();

 private:
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> entries_;
  uint64_t compilation_ = 1;
};

}  // namespace sluice::config
