// Any text as a PowerMTA configuration: it is read as the compiler reads it, and what is written
// means the same, says no more, and is what a second migration would write.
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/config/compiler.h"
#include "services/config/migrate.h"
#include "services/config/testing/memory_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::config;  // NOLINT: a fuzzer is its own program
  sluice::config::testing::MemoryFiles files;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // Two files: what stands behind a form feed is the one that "include x" reads.
  const size_t end = input.find('\f');
  files.files["/c/config"] = std::string(input.substr(0, end));
  if (end != input.npos) files.files["/c/x"] = std::string(input.substr(end + 1));
  const Migration migration = Migrate("/c/config", files);
  const auto compiled = Compile({"/c/config"}, files);
  SLUICE_CHECK(Render(compiled.diagnostics) == Render(migration.diagnostics));
  SLUICE_CHECK(!compiled.ok() || migration.equivalent);
  return 0;
}
