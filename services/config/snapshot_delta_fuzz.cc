// Two snapshots made of any bytes: the delta between them, in chunks of any size, leads from one to
// the other, and says nothing that did not change. And any bytes as a delta: what it leads to has
// the hash that it promises, each section its own, in order; or it is refused.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/config/snapshot_delta.h"
#include "services/config/snapshot_hash.h"

namespace {

using namespace sluice::config;  // NOLINT: a fuzzer is its own program
using sluice::policy::v1::PolicySnapshot;
using sluice::policy::v1::Section;
using sluice::policy::v1::SectionContent;
using sluice::policy::v1::SnapshotDelta;

// Lines "name content"; the last one of a name counts.
PolicySnapshot Make(std::string_view text, uint64_t version) {
  std::map<std::string, SectionContent> sections;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    const size_t blank = std::min(line.find(' '), line.size());
    std::string name(line.substr(0, blank));
    std::string value(line.substr(blank));
    for (std::string* each : {&name, &value}) {
      for (char& c : *each) c = static_cast<char>(c & 127);  // protobuf's strings are UTF-8
    }
    // Long ones, too, so that there is something to cut.
    value.append(value.size() * 7, 'x');
    sections[std::move(name)].mutable_virtual_mta()->set_name(std::move(value));
  }
  PolicySnapshot snapshot;
  snapshot.set_version(version);
  for (auto& [name, content] : sections) {
    *snapshot.add_sections() = MakeSection(name, std::move(content));
  }
  return snapshot;
}

void FromOneToTheOther(const PolicySnapshot& from, const PolicySnapshot& to, size_t max_bytes) {
  const SnapshotDelta delta = MakeDelta(from, to);
  SLUICE_CHECK(delta.changed_size() <= to.sections_size());
  SLUICE_CHECK(delta.removed_size() <= from.sections_size());
  const auto chunks = SplitDelta(delta, max_bytes);
  SLUICE_CHECK(!chunks.empty());
  SnapshotDelta whole = chunks[0];
  for (size_t i = 0; i < chunks.size(); ++i) {
    const int parts = chunks[i].changed_size() + chunks[i].removed_size();
    SLUICE_CHECK(chunks[i].ByteSizeLong() <= max_bytes || parts <= 1);
    SLUICE_CHECK(chunks.size() == 1 || parts >= 1);
    if (i == 0) continue;
    whole.mutable_changed()->MergeFrom(chunks[i].changed());
    whole.mutable_removed()->MergeFrom(chunks[i].removed());
  }
  const auto result = ApplyDelta(from, whole);
  SLUICE_CHECK(result.ok() && IsIntact(*result));
  SLUICE_CHECK(result->SerializeAsString() == to.SerializeAsString());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t middle = std::min(text.find('\0'), text.size());
  const PolicySnapshot from = Make(text.substr(0, middle), 7);
  const std::string_view rest = text.substr(std::min(middle + 1, text.size()));
  if (data[0] % 2 == 0) {
    const PolicySnapshot to = Make(rest, 8);
    FromOneToTheOther(from, to, size_t{16} + data[1] * 8);
    FromOneToTheOther(PolicySnapshot(), to, size_t{16} + data[1] * 8);
    FromOneToTheOther(to, to, 1000);
    SLUICE_CHECK(MakeDelta(to, to).changed_size() + MakeDelta(to, to).removed_size() == 0);
    return 0;
  }
  SnapshotDelta delta;
  if (!delta.ParseFromArray(rest.data(), static_cast<int>(rest.size()))) return 0;
  if (data[1] % 2 == 0) {
    // Hashes that are right, which nobody guesses.
    for (Section& section : *delta.mutable_changed()) {
      section.set_hash(HashContent(section.content()));
    }
    delta.set_base_version(data[1] % 4 == 0 ? 7 : 0);
  }
  const auto result = ApplyDelta(from, delta);
  if (!result.ok()) {
    SLUICE_CHECK(!result.status().message().empty());
    return 0;
  }
  SLUICE_CHECK(IsIntact(*result) && result->version() == delta.version());
  SLUICE_CHECK(SectionsHash(*result) == delta.sections_hash());
  return 0;
}
