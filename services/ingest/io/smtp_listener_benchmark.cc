// Ingest over real sockets with a shard that answers at once: CPU of the ingest loop for one
// message, and memory of idle connections.
//   bazel run //services/ingest/io:smtp_listener_benchmark [-- MESSAGES IDLE_CONNECTIONS]
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "services/ingest/io/smtp_listener.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/ingest/testing/instant_shard.h"

namespace {

using namespace sluice;          // NOLINT: a program of its own
using namespace sluice::ingest;  // NOLINT

double ThreadCpuSeconds(pthread_t thread) {
  clockid_t clock;
  timespec time{};
  if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

long ResidentKib() {
  long pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

int Connect(const Endpoint& server) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_storage address;
  const socklen_t size = server.ToSockaddr(&address);
  if (fd < 0 || ::connect(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) {
    std::perror("connect");
    std::exit(1);
  }
  return fd;
}

void Send(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (n <= 0) std::exit(1);
    text.remove_prefix(static_cast<size_t>(n));
  }
}

// Reads until `lines` lines have come.
void Expect(int fd, int lines) {
  char buffer[4096];
  while (lines > 0) {
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) std::exit(1);
    for (ssize_t i = 0; i < n; ++i) lines -= buffer[i] == '\n';
  }
}

// Greeting and answer to EHLO, whatever is offered.
void ExpectHello(int fd) {
  std::string heard;
  char buffer[4096];
  while (!heard.ends_with("250 HELP\r\n")) {
    const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
    if (n <= 0) std::exit(1);
    heard.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int messages = argc > 1 ? std::atoi(argv[1]) : 100'000;
  const int idle = argc > 2 ? std::atoi(argv[2]) : 10'000;
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);

  EventLoop loop;
  ingest::testing::InstantShard shard;
  sluice::ingest::testing::FakeShard uploads;
  Ingest ingest(loop, {}, {{"s", &shard, &uploads.upload()}},
                std::make_shared<sluice::ingest::testing::FakePolicy>());
  ingest.Start();
  auto listener = SmtpListener::Open(loop, {.addresses = {*Endpoint::Parse("127.0.0.1:0")}},
                                     {{&loop, &ingest}});
  if (!listener.ok()) return 1;
  const Endpoint server = (*listener)->addresses()[0];
  std::thread thread([&] { loop.Run(); });
  while (!ingest.ready()) std::this_thread::yield();

  const long before_kib = ResidentKib();
  std::vector<int> sockets;
  for (int i = 0; i < idle; ++i) {
    sockets.push_back(Connect(server));
    Send(sockets.back(), "EHLO client.example.com\r\n");
    ExpectHello(sockets.back());
  }
  if (idle > 0) {
    std::printf("%d idle connections after EHLO: %.2f KiB each\n", idle,
                static_cast<double>(ResidentKib() - before_kib) / idle);
  }
  for (int fd : sockets) ::close(fd);

  std::string text = "From: A <a@sender.example.com>\r\nSubject: a test\r\n\r\n";
  while (text.size() < 10 * 1024) text += std::string(76, 'x') + "\r\n";
  text += ".\r\n";
  const std::string envelope =
      "MAIL FROM:<bounce-12345@sender.example.com> SIZE=10240\r\n"
      "RCPT TO:<somebody@receiver.example.org>\r\nDATA\r\n";
  constexpr int kClients = 8;
  const double cpu_before = ThreadCpuSeconds(thread.native_handle());
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&] {
      const int fd = Connect(server);
      Send(fd, "EHLO client.example.com\r\n");
      ExpectHello(fd);
      for (int i = 0; i < messages / kClients; ++i) {
        Send(fd, envelope);
        Expect(fd, 3);
        Send(fd, text);
        Expect(fd, 1);
      }
      ::close(fd);
    });
  }
  for (std::thread& client : clients) client.join();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double cpu = ThreadCpuSeconds(thread.native_handle()) - cpu_before;
  std::printf("%d messages of 10 KiB: %.0f messages/s, ingest loop %.1f us of CPU a message\n",
              messages, messages / seconds, cpu / messages * 1e6);
  loop.Stop();
  thread.join();
  listener->reset();
  return 0;
}
