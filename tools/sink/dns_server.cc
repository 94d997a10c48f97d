#include "tools/sink/dns_server.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "services/base/net/tcp_connection.h"

namespace sluice::sink {
namespace {

constexpr int kDatagramsPerTurn = 64;
constexpr size_t kTcpClientsMax = 1000;
constexpr Duration kTcpIdle = std::chrono::seconds(30);
constexpr int kPortTries = 20;

}  // namespace

class DnsServer::Udp final : public FdWatcher {
 public:
  Udp(DnsServer& server, UniqueFd fd) : server_(server), fd_(std::move(fd)) {
    server_.loop_.Watch(fd_.get(), EPOLLIN, this);
  }
  ~Udp() { server_.loop_.Unwatch(fd_.get(), this); }

  void OnEvents(uint32_t) override {
    for (int i = 0; i < kDatagramsPerTurn; ++i) {
      char query[4096];
      sockaddr_storage client;
      socklen_t length = sizeof(client);
      auto* name = reinterpret_cast<sockaddr*>(&client);
      ssize_t got = ::recvfrom(fd_.get(), query, sizeof(query), 0, name, &length);
      if (got < 0) return;
      ++server_.state_.counters().dns_queries;
      std::string answer = AnswerDns(server_.state_.rules(), server_.options_,
                                     std::string_view(query, static_cast<size_t>(got)), true);
      // What cannot be sent is lost, as with UDP everywhere.
      if (!answer.empty()) {
        ::sendto(fd_.get(), answer.data(), answer.size(), MSG_NOSIGNAL, name, length);
      }
    }
  }

 private:
  DnsServer& server_;
  UniqueFd fd_;
};

// Queries with a length before each (RFC 1035 4.2.2).
class DnsServer::TcpClient final : public TcpHandler {
 public:
  TcpClient(DnsServer& server, UniqueFd fd)
      : server_(server),
        connection_(server.loop_, std::move(fd)),
        idle_(server.loop_.wheel(), [this] { Leave(); }) {
    connection_.Start(this);
    idle_.SetAfter(kTcpIdle);
  }

  void OnBytes(std::string_view bytes) override {
    idle_.SetAfter(kTcpIdle);
    input_.append(bytes);
    size_t at = 0;
    while (input_.size() - at >= 2) {
      size_t length =
          static_cast<uint8_t>(input_[at]) * 256u + static_cast<uint8_t>(input_[at + 1]);
      if (input_.size() - at - 2 < length) break;
      ++server_.state_.counters().dns_queries;
      std::string answer = AnswerDns(server_.state_.rules(), server_.options_,
                                     std::string_view(input_).substr(at + 2, length), false);
      at += 2 + length;
      if (answer.empty()) continue;
      char prefix[2] = {static_cast<char>(answer.size() >> 8), static_cast<char>(answer.size())};
      connection_.Write(std::string_view(prefix, 2));
      connection_.Write(answer);
    }
    input_.erase(0, at);
  }
  void OnClosed(const absl::Status&) override { Leave(); }

 private:
  void Leave() {
    server_.clients_.remove_if([this](const auto& each) { return each.get() == this; });
  }

  DnsServer& server_;
  TcpConnection connection_;
  Deadline idle_;
  std::string input_;
};

DnsServer::DnsServer(EventLoop& loop, SinkState& state, const DnsOptions& options)
    : loop_(loop), state_(state), options_(options) {}

DnsServer::~DnsServer() = default;

absl::Status DnsServer::Bind(const Endpoint& address) {
  auto on_accept = [this](UniqueFd fd, const Endpoint&, const Endpoint&) {
    if (clients_.size() >= kTcpClientsMax) return;
    clients_.push_back(std::make_unique<TcpClient>(*this, std::move(fd)));
  };
  auto listener = Listener::Open(loop_, {.addresses = {address}}, on_accept);
  if (!listener.ok()) return listener.status();
  Endpoint bound = (*listener)->addresses()[0];
  int family = bound.ip.is_v4() ? AF_INET : AF_INET6;
  UniqueFd fd(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_storage storage;
  socklen_t length = bound.ToSockaddr(&storage);
  if (!fd || ::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0) {
    return absl::AlreadyExistsError("cannot serve DNS on " + bound.ToString() + ": " +
                                    std::strerror(errno));
  }
  int buffer_bytes = 4 * 1024 * 1024;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &buffer_bytes, sizeof(buffer_bytes));
  address_ = bound;
  listener_ = std::move(*listener);
  udp_ = std::make_unique<Udp>(*this, std::move(fd));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<DnsServer>> DnsServer::Open(EventLoop& loop, SinkState& state,
                                                           const Endpoint& address,
                                                           const DnsOptions& options) {
  std::unique_ptr<DnsServer> server(new DnsServer(loop, state, options));
  absl::Status status;
  for (int i = 0; i < kPortTries; ++i) {
    status = server->Bind(address);
    if (status.ok()) return server;
    if (address.port != 0) break;
  }
  return status;
}

}  // namespace sluice::sink
