#include "services/config/snapshot_hash.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace sluice::config {
namespace {

constexpr uint64_t kSeed = 0xcbf29ce484222325;

// FNV-1a; absl's hash is seeded by process and would differ between the ends.
uint64_t Mix(uint64_t hash, std::string_view bytes) {
  for (const char c : bytes) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3;
  }
  return hash;
}

uint64_t Finish(uint64_t hash) {
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccd;
  hash ^= hash >> 33;
  return hash == 0 ? 1 : hash;
}

}  // namespace

uint64_t HashContent(const policy::v1::SectionContent& content) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    content.SerializeToCodedStream(&coded);
  }
  return Finish(Mix(kSeed, bytes));
}

policy::v1::Section MakeSection(std::string name, policy::v1::SectionContent content) {
  policy::v1::Section section;
  section.set_name(std::move(name));
  section.set_hash(HashContent(content));
  *section.mutable_content() = std::move(content);
  return section;
}

void SortSections(policy::v1::PolicySnapshot* snapshot) {
  auto* sections = snapshot->mutable_sections();
  std::sort(sections->pointer_begin(), sections->pointer_end(),
            [](const auto* a, const auto* b) { return a->name() < b->name(); });
}

uint64_t SectionsHash(const policy::v1::PolicySnapshot& snapshot) {
  uint64_t hash = kSeed;
  for (const policy::v1::Section& section : snapshot.sections()) {
    hash = Mix(hash, section.name());
    char bytes[9] = {};  // the NUL keeps names and hashes apart
    for (int i = 0; i < 8; ++i) bytes[i + 1] = static_cast<char>(section.hash() >> (8 * i));
    hash = Mix(hash, std::string_view(bytes, sizeof(bytes)));
  }
  return Finish(hash);
}

}  // namespace sluice::config
