// The examples of services/queue/doc/storage_format.md are what the code writes, and every family
// and row type that the code has is in the document.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "services/queue/core/key_codec.h"
#include "sluice/queue/v1/storage.pb.h"

namespace sluice::queue {
namespace {

std::string Hex(const std::string& bytes) { return absl::BytesToHexString(bytes); }

std::string Document() {
  std::ifstream file("services/queue/doc/storage_format.md");
  EXPECT_TRUE(file.good());
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(StorageFormat, TheExamplesOfTheDocumentAreWhatTheCodeWrites) {
  constexpr uint64_t kKey = 0x0006'42a1'b2c3'd4e5;  // a storage key of the year 2025
  v1::FormatRow format;
  format.set_version(1);
  format.set_least_reader(1);
  const std::vector<std::pair<const char*, std::string>> examples = {
      {"storage key", U64Key(kKey)},
      {"queue row", QueueRowKey(7)},
      {"lane row", LaneRowKey(7, LaneOf("news", 50))},
      {"lane of job news, priority 50", U64Key(LaneOf("news", 50))},
      {"lane of no job, priority 90", U64Key(LaneOf("", 90))},
      {"lane of no job, priority 50", U64Key(LaneOf("", 50))},
      {"delivery", DeliveryKey{7, 0, 0x0006'42a1'b2c3'ffff, kKey, 2}.Encode()},
      {"outstanding count", CountKey(kKey)},
      {"body chunk 3", BodyChunkKey(kKey, 3)},
      {"upload row", UploadRowKey(kKey)},
      {"index by sender a@b", IndexKey(IndexKind::kSender, "a@b", kKey)},
      {"position of recipient 2", PositionKey(kKey, 2)},
      {"format row's value", format.SerializeAsString()},
  };
  const std::string document = Document();
  for (const auto& [what, bytes] : examples) {
    const std::string line = std::string("| ") + what + " | `" + Hex(bytes) + "` |";
    EXPECT_NE(document.find(line), std::string::npos) << "the document should say\n" << line;
  }
}

TEST(StorageFormat, EveryFamilyAndRowIsDescribed) {
  const std::string document = Document();
  for (const char* family : {"meta", "queues", "messages", "bodies", "deliveries", "leases",
                             "events", "index", "keys"}) {
    EXPECT_NE(document.find(std::string("| `") + family + "` |"), std::string::npos) << family;
  }
  const auto* file = v1::FormatRow::descriptor()->file();
  for (int i = 0; i < file->message_type_count(); ++i) {
    const std::string& name = file->message_type(i)->name();
    EXPECT_NE(document.find("`" + name + "`"), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace sluice::queue
