// Proves what counts as memory in use: of the machine without its caches, of a control group with a
// limit, and nothing where there is none.
#include "services/node/memory_usage.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "services/base/testing/temp_folder.h"

namespace sluice::node {
namespace {

class MemoryUsageTest : public ::testing::Test {
 protected:
  void Put(const std::string& name, const std::string& text) {
    const std::filesystem::path path = root_ + "/" + name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  uint32_t Percent() { return MemoryUsagePercent(root_ + "/proc", root_ + "/cgroup"); }

  const sluice::testing::TempFolder temp_{"memory"};
  const std::string root_ = temp_.path();
};

TEST_F(MemoryUsageTest, OfTheMachineOrOfTheGroupWhicheverIsMore) {
  EXPECT_EQ(Percent(), 0u);
  Put("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  50 kB\nMemAvailable:   400 kB\n");
  EXPECT_EQ(Percent(), 60u);
  Put("proc/self/cgroup", "1:name=x:/old\n0::/a.slice/b\n");
  Put("cgroup/a.slice/b/memory.max", "max\n");
  Put("cgroup/a.slice/b/memory.current", "5000\n");
  EXPECT_EQ(Percent(), 60u);
  Put("cgroup/a.slice/b/memory.max", "1000\n");
  Put("cgroup/a.slice/b/memory.current", "900\n");
  EXPECT_EQ(Percent(), 90u);
  Put("cgroup/a.slice/b/memory.stat", "anon 1\ninactive_file 200\n");
  EXPECT_EQ(Percent(), 70u);
  // As a container sees it: the group's files are at the top.
  Put("proc/self/cgroup", "0::/kubepods/x\n");
  Put("cgroup/memory.max", "1000\n");
  Put("cgroup/memory.current", "1200\n");
  EXPECT_EQ(Percent(), 100u);
}

TEST_F(MemoryUsageTest, ThisMachineHasSome) {
  EXPECT_GT(MemoryUsagePercent(), 0u);
  EXPECT_LE(MemoryUsagePercent(), 100u);
}

}  // namespace
}  // namespace sluice::node
