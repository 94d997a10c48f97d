// Cuts the power of a real shard again and again: it runs on a file system that forgets what was
// not synced, is stopped at a random moment, and must come back with all that it had promised.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
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

#include "tests/harness/powercut/fuse_mount.h"
#include "tests/harness/powercut/volatile_fs.h"
#include "tests/powercut/ledger.h"
#include "tests/powercut/victim.h"

extern char** environ;

namespace sluice::powercut {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr auto kDrainLimit = std::chrono::seconds(60);

struct Options {
  int cuts = 10;
  uint64_t seed = 1;
  int messages = 400;  // each life
};

struct Child {
  pid_t pid = -1;
  int pipe = -1;
};

// What it writes to stderr goes to `errors_path`: RocksDB complains there once the power is gone.
Child Spawn(const std::string& folder, const std::string& errors_path, uint64_t incarnation,
            uint64_t seed, int messages, bool drain) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return {};
  const std::vector<std::string> words = {"powercut",
                                          "--victim",
                                          folder,
                                          std::to_string(incarnation),
                                          std::to_string(seed),
                                          std::to_string(messages),
                                          drain ? "1" : "0"};
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 3);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors_path.c_str(),
                                   O_CREAT | O_WRONLY | O_TRUNC, 0600);
  Child child;
  if (posix_spawn(&child.pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ) != 0) {
    child.pid = -1;
  }
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  child.pipe = ends[0];
  return child;
}

// Reads lines into the ledger until end of file, `deadline`, or `most` lines. True at end of file.
bool Listen(const Child& child, uint64_t incarnation, SteadyClock::time_point deadline,
            uint64_t most, std::string* rest, Ledger* ledger) {
  const uint64_t until = most == UINT64_MAX ? most : ledger->lines() + most;
  while (ledger->lines() < until && ledger->errors().empty()) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0) return false;
    pollfd wait = {child.pipe, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(left.count())) <= 0) continue;
    char buffer[4096];
    const ssize_t bytes = read(child.pipe, buffer, sizeof(buffer));
    if (bytes <= 0) return true;
    rest->append(buffer, static_cast<size_t>(bytes));
    size_t begin = 0;
    for (size_t end; (end = rest->find('\n', begin)) != std::string::npos; begin = end + 1) {
      ledger->Add(incarnation, std::string_view(*rest).substr(begin, end - begin));
    }
    rest->erase(0, begin);
  }
  return false;
}

// What was in the pipe when the power went. Errors after the cut are the cut's.
void Finish(const Child& child, uint64_t incarnation, std::string rest, Ledger* ledger) {
  char buffer[4096];
  ssize_t bytes;
  while ((bytes = read(child.pipe, buffer, sizeof(buffer))) > 0) {
    rest.append(buffer, static_cast<size_t>(bytes));
  }
  size_t begin = 0;
  for (size_t end; (end = rest.find('\n', begin)) != std::string::npos; begin = end + 1) {
    if (rest[begin] == 'X') continue;
    ledger->Add(incarnation, std::string_view(rest).substr(begin, end - begin));
  }
  close(child.pipe);
}

int Run(const Options& options, const std::string& mount_point) {
  VolatileFs fs;
  Ledger ledger;
  std::mt19937_64 random(options.seed);
  const auto start = SteadyClock::now();
  for (int life = 1; life <= options.cuts + 1 && ledger.errors().empty(); ++life) {
    const bool last = life == options.cuts + 1;
    const auto incarnation = static_cast<uint64_t>(life);
    std::string error;
    auto mount = FuseMount::Make(fs, mount_point, &error);
    if (mount == nullptr) {
      std::fprintf(stderr, "powercut: %s\n", error.c_str());
      return 1;
    }
    const Child child = Spawn(mount_point + "/spool", mount_point + ".stderr", incarnation,
                              random(), last ? 0 : options.messages, last);
    if (child.pid < 0) return 1;
    std::string rest;
    if (last) {
      Listen(child, incarnation, SteadyClock::now() + kDrainLimit, UINT64_MAX, &rest, &ledger);
      kill(child.pid, SIGKILL);
    } else {
      // One in four is cut while it opens, the others at some line of their work or soon after.
      const bool early = random() % 4 == 0;
      const uint64_t lines = early ? UINT64_MAX : 1 + random() % 1500;
      const auto time = std::chrono::microseconds(early ? random() % 60'000 : 3'000'000);
      if (Listen(child, incarnation, SteadyClock::now() + time, lines, &rest, &ledger)) {
        ledger.Add(incarnation, "X the shard ended before the power went");
      }
      // The power goes before the process: what it promises from here on is not believed to be
      // kept.
      fs.Cut(random() % 3 == 0 ? CutKind::kForget : CutKind::kRandom, random());
      kill(child.pid, SIGKILL);
    }
    Finish(child, incarnation, std::move(rest), &ledger);
    waitpid(child.pid, nullptr, 0);
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
  if (argc == 7 && std::strcmp(argv[1], "--victim") == 0) {
    VictimOptions victim;
    victim.folder = argv[2];
    victim.report_fd = 3;
    victim.incarnation = std::stoull(argv[3]);
    victim.seed = std::stoull(argv[4]);
    victim.messages = std::stoi(argv[5]);
    victim.drain = argv[6][0] == '1';
    return RunVictim(victim);
  }
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
  const char* temporary = getenv("TEST_TMPDIR");
  std::string folder = std::string(temporary != nullptr ? temporary : "/tmp") + "/powercutXXXXXX";
  if (mkdtemp(folder.data()) == nullptr) {
    std::fprintf(stderr, "powercut: cannot make %s: %s\n", folder.c_str(), std::strerror(errno));
    return 1;
  }
  const int result = Run(options, folder);
  std::error_code ignored;
  std::filesystem::remove(folder, ignored);
  std::filesystem::remove(folder + ".stderr", ignored);
  return result;
}

}  // namespace
}  // namespace sluice::powercut

int main(int argc, char** argv) { return sluice::powercut::Main(argc, argv); }
