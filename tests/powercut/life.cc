#include "tests/powercut/life.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string_view>
#include <vector>

extern char** environ;

namespace sluice::powercut {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr int kReportFd = 3;
constexpr int kWords = 9;

}  // namespace

Life::Life(const VictimOptions& options, const std::string& errors_path, Ledger& ledger)
    : ledger_(ledger), incarnation_(options.incarnation) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    ledger_.Add(incarnation_, "X no pipe");
    return;
  }
  const std::vector<std::string> words = {"powercut",
                                          "--victim",
                                          options.folder,
                                          std::to_string(options.incarnation),
                                          std::to_string(options.seed),
                                          std::to_string(options.messages),
                                          options.drain ? "1" : "0",
                                          options.hold ? "1" : "0",
                                          std::to_string(options.ballast_bytes)};
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], kReportFd);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors_path.c_str(),
                                   O_CREAT | O_WRONLY | O_TRUNC, 0600);
  if (posix_spawn(&pid_, "/proc/self/exe", &actions, nullptr, argv.data(), environ) != 0) {
    pid_ = -1;
    ledger_.Add(incarnation_, "X cannot start");
  }
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  pipe_ = ends[0];
}

Life::~Life() { Kill(); }

void Life::Take() {
  size_t begin = 0;
  for (size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string_view line = std::string_view(rest_).substr(begin, end - begin);
    if (dying_ && line.starts_with('X')) continue;
    ledger_.Add(incarnation_, line);
  }
  rest_.erase(0, begin);
}

Life::Ended Life::Listen(std::chrono::microseconds time, uint64_t most) {
  const auto deadline = SteadyClock::now() + time;
  const uint64_t until = most == UINT64_MAX ? most : ledger_.lines() + most;
  while (ledger_.errors().empty()) {
    if (ledger_.lines() >= until) return Ended::kLines;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - SteadyClock::now());
    if (left.count() <= 0) return Ended::kTime;
    pollfd wait = {pipe_, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(left.count())) <= 0) continue;
    char buffer[4096];
    const ssize_t bytes = read(pipe_, buffer, sizeof(buffer));
    if (bytes <= 0) return Ended::kProcess;
    rest_.append(buffer, static_cast<size_t>(bytes));
    Take();
  }
  return Ended::kError;
}

void Life::Kill() {
  if (pipe_ < 0) return;
  if (pid_ > 0) kill(pid_, SIGKILL);
  dying_ = true;
  char buffer[4096];
  ssize_t bytes;
  while ((bytes = read(pipe_, buffer, sizeof(buffer))) > 0) {
    rest_.append(buffer, static_cast<size_t>(bytes));
  }
  Take();
  close(pipe_);
  pipe_ = -1;
  if (pid_ > 0) waitpid(pid_, nullptr, 0);
}

std::optional<int> RunIfVictim(int argc, char** argv) {
  if (argc != kWords || std::strcmp(argv[1], "--victim") != 0) return std::nullopt;
  VictimOptions victim;
  victim.folder = argv[2];
  victim.report_fd = kReportFd;
  victim.incarnation = std::stoull(argv[3]);
  victim.seed = std::stoull(argv[4]);
  victim.messages = std::stoi(argv[5]);
  victim.drain = argv[6][0] == '1';
  victim.hold = argv[7][0] == '1';
  victim.ballast_bytes = std::stoull(argv[8]);
  return RunVictim(victim);
}

}  // namespace sluice::powercut
