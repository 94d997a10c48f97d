// What the disk may hold in the place of a directive file.
#include "services/config/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "gtest/gtest.h"
#include "services/base/testing/temp_folder.h"
#include "services/config/compiler.h"

namespace sluice::config {
namespace {

class DiskFilesTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }

  DiskFiles files_;
  const sluice::testing::TempFolder temp_{"files"};
  const std::string folder_ = temp_.path();
};

TEST_F(DiskFilesTest, AGigabyteIsRefusedWithoutBeingReadWhole) {
  // One line, of which the disk has nothing.
  ASSERT_EQ(close(open(Path("a.conf").c_str(), O_CREAT | O_WRONLY, 0600)), 0);
  ASSERT_EQ(truncate(Path("a.conf").c_str(), off_t{1} << 30), 0);
  EXPECT_TRUE(absl::IsResourceExhausted(files_.Read(Path("a.conf")).status()));
  const Compiled compiled = Compile({Path("a.conf")}, files_);
  EXPECT_EQ(Render(compiled.diagnostics), Path("a.conf") + ": error: it is larger than 64 MiB\n");
}

TEST_F(DiskFilesTest, PipesAndFoldersAreNoFiles) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsFailedPrecondition(files_.Read(Path("pipe")).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(files_.Read(folder_).status()));
  EXPECT_TRUE(absl::IsNotFound(files_.Read(Path("none")).status()));
}

TEST_F(DiskFilesTest, GlobsAreInOrderOfNameAndOfFilesOnly) {
  ASSERT_EQ(mkdir(Path("conf.d").c_str(), 0700), 0);
  ASSERT_EQ(mkdir(Path("conf.d/0.conf").c_str(), 0700), 0);
  std::ofstream(Path("conf.d/2.conf")) << "host-name two.test\n";
  std::ofstream(Path("conf.d/1.conf")) << "host-name one.test\n";
  std::ofstream(Path("conf.d/3.txt")) << "nonsense\n";
  std::ofstream(Path("a.conf")) << "include conf.d\n";
  const Compiled compiled = Compile({Path("a.conf")}, files_);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  const std::vector<std::string> expected = {Path("a.conf"), Path("conf.d/1.conf"),
                                             Path("conf.d/2.conf")};
  EXPECT_EQ(compiled.files, expected);
}

// The same folder again at each step: a walk of its own would never end.
TEST_F(DiskFilesTest, LinksThatGoInCirclesAreFollowedUpToTheLimit) {
  for (const char* link : {"x", "y", "z"}) {
    ASSERT_EQ(symlink(".", Path(link).c_str()), 0);
  }
  std::ofstream(Path("b.conf")) << "host-name b.test\n";
  std::ofstream(Path("a.conf")) << "include */*/b.conf\n";
  EXPECT_EQ(Compile({Path("a.conf")}, files_).files.size(), 1u + 9u);
  const std::string pattern = "*/*/*/*/*/*/*/*/*/*/*/*/*/*.conf";
  std::ofstream(Path("a.conf")) << "\n  include " + pattern + "\n" + "include " + pattern + "\n";
  const Compiled compiled = Compile({Path("a.conf")}, files_);
  EXPECT_EQ(Render(compiled.diagnostics),
            Path("a.conf") + ":2:11: error: \"" + Path(pattern) +
                "\": there are too many folders and files to look through\n    include " + pattern +
                "\n            ^\n  is it the folder that was meant?\n");
}

TEST_F(DiskFilesTest, APatternIsOneOfNamesNotOfPaths) {
  ASSERT_EQ(mkdir(Path("d").c_str(), 0700), 0);
  for (const char* name : {"d/1.conf", "d/.hidden.conf", "[1].conf", "1.conf", "2.conf"}) {
    std::ofstream(Path(name)) << "\n";
  }
  const auto found = [this](const std::string& pattern) {
    size_t entries = 100;
    const auto paths = files_.Glob(Path(pattern), &entries);
    std::string names;
    for (const std::string& path : *paths) names += path.substr(folder_.size() + 1) + " ";
    return names;
  };
  EXPECT_EQ(found("*.conf"), "1.conf 2.conf [1].conf ");
  EXPECT_EQ(found("[12].conf"), "1.conf 2.conf ");
  EXPECT_EQ(found("\\[1\\].conf"), "[1].conf ");
  EXPECT_EQ(found("*/*"), "d/1.conf ");
  EXPECT_EQ(found("d//?.conf"), "d//1.conf ");
  EXPECT_EQ(found("d/.*"), "d/.hidden.conf ");
  EXPECT_EQ(found("none/*"), "");
  size_t entries = 3;
  EXPECT_TRUE(absl::IsResourceExhausted(files_.Glob(Path("*"), &entries).status()));
  EXPECT_EQ(entries, 0u);
}

}  // namespace
}  // namespace sluice::config
