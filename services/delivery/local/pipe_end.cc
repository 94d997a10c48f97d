// Type pipe: a program gets the message as its standard input, and says by its exit status what
// became of it (sysexits.h).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "services/config/command_line.h"
#include "services/delivery/local/destination.h"
#include "services/delivery/local/file_writer.h"
#include "services/delivery/local/local_job.h"

namespace sluice::delivery {
namespace {

constexpr size_t kMaxOutputBytes = 1024;
// How often a wait looks whether anybody still waits for it.
constexpr int kPollMs = 100;

class Fd {
 public:
  Fd() = default;
  ~Fd() { Close(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  void Close() {
    if (value >= 0) close(value);
    value = -1;
  }
  int value = -1;
};

bool OpenPipe(Fd& read_end, Fd& write_end) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return false;
  read_end.value = fds[0];
  write_end.value = fds[1];
  return true;
}

// The program, with its own process group so that all of it can be ended. 0, or an errno.
int Spawn(const std::vector<std::string>& words, int input, int output, pid_t* pid) {
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  char path[] = "PATH=/usr/local/bin:/usr/bin:/bin";
  char locale[] = "LC_ALL=C";
  char* environment[] = {path, locale, nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, input, 0);
  posix_spawn_file_actions_adddup2(&actions, output, 1);
  posix_spawn_file_actions_adddup2(&actions, output, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  posix_spawn_file_actions_addchdir_np(&actions, "/");
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  const int error =
      posix_spawnp(pid, words[0].c_str(), &actions, &attributes, arguments.data(), environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  return error;
}

// The message with LF line ends, as programs here expect it.
class Input {
 public:
  explicit Input(const std::vector<Body>& body) : body_(body) {}
  // What is to be written next; empty at the end.
  std::string_view Next() {
    while (left_.empty() && piece_ < body_.size()) {
      const std::string_view text = body_[piece_++].view();
      buffer_.clear();
      for (const char c : text) {
        if (held_cr_ && c != '\n') buffer_ += '\r';
        held_cr_ = c == '\r';
        if (!held_cr_) buffer_ += c;
      }
      left_ = buffer_;
    }
    return left_;
  }
  void Taken(size_t bytes) { left_.remove_prefix(bytes); }

 private:
  const std::vector<Body>& body_;
  size_t piece_ = 0;
  bool held_cr_ = false;
  std::string buffer_;
  std::string_view left_;
};

LocalVerdict VerdictOf(int status, std::string output) {
  std::replace_if(
      output.begin(), output.end(), [](char c) { return c < ' ' && c != '\n'; }, ' ');
  while (output.ends_with('\n')) output.pop_back();
  if (WIFSIGNALED(status)) {
    return Transient("4.3.0", "the program died of signal " + std::to_string(WTERMSIG(status)) +
                                  (output.empty() ? "" : ": " + output));
  }
  const int code = WEXITSTATUS(status);
  const std::string text = "the program ended with status " + std::to_string(code) +
                           (output.empty() ? "" : ": " + output);
  switch (code) {
    case 0:
      return Delivered(output.empty() ? "taken by the program" : output);
    case EX_TEMPFAIL:
    case EX_OSERR:
    case EX_OSFILE:
    case EX_IOERR:
    case EX_CANTCREAT:
    case EX_UNAVAILABLE:
      return Transient("4.3.0", text);
    case EX_CONFIG:
    case EX_USAGE:
    case 126:  // what shells say where a program cannot be run, or is not there
    case 127:
      return Transient("4.3.5", text);
    case EX_NOUSER:
      return Permanent("5.1.1", text);
    case EX_NOHOST:
      return Permanent("5.1.2", text);
    case EX_NOPERM:
      return Permanent("5.7.1", text);
    default:
      return Permanent("5.3.0", text);
  }
}

LocalVerdict RunProgram(const LocalJob& job, const std::vector<std::string>& words) {
  // A program that stops reading is no reason to die.
  sigset_t broken_pipe;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
  Fd child_input, input, output, child_output;
  if (!OpenPipe(child_input, input) || !OpenPipe(output, child_output)) {
    return Transient("4.3.0", "no pipe: " + ErrorText(errno));
  }
  pid_t pid = 0;
  if (const int error = Spawn(words, child_input.value, child_output.value, &pid); error != 0) {
    return Transient("4.3.5", words[0] + " cannot be run: " + ErrorText(error));
  }
  child_input.Close();
  child_output.Close();
  // Only so that its end is noticed at once; without, the next look does.
  Fd process;
  process.value = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  fcntl(input.value, F_SETFL, O_NONBLOCK);
  fcntl(output.value, F_SETFL, O_NONBLOCK);
  const auto deadline =
      std::chrono::steady_clock::now() + Duration(job.settings->smtp_data_termination_timeout_us());
  Input text(job.body);
  std::string said;
  int status = 0;
  bool exited = false;
  bool cut_off = false;
  while (true) {
    if (!exited && waitpid(pid, &status, WNOHANG) == pid) exited = true;
    // What it left running may keep its output open; that is not waited for.
    if (exited) break;
    if (std::chrono::steady_clock::now() >= deadline || job.is_cancelled()) {
      cut_off = true;
      break;
    }
    if (input.value >= 0 && text.Next().empty()) input.Close();
    pollfd fds[3] = {
        {output.value, POLLIN, 0}, {input.value, POLLOUT, 0}, {process.value, POLLIN, 0}};
    if (poll(fds, 3, kPollMs) < 0 && errno != EINTR) break;
    char buffer[4096];
    const ssize_t got = output.value < 0 ? -1 : read(output.value, buffer, sizeof buffer);
    if (got > 0) {
      said.append(buffer, std::min(static_cast<size_t>(got), kMaxOutputBytes - said.size()));
    } else if (got == 0) {
      output.Close();
    }
    if (input.value < 0) continue;
    const std::string_view next = text.Next();
    const ssize_t sent = next.empty() ? 0 : write(input.value, next.data(), next.size());
    if (sent > 0) {
      text.Taken(static_cast<size_t>(sent));
    } else if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      input.Close();  // it has read enough; its exit status says what that means
    }
  }
  if (!exited) {
    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
  }
  if (cut_off) return Transient("4.4.2", "the program took too long and was ended");
  char buffer[4096];
  ssize_t got = 0;
  while (output.value >= 0 && (got = read(output.value, buffer, sizeof buffer)) > 0 &&
         said.size() < kMaxOutputBytes) {
    said.append(buffer, std::min(static_cast<size_t>(got), kMaxOutputBytes - said.size()));
  }
  return VerdictOf(status, std::move(said));
}

LocalVerdict DeliverCopy(const LocalJob& job, const std::vector<std::string>& command,
                         int delivery) {
  std::vector<std::string> words;
  for (const std::string& word : command) {
    words.push_back(
        Expand(word, *job.lease, delivery, false, job.settings->macro_variables_preserve_case()));
    if (words.back().starts_with('-') && !word.starts_with('-')) {
      return Permanent("5.1.3", "the address would be read as an option");
    }
  }
  return RunProgram(job, words);
}

}  // namespace

std::vector<LocalVerdict> DeliverToPipe(const LocalJob& job) {
  const int count = job.lease->deliveries_size();
  const std::vector<std::string> command = config::SplitCommand(job.settings->command());
  if (command.empty() || command[0].empty()) {
    return std::vector<LocalVerdict>(static_cast<size_t>(count),
                                     Transient("4.3.5", "there is no command"));
  }
  if (config::RunsVariables(command)) {
    return std::vector<LocalVerdict>(
        static_cast<size_t>(count),
        Transient("4.3.5",
                  "the command would run what the sender wrote; give the variable as an "
                  "argument behind the program text"));
  }
  if (!NamesRecipient(job.settings->command())) {
    return std::vector<LocalVerdict>(static_cast<size_t>(count), DeliverCopy(job, command, 0));
  }
  std::vector<LocalVerdict> verdicts;
  for (int i = 0; i < count; ++i) verdicts.push_back(DeliverCopy(job, command, i));
  return verdicts;
}

}  // namespace sluice::delivery
