// Proves where lines go: the file, a new one each day with so many old ones beside it, one that
// somebody moved away, and what is said where it cannot be written.
#include "services/base/log/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"

namespace sluice {
namespace {

class LogFileTest : public ::testing::Test {
 protected:
  LogFileTest() { options_.path = folder_ + "/s.log"; }

  std::string Text(const std::string& name) {
    std::ifstream file(folder_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t Files() {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }
  unsigned Mode() {
    struct stat facts {};
    EXPECT_EQ(stat(options_.path.c_str(), &facts), 0);
    return facts.st_mode & 0777u;
  }
  // A file's time is the machine's, and the clock is ours: files are as old as the clock says.
  void Date(const std::string& name) {
    const int64_t us = ToUnixMicros(executor_.clock().WallNow());
    const timespec times[2] = {{us / 1'000'000, 0}, {us / 1'000'000, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, (folder_ + "/" + name).c_str(), times, 0), 0);
  }

  testing::ManualExecutor executor_;
  const sluice::testing::TempFolder temp_{"log"};
  const std::string folder_ = temp_.path();
  LogFileOptions options_;
  LogFile file_{executor_.clock()};
};

TEST_F(LogFileTest, LinesAreAppendedAndOnlyTheOwnerAndTheGroupReadThem) {
  EXPECT_FALSE(file_.Write("nowhere"));
  ASSERT_TRUE(file_.Use(options_).ok());
  EXPECT_TRUE(file_.Write("one"));
  ASSERT_TRUE(file_.Use(options_).ok());
  EXPECT_TRUE(file_.Write("two"));
  EXPECT_EQ(Text("s.log"), "one\ntwo\n");
  EXPECT_EQ(Mode(), 0640u);
  options_.world_readable = true;
  ASSERT_TRUE(file_.Use(options_).ok());
  EXPECT_EQ(Mode(), 0644u);
  EXPECT_EQ(Text("s.log"), "one\ntwo\n");
}

TEST_F(LogFileTest, EachDayHasItsFileAndSoManyOldOnesAreKept) {
  options_.keep = 2;
  ASSERT_TRUE(file_.Use(options_).ok());
  for (int day = 0; day < 5; ++day) {
    EXPECT_TRUE(file_.Write("day " + std::to_string(day)));
    executor_.Advance(std::chrono::hours(24));
  }
  EXPECT_EQ(Text("s.log"), "day 4\n");
  EXPECT_EQ(Text("s.log.1"), "day 3\n");
  EXPECT_EQ(Text("s.log.2"), "day 2\n");
  EXPECT_EQ(Files(), 3u);
  options_.keep = 0;
  ASSERT_TRUE(file_.Use(options_).ok());
  Date("s.log");
  executor_.Advance(std::chrono::hours(24));
  ASSERT_TRUE(file_.Use({}).ok());
  ASSERT_TRUE(file_.Use(options_).ok());  // as after a restart
  executor_.Advance(std::chrono::seconds(2));
  EXPECT_TRUE(file_.Write("later"));
  EXPECT_EQ(Text("s.log"), "later\n");
  EXPECT_EQ(Text("s.log.1"), "day 3\n");
}

TEST_F(LogFileTest, WithoutDailyTheFileGoesOn) {
  options_.daily = false;
  ASSERT_TRUE(file_.Use(options_).ok());
  EXPECT_TRUE(file_.Write("one"));
  executor_.Advance(std::chrono::hours(72));
  EXPECT_TRUE(file_.Write("two"));
  EXPECT_EQ(Text("s.log"), "one\ntwo\n");
}

TEST_F(LogFileTest, AFileThatSomebodyMovedIsOpenedAnew) {
  ASSERT_TRUE(file_.Use(options_).ok());
  EXPECT_TRUE(file_.Write("one"));
  std::filesystem::rename(options_.path, folder_ + "/moved");
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(file_.Write("two"));
  EXPECT_EQ(Text("moved"), "one\n");
  EXPECT_EQ(Text("s.log"), "two\n");
}

TEST_F(LogFileTest, WhatCannotBeWrittenIsSaidAndTriedAgain) {
  options_.path = folder_ + "/none/s.log";
  const absl::Status status = file_.Use(options_);
  EXPECT_NE(std::string(status.message()).find("none/s.log: No such file"), std::string::npos)
      << status.message();
  EXPECT_FALSE(file_.Write("lost"));
  std::filesystem::create_directory(folder_ + "/none");
  EXPECT_FALSE(file_.Write("within the second"));
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(file_.Write("one"));
  EXPECT_EQ(Text("none/s.log"), "one\n");
}

}  // namespace
}  // namespace sluice
