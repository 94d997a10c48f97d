#include "services/delivery/testing/child_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>

#include "services/base/check.h"

namespace sluice::delivery::testing {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);

// Both outputs go to `output`.
pid_t Spawn(const std::vector<std::string>& command, int output, const std::string& folder) {
  std::vector<char*> arguments;
  for (const std::string& each : command) arguments.push_back(const_cast<char*>(each.c_str()));
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  SLUICE_CHECK(pid >= 0);
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (chdir(folder.c_str()) != 0) _exit(126);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(arguments[0], arguments.data());
  _exit(127);
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

std::string FindProgram(const std::string& name) {
  for (const char* folder : {"/usr/bin/", "/usr/sbin/", "/usr/local/bin/", "/usr/local/sbin/"}) {
    const std::string path = folder + name;
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return "";
}

bool RunProgram(const std::vector<std::string>& command, std::string* output,
                const std::string& folder) {
  int ends[2];
  SLUICE_CHECK(pipe2(ends, O_CLOEXEC) == 0);
  const pid_t pid = Spawn(command, ends[1], folder);
  close(ends[1]);
  char buffer[4096];
  output->clear();
  for (ssize_t got; (got = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    output->append(buffer, static_cast<size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

uint16_t FreePort() {
  for (;;) {
    const int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof(address);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    SLUICE_CHECK(bind(tcp, any, size) == 0);
    getsockname(tcp, any, &size);
    const bool both = bind(udp, any, size) == 0;
    close(tcp);
    close(udp);
    if (both) return ntohs(address.sin_port);
  }
}

ChildProcess::ChildProcess(const std::vector<std::string>& command) {
  int ends[2];
  SLUICE_CHECK(pipe2(ends, O_CLOEXEC) == 0);
  pid_ = Spawn(command, ends[1], ".");
  close(ends[1]);
  pipe_ = ends[0];
}

ChildProcess::~ChildProcess() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  close(pipe_);
}

bool ChildProcess::WaitForOutput(const std::string& text) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (output_.find(text) == std::string::npos) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd readable = {pipe_, POLLIN, 0};
    if (left.count() <= 0 || poll(&readable, 1, static_cast<int>(left.count())) <= 0) return false;
    char buffer[4096];
    const ssize_t got = read(pipe_, buffer, sizeof(buffer));
    if (got <= 0) return false;
    output_.append(buffer, static_cast<size_t>(got));
  }
  return true;
}

bool WaitForPort(uint16_t port) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = Loopback(port);
    const bool up = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    close(fd);
    if (up) return true;
    poll(nullptr, 0, 10);  // a condition outside of this process: it can only be looked at again
  }
  return false;
}

}  // namespace sluice::delivery::testing
