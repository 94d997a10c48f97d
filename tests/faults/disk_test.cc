// A real shard on a real file system that is full, or whose device fails: it refuses what it cannot
// keep, nothing accepted is lost, results still go through, and it does not crash. Needs root for
// loop mounts.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "services/base/testing/temp_folder.h"
#include "tests/powercut/ledger.h"
#include "tests/powercut/life.h"

namespace sluice::powercut {
namespace {

constexpr int kDiskMebibytes = 128;
// As in production, more than the log and what a start makes of it.
constexpr uint64_t kBallastBytes = uint64_t{40} << 20;
constexpr auto kLimit = std::chrono::seconds(20);

// ext4 on a loop device, in a mount namespace of this process.
class Disk {
 public:
  Disk(const std::string& folder, int mebibytes)
      : image_(folder + "/disk.img"), path_(folder + "/disk") {
    std::filesystem::create_directory(path_);
    made_ = Run("truncate -s " + std::to_string(mebibytes) + "M " + image_) &&
            Run("mkfs.ext4 -q -m 0 " + image_) && Mount();
  }
  ~Disk() { Unmount(); }
  bool made() const { return made_; }
  const std::string& path() const { return path_; }
  bool Mount() { return Run("mount -o loop " + image_ + " " + path_); }
  void Unmount() { Run("umount " + path_ + " 2>/dev/null"); }
  // Every write is an error from now on, as when the device went away.
  bool Fail() { return Run("mount -o remount,abort " + path_); }
  bool ReadOnly() { return Run("mount -o remount,ro " + path_ + " 2>/dev/null"); }
  bool Writable() { return Run("mount -o remount,rw " + path_); }
  bool Mend() {
    Unmount();
    Run("e2fsck -p -f " + image_ + " >/dev/null");  // says 1 where it mended
    return Mount();
  }
  // Takes all that is free, as another program on the same volume would.
  void FillUp() {
    const int fd = open((path_ + "/others").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ASSERT_GE(fd, 0);
    const std::string block(64 * 1024, 'x');
    while (write(fd, block.data(), block.size()) > 0) {
    }
    while (write(fd, block.data(), 512) > 0) {
    }
    fsync(fd);
    close(fd);
  }
  // ext4 gives the space back only when its journal was written.
  void Empty() {
    unlink((path_ + "/others").c_str());
    const int fd = open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    EXPECT_EQ(syncfs(fd), 0);
    close(fd);
  }

 private:
  static bool Run(const std::string& command) { return std::system(command.c_str()) == 0; }
  const std::string image_;
  const std::string path_;
  bool made_ = false;
};

class DiskTest : public ::testing::Test {
 protected:
  void SetUp() override {
    disk_ = std::make_unique<Disk>(folder_, kDiskMebibytes);
    if (!disk_->made()) {
      std::printf("SKIPPED: no loop mounts here (needs root, loop devices and e2fsprogs)\n");
      GTEST_SKIP();
    }
  }
  void TearDown() override { disk_.reset(); }
  std::unique_ptr<Life> Start(int messages, bool hold, bool drain) {
    VictimOptions victim;
    victim.folder = disk_->path() + "/spool";
    victim.incarnation = ++incarnation_;
    victim.seed = incarnation_;
    victim.messages = messages;
    victim.hold = hold;
    victim.drain = drain;
    victim.ballast_bytes = kBallastBytes;
    return std::make_unique<Life>(victim, folder_ + "/stderr", ledger_);
  }
  bool Refused(const std::string& outcome) const {
    return ledger_.refusals().contains("OUTCOME_" + outcome);
  }
  void Drain() {
    auto life = Start(0, false, true);
    life->ListenUntil(kLimit, [this] { return ledger_.drained(); });
    life->Kill();
    ledger_.CheckComplete();
  }
  void ExpectNoErrors() {
    for (const std::string& error : ledger_.errors()) ADD_FAILURE() << error;
    if (!HasFailure()) return;
    std::ifstream errors(folder_ + "/stderr");
    std::string line;
    while (std::getline(errors, line)) ADD_FAILURE() << "stderr: " << line;
  }

