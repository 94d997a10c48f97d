// Any bytes as a directive file: a snapshot that PolicyView takes, that can be read as it was
// written and that compiles to itself when printed, or diagnostics, within bounds. What stands
// behind a form feed is the file "x": more directives, users, header lines, a template, as the
// first one names it.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/printer.h"
#include "services/config/snapshot_hash.h"

namespace {
class OneFile final : public sluice::config::FileSource {
 public:
  // Behind the form feed of `whole`, where there is one.
  explicit OneFile(std::string_view whole)
      : exists_(whole.find('\f') != whole.npos), text_(whole.substr(whole.find('\f') + 1)) {}
  absl::StatusOr<std::string> Read(const std::string& path) override {
    if (path != "x" || !exists_) return absl::NotFoundError("no such file here");
    return text_;
  }
  absl::StatusOr<std::vector<std::string>> Glob(const std::string&, size_t*) override {
    return std::vector<std::string>();
  }

 private:
  const bool exists_;
  const std::string text_;
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view whole(reinterpret_cast<const char*>(data), size);
  const std::string_view input = whole.substr(0, whole.find('\f'));
  OneFile files(whole);
  const auto compiled = sluice::config::CompileText("f", input, files);
  // The same again, and again with what that left. Of some inputs only: it takes most of the time.
  sluice::config::CompileCache cache;
  sluice::config::CompileOptions options;
  options.cache = &cache;
  for (int i = 0; i < 2 && size % 4 == 0; ++i) {
    const auto other = sluice::config::CompileText("f", input, files, options);
    SLUICE_CHECK(other.ok() == compiled.ok());
    SLUICE_CHECK(sluice::config::Render(other.diagnostics) ==
                 sluice::config::Render(compiled.diagnostics));
    SLUICE_CHECK(!compiled.ok() || sluice::config::SectionsHash(other.snapshot) ==
                                       sluice::config::SectionsHash(compiled.snapshot));
  }
  SLUICE_CHECK(compiled.diagnostics.size() <= 4'002);
  for (const auto& diagnostic : compiled.diagnostics) {
    const std::string text = diagnostic.ToString();
    SLUICE_CHECK(!text.empty());
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = sluice::config::Utf8Bytes(text, at);
      SLUICE_CHECK(bytes > 0);
      at += bytes;
    }
  }
  if (!compiled.ok()) return 0;
  sluice::policy::v1::PolicySnapshot read;
  SLUICE_CHECK(read.ParseFromString(compiled.snapshot.SerializeAsString()));
  const auto view = sluice::config::PolicyView::Build(compiled.snapshot);
  SLUICE_CHECK(view.ok());
  SLUICE_CHECK((*view)->ForQueue("example.com", "default", "") != nullptr);
  SLUICE_CHECK((*view)->ForClient("127.0.0.1") != nullptr);
  if (input.size() < whole.size()) return 0;  // lines of other files are shown, and not compiled
  const auto again = sluice::config::CompileText(
      "g", sluice::config::PrintSnapshot(compiled.snapshot, true), files);
  SLUICE_CHECK(again.ok());
  SLUICE_CHECK(sluice::config::SectionsHash(compiled.snapshot) ==
               sluice::config::SectionsHash(again.snapshot));
  return 0;
}
