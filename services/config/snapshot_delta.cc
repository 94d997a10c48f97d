#include "services/config/snapshot_delta.h"

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/config/snapshot_hash.h"

namespace sluice::config {

using policy::v1::PolicySnapshot;
using policy::v1::Section;
using policy::v1::SnapshotDelta;

SnapshotDelta MakeDelta(const PolicySnapshot& base, const PolicySnapshot& target) {
  SnapshotDelta delta;
  delta.set_base_version(base.version());
  delta.set_version(target.version());
  delta.set_compiled_unix_us(target.compiled_unix_us());
  delta.set_sections_hash(SectionsHash(target));
  int old = 0;
  for (const Section& section : target.sections()) {
    while (old < base.sections_size() && base.sections(old).name() < section.name()) {
      delta.add_removed(base.sections(old++).name());
    }
    if (old < base.sections_size() && base.sections(old).name() == section.name()) {
      const bool same = base.sections(old++).hash() == section.hash();
      if (same) continue;
    }
    *delta.add_changed() = section;
  }
  while (old < base.sections_size()) delta.add_removed(base.sections(old++).name());
  return delta;
}

std::vector<SnapshotDelta> SplitDelta(SnapshotDelta delta, size_t max_bytes) {
  SnapshotDelta head = delta;
  head.clear_changed();
  head.clear_removed();
  std::vector<SnapshotDelta> chunks{head};
  size_t bytes = head.ByteSizeLong();
  const auto make_room = [&](size_t size) {
    if (bytes > head.ByteSizeLong() && bytes + size > max_bytes) {
      chunks.push_back(head);
      bytes = head.ByteSizeLong();
    }
    bytes += size;
  };
  // Tags and lengths: at most 8 bytes each.
  for (std::string& name : *delta.mutable_removed()) {
    make_room(name.size() + 8);
    chunks.back().add_removed(std::move(name));
  }
  for (Section& section : *delta.mutable_changed()) {
    make_room(section.ByteSizeLong() + 8);
    *chunks.back().add_changed() = std::move(section);
  }
  return chunks;
}

absl::StatusOr<PolicySnapshot> ApplyDelta(const PolicySnapshot& base, SnapshotDelta delta) {
  std::map<std::string, Section> sections;
  if (delta.base_version() != 0) {
    if (delta.base_version() != base.version()) {
      return absl::DataLossError(absl::StrCat("a delta from version ", delta.base_version(),
                                              ", but version ", base.version(), " is here"));
    }
    for (const Section& section : base.sections()) sections[section.name()] = section;
  }
  for (const std::string& name : delta.removed()) sections.erase(name);
  for (Section& section : *delta.mutable_changed()) {
    std::string name = section.name();
    sections[std::move(name)] = std::move(section);
  }
  PolicySnapshot result;
  result.set_version(delta.version());
  result.set_compiled_unix_us(delta.compiled_unix_us());
  for (auto& [name, section] : sections) *result.add_sections() = std::move(section);
  if (!IsIntact(result) || SectionsHash(result) != delta.sections_hash()) {
    return absl::DataLossError(
        absl::StrCat("version ", delta.version(), " has not the hash that it should have"));
  }
  return result;
}

bool IsIntact(const PolicySnapshot& snapshot) {
  for (int i = 0; i < snapshot.sections_size(); ++i) {
    const Section& section = snapshot.sections(i);
    if (HashContent(section.content()) != section.hash()) return false;
    if (i > 0 && !(snapshot.sections(i - 1).name() < section.name())) return false;
  }
  return true;
}

}  // namespace sluice::config