  const testing::TempFolder temp_{"disk"};
  const std::string folder_ = temp_.path();
  std::unique_ptr<Disk> disk_;
  Ledger ledger_;
  uint64_t incarnation_ = 0;
};

TEST_F(DiskTest, AFullSpoolRefusesAndStillDelivers) {
  auto life = Start(1'000'000, true, false);
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return Refused("REFUSED_FULL"); }));
  EXPECT_FALSE(Refused("STORE_FAILED"));
  life->Kill();
  Drain();
  ExpectNoErrors();
}

// The ballast is there for this: what is accepted goes out although there is not one free byte.
TEST_F(DiskTest, AVolumeThatOthersFilledDeliversFromItsBallast) {
  auto life = Start(200, true, false);
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return ledger_.lines() > 100; }));
  life->Kill();
  disk_->FillUp();
  Drain();
  ExpectNoErrors();
}

TEST_F(DiskTest, AVolumeThatFillsWhileItRunsLosesNothing) {
  auto life = Start(1'000'000, true, false);
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return ledger_.lines() > 300; }));
  disk_->FillUp();
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return !ledger_.refusals().empty(); }));
  life->Kill();
  disk_->Empty();
  Drain();
  ExpectNoErrors();
}

// What was accepted before the device failed is there. At the very moment of the failure a sync has
// been seen to succeed whose bytes were gone after the file system's check; what was accepted then
// is not judged here (power cuts, where each sync is known to be true or not, judge all).
TEST_F(DiskTest, ADeviceThatFailsIsNoticedAndWhatWasAcceptedBeforeIsThere) {
  auto life = Start(1'000'000, true, false);
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return ledger_.lines() > 300; }));
  ledger_.DoubtAcceptances();
  ASSERT_TRUE(disk_->Fail());
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return Refused("STORE_FAILED"); }));
  // It goes on living, and refuses.
  EXPECT_EQ(life->Listen(std::chrono::milliseconds(300)), Life::Ended::kTime);
  life->Kill();
  ExpectNoErrors();
  ASSERT_TRUE(disk_->Mend());
  Drain();
  ExpectNoErrors();
}

TEST_F(DiskTest, AReadOnlyVolumeIsAClearErrorAtStart) {
  auto life = Start(100, false, false);
  EXPECT_TRUE(life->ListenUntil(kLimit, [this] { return ledger_.lines() > 50; }));
  life->Kill();
  ASSERT_TRUE(disk_->ReadOnly());
  Ledger refused;
  VictimOptions victim;
  victim.folder = disk_->path() + "/spool";
  victim.incarnation = 99;
  Life other(victim, folder_ + "/stderr", refused);
  other.ListenUntil(kLimit, [&refused] { return !refused.errors().empty(); });
  ASSERT_EQ(refused.errors().size(), 1U);
  EXPECT_NE(refused.errors()[0].find("cannot open"), std::string::npos) << refused.errors()[0];
  EXPECT_NE(refused.errors()[0].find(disk_->path()), std::string::npos) << refused.errors()[0];
  other.Kill();
  ASSERT_TRUE(disk_->Writable());
  Drain();
  ExpectNoErrors();
}

}  // namespace
}  // namespace sluice::powercut

int main(int argc, char** argv) {
  if (const auto code = sluice::powercut::RunIfVictim(argc, argv)) return *code;
  ::testing::InitGoogleTest(&argc, argv);
  setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);  // mkfs and mount
  // Mounts go with this process, however it ends.
  if (unshare(CLONE_NEWNS) != 0 ||
      mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::printf("SKIPPED: no mount of its own possible: %s (needs root)\n", std::strerror(errno));
    return 0;
  }
  return RUN_ALL_TESTS();
}
