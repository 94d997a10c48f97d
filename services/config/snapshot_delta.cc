#include "services/config/snapshot_delta.h"

#include <map>
#include <string>
#include <string_view>
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
  if (delta.base_version() != 0 && delta.base_version() != base.version()) {
    return absl::DataLossError(absl::StrCat("a delta from version ", delta.base_version(),
                                            ", but version ", base.version(), " is here"));
  }
  const auto wrong_hash = [&] {
    return absl::DataLossError(
        absl::StrCat("version ", delta.version(), " has not the hash that it should have"));
  };
  // A removed section has no content. What stays was checked when it came.
  std::map<std::string_view, Section*> changes;
  for (const std::string& name : delta.removed()) changes[name] = nullptr;
  for (Section& section : *delta.mutable_changed()) {
    if (HashContent(section.content()) != section.hash()) return wrong_hash();
    changes[section.name()] = &section;
  }
  PolicySnapshot result;
  result.set_version(delta.version());
  result.set_compiled_unix_us(delta.compiled_unix_us());
  if (delta.base_version() != 0) {
    result.mutable_sections()->Reserve(base.sections_size() + delta.changed_size());
  }
  auto change = changes.begin();
  const auto add = [&](Section* section) {
    if (section != nullptr) *result.add_sections() = std::move(*section);
  };
  for (int i = 0; delta.base_version() != 0 && i < base.sections_size(); ++i) {
    const Section& section = base.sections(i);
    // The names are those of sections, and moved away with them: compared before that.
    while (change != changes.end() && change->first < section.name()) add((change++)->second);
    if (change != changes.end() && change->first == section.name()) {
      add((change++)->second);
    } else {
      *result.add_sections() = section;
    }
  }
  while (change != changes.end()) add((change++)->second);
  if (SectionsHash(result) != delta.sections_hash()) return wrong_hash();
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
