// Proves that folders of tests go with what is in them, also those of tests that were killed.
#include "services/base/testing/temp_folder.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace sluice::testing {
namespace {

// Looks as if it had been made an hour ago.
void MakeOld(const std::string& folder) {
  const timespec hour_ago{::time(nullptr) - 3600, 0};
  const timespec times[] = {hour_ago, hour_ago};
  ASSERT_EQ(::utimensat(AT_FDCWD, folder.c_str(), times, 0), 0);
}

// In a process of its own, as each sweeps once.
template <class Work>
int InChild(Work work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(TempFolder, GoesWithAllThatIsInIt) {
  std::string path;
  {
    TempFolder folder("goes");
    path = folder.path();
    std::filesystem::create_directories(folder.File("a/b"));
    std::ofstream(folder.File("a/b/c")) << "x";
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(TempFolder, WhatAKilledTestLeftIsRemovedByTheNextOne) {
  TempFolder parent("parent");
  const int status = InChild([&] {
    TempFolder left("left", parent.path());
    std::ofstream(left.File("file")) << "x";
    MakeOld(left.path());
    ::kill(::getpid(), SIGKILL);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  std::filesystem::create_directory(parent.File("sluice-test-young-123456"));
  std::filesystem::create_directory(parent.File("somebody-elses"));
  MakeOld(parent.File("somebody-elses"));
  const auto count = [&] {
    return std::distance(std::filesystem::directory_iterator(parent.path()), {});
  };
  ASSERT_EQ(count(), 3);
  EXPECT_EQ(InChild([&] { TempFolder next("next", parent.path()); }), 0);
  EXPECT_EQ(count(), 2);
  EXPECT_TRUE(std::filesystem::exists(parent.File("sluice-test-young-123456")));
  EXPECT_TRUE(std::filesystem::exists(parent.File("somebody-elses")));
}

TEST(TempFolder, WhatIsInUseStays) {
  TempFolder parent("parent");
  TempFolder used("used", parent.path());
  MakeOld(used.path());
  EXPECT_EQ(InChild([&] { TempFolder next("next", parent.path()); }), 0);
  EXPECT_TRUE(std::filesystem::exists(used.path()));
}

}  // namespace
}  // namespace sluice::testing
