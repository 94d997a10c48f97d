// Cuts the power of a real shard again and again: it runs on a file system that forgets what was
// not synced, is stopped at a random moment, and must come back with all that it had promised.
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "services/base/testing/temp_folder.h"
#include "tests/harness/powercut/fuse_mount.h"
#include "tests/harness/powercut/volatile_fs.h"
#include "tests/powercut/ledger.h"
#include "tests/powercut/life.h"
#include "tests/powercut/victim.h"

namespace sluice::powercut {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr auto kDrainLimit = std::chrono::seconds(60);

struct Options {
  int cuts = 10;
  uint64_t seed = 1;
  int messages = 400;  // each life
};

int Run(const Options& options, const std::string& mount_point) {
  VolatileFs fs;
  Ledger ledger;
  std::mt19937_64 random(options.seed);
  const auto start = SteadyClock::now();
  for (int life = 1; life <= options.cuts + 1 && ledger.errors().empty(); ++life) {
    const bool last = life == options.cuts + 1;
    std::string error;
    auto mount = FuseMount::Make(fs, mount_point, &error);
    if (mount == nullptr) {
      std::fprintf(stderr, "powercut: %s\n", error.c_str());
      return 1;
    }
    VictimOptions victim;
    victim.folder = mount_point + "/spool";
    victim.incarnation = static_cast<uint64_t>(life);
    victim.seed = random();
    victim.messages = last ? 0 : options.messages;
    victim.drain = last;
    Life shard(victim, mount_point + ".stderr", ledger);
    if (last) {
      shard.ListenUntil(kDrainLimit, [&ledger] { return ledger.drained(); });
    } else {
      // One in four is cut while it opens, the others at some line of their work or soon after.
      const bool early = random() % 4 == 0;
      const uint64_t lines = early ? UINT64_MAX : 1 + random() % 1500;
      const auto time = std::chrono::microseconds(early ? random() % 60'000 : 3'000'000);
      if (shard.Listen(time, lines) == Life::Ended::kProcess) {
        ledger.Add(victim.incarnation, "X the shard ended before the power went");
      }
      // The power goes before the process: what it promises from here on must not be lies.
      fs.Cut(random() % 3 == 0 ? CutKind::kForget : CutKind::kRandom, random());
    }
    shard.Kill();
    mount.reset();
    fs.PowerOn();
  }
  ledger.CheckComplete();
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - start).count();
  std::printf("%d power cuts in %.1f s, seed %llu: %llu syncs, %s\n", options.cuts, seconds,
              static_cast<unsigned long long>(options.seed),
              static_cast<unsigned long long>(fs.syncs()), ledger.Summary().c_str());
  for (const std::string& line : ledger.errors()) std::printf("WRONG: %s\n", line.c_str());
  if (!ledger.errors().empty()) {
    std::ifstream errors(mount_point + ".stderr");
    std::string line;
    while (std::getline(errors, line)) std::printf("stderr: %s\n", line.c_str());
  }
  return ledger.errors().empty() ? 0 : 1;
}

int Main(int argc, char** argv) {
  if (const auto code = RunIfVictim(argc, argv)) return *code;
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.starts_with("--cuts=")) {
      options.cuts = std::stoi(word.substr(7));
    } else if (word.starts_with("--seed=")) {
      options.seed = std::stoull(word.substr(7));
    } else if (word.starts_with("--messages=")) {
      options.messages = std::stoi(word.substr(11));
    } else {
      std::fprintf(stderr, "usage: powercut [--cuts=N] [--seed=N] [--messages=N]\n");
      return 2;
    }
  }
  if (access("/dev/fuse", R_OK | W_OK) != 0) {
    std::printf("SKIPPED: no usable /dev/fuse here, so no file system can forget anything\n");
    return 0;
  }
  // The mount is this process's alone, and goes with it, however it ends.
  if (unshare(CLONE_NEWNS) != 0 ||
      ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    std::printf("SKIPPED: no mount of its own possible: %s (needs root)\n", std::strerror(errno));
    return 0;
  }
  const testing::TempFolder folder("powercut");
  std::filesystem::create_directory(folder.File("fs"));
  return Run(options, folder.File("fs"));
}

}  // namespace
}  // namespace sluice::powercut

int main(int argc, char** argv) { return sluice::powercut::Main(argc, argv); }
