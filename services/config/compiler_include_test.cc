// Files that include others.
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

TEST(CompilerTest, AFolderIsIncludedAsItsConfFiles) {
  MemoryFiles files;
  files.files["/etc/a.conf"] = "include config.d\ninclude more/\n";
  files.files["/etc/config.d/1.conf"] = "host-name one.test\n";
  files.files["/etc/more/2.conf"] = "postmaster a@b.test\n";
  const Compiled compiled = Compile({"/etc/a.conf"}, files);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.files.size(), 3u);
}

// What is past the limit is not even read from the disk.
TEST(CompilerTest, ABombOfIncludesIsReadUpToTheLimit) {
  struct Counting final : FileSource {
    absl::StatusOr<std::string> Read(const std::string& path) override {
      ++reads;
      if (path == "bomb.conf") return bomb;
      return std::string(size_t{90} << 20, 'x');
    }
    absl::StatusOr<std::vector<std::string>> Glob(const std::string&, size_t*) override {
      return std::vector<std::string>();
    }
    std::string bomb;
    int reads = 0;
  } files;
  for (const std::string line : {"include big\n", "include-headers-from big\n"}) {
    files.bomb.clear();
    for (int i = 0; i < 900; ++i) files.bomb += line;
    files.reads = 0;
    const Compiled compiled = Compile({"bomb.conf"}, files);
    EXPECT_FALSE(compiled.ok());
    EXPECT_LE(files.reads, 5) << line;
    EXPECT_NE(Render(compiled.diagnostics)
                  .find("bomb.conf:3:" + std::to_string(line.size() - 3) +
                        ": error: the files are larger than 256 MiB together"),
              std::string::npos)
        << Render(compiled.diagnostics);
  }
}

// One message, where it went too far, whatever comes after it.
TEST(CompilerTest, MoreFilesThanAnyConfigurationHasAreNotRead) {
  MemoryFiles files;
  files.files["a.conf"] = "host-name a.test\ninclude d/*\ninclude e/1\ninclude d/*\n";
  files.files["e/1"] = "";
  for (int i = 0; i < 10'100; ++i) files.files["d/" + std::to_string(i)] = "";
  const Compiled compiled = Compile({"a.conf"}, files);
  EXPECT_EQ(Render(compiled.diagnostics),
            "a.conf:2:9: error: more than 10000 files are included\n"
            "  include d/*\n"
            "          ^\n"
            "  is it the folder that was meant?\n");
  EXPECT_EQ(compiled.files.size(), 10'000u);
}

// A pattern in each of many files: what one may look at is what they may together.
TEST(CompilerTest, PatternsHaveOneBoundTogether) {
  MemoryFiles files;
  for (int i = 0; i < 5'000; ++i) files.files["d/" + std::to_string(i)] = "include none/*\n";
  files.files["a.conf"] = "include d/*\n";
  const Compiled compiled = Compile({"a.conf"}, files);
  ASSERT_EQ(compiled.diagnostics.size(), 19u);  // nothing matches, until enough has been looked at
  EXPECT_TRUE(compiled.diagnostics.back().ToString().find(
                  "\"d/none/*\": too many files to look through") != std::string::npos)
      << compiled.diagnostics.back().ToString();
}

TEST(CompilerTest, IncludesReadAsIfWrittenThere) {
  MemoryFiles files;
  files.files["/etc/a.conf"] = "include conf.d/*.conf\n<domain x.test>\n  include x\n</domain>\n";
  files.files["/etc/conf.d/1.conf"] = "host-name one.test\n";
  files.files["/etc/conf.d/2.conf"] = "host-name two.test\n";
  files.files["/etc/x"] = "max-smtp-out 3\n";
  const Compiled compiled = Compile({"/etc/a.conf"}, files);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.files.size(), 4u);
  const auto view = *PolicyView::Build(compiled.snapshot);
  EXPECT_EQ(view->global().host_name(), "two.test");
  EXPECT_EQ(view->ForQueue("x.test", "default", "")->max_smtp_out(), 3u);
}

TEST(CompilerTest, IncludesThatCannotBe) {
  MemoryFiles files;
  files.files["/etc/a.conf"] = "include b.conf\n";
  files.files["/etc/b.conf"] = "include ../etc/a.conf\n";
  Compiled compiled = Compile({"/etc/a.conf"}, files);
  ASSERT_EQ(compiled.diagnostics.size(), 1u);
  EXPECT_TRUE(compiled.diagnostics[0].ToString().starts_with("/etc/b.conf:1:9: error: "))
      << compiled.diagnostics[0].ToString();

  // A section ends in the file in which it began.
  files.files["/etc/a.conf"] = "<domain x>\ninclude b.conf\n</domain>\n";
  files.files["/etc/b.conf"] = "</domain>\n";
  EXPECT_FALSE(Compile({"/etc/a.conf"}, files).ok());
  compiled = Compile({"/etc/none.conf"}, files);
  ASSERT_EQ(compiled.diagnostics.size(), 1u);
  EXPECT_EQ(compiled.diagnostics[0].ToString(), "/etc/none.conf: error: cannot open it");

  // Each includes the next one twice: 2^n files without a bound.
  for (int i = 0; i < 19; ++i) {
    const std::string next = "/w/" + std::to_string(i + 1);
    files.files["/w/" + std::to_string(i)] = "include " + next + "\ninclude " + next + "\n";
  }
  EXPECT_FALSE(Compile({"/w/0"}, files).ok());
}

}  // namespace
}  // namespace sluice::config
