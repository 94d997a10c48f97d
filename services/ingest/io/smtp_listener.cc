#include "services/ingest/io/smtp_listener.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "services/base/check.h"
#include "services/base/net/tcp_connection.h"
#include "services/ingest/core/smtp_connection.h"
#include "services/mail/proxy_protocol.h"

namespace sluice::ingest {
namespace {

// Replies are short; a client with this much unread gets no more until it reads.
constexpr TcpConnectionOptions kTcpOptions = {.output_high_bytes = 16 * 1024,
                                              .output_low_bytes = 4 * 1024};
// How long a proxy may take for its header.
constexpr Duration kProxyTimeout = std::chrono::seconds(10);
// How long the last reply may take to leave.
constexpr Duration kLinger = std::chrono::seconds(10);

}  // namespace

// The clients of one loop.
class SmtpListener::Clients {
 public:
  Clients(const IngestLoop& where, ConnectionLimits& limits) : where_(where), limits_(limits) {}

  // On the loop.
  void Adopt(UniqueFd fd, bool proxied);
  void Remove(Connection* connection) { connections_.erase(connection); }

  EventLoop& loop() { return *where_.loop; }
  Ingest& ingest() { return *where_.ingest; }
  ConnectionLimits& limits() { return limits_; }

 private:
  const IngestLoop where_;
  ConnectionLimits& limits_;
  absl::flat_hash_map<Connection*, std::unique_ptr<Connection>> connections_;
};

class SmtpListener::Connection final : private TcpHandler, private SmtpConnection::Driver {
 public:
  Connection(Clients& clients, UniqueFd fd, bool proxied)
      : clients_(clients),
        tcp_(clients.loop(), std::move(fd), kTcpOptions),
        deadline_(clients.loop().wheel(), [this] { OnDeadline(); }) {
    if (!proxied) Introduce(tcp_.peer().ip.ToString(), tcp_.local().ip.ToString());
  }

  void Start() {
    tcp_.Start(this);
    if (smtp_) {
      Greet();
      return;
    }
    const auto proxy =
        clients_.ingest().ProfileFor(tcp_.peer().ip.ToString(), tcp_.local().ToString());
    if (!proxy->settings->allow_proxy_protocol()) {
      EndWithoutReply();
      return;
    }
    deadline_.SetAfter(kProxyTimeout);
  }

 private:
  // Who the client is, is known.
  void Introduce(std::string client_ip, std::string local_ip) {
    smtp_.emplace(clients_.ingest(),
                  SmtpPeer{std::move(client_ip), std::move(local_ip), tcp_.local().ToString()},
                  static_cast<SmtpConnection::Driver&>(*this));
  }
  void Greet() {
    const auto refusal = clients_.limits().Take(smtp_->profile(), slot_);
    smtp_->Start(refusal ? &*refusal : nullptr);
    Update();
  }
  void OnProxyHeader(std::string_view bytes) {
    proxy_bytes_.append(bytes.substr(0, mail::kMaxProxyHeaderBytes - proxy_bytes_.size()));
    const mail::ProxyHeader header = mail::ReadProxyHeader(proxy_bytes_);
    using Outcome = mail::ProxyHeader::Outcome;
    if (header.outcome == Outcome::kIncomplete) return;
    // A server speaks first, so what came behind the header was not written by an SMTP client that
    // waits for its greeting (RFC 5321 3.1).
    const size_t before = proxy_bytes_.size() - bytes.size();
    if (header.outcome == Outcome::kMalformed || header.size != before + bytes.size()) {
      EndWithoutReply();
      return;
    }
    proxy_bytes_ = std::string();
    if (header.outcome == Outcome::kClient) {
      Introduce(header.client_ip, header.server_ip);
    } else {
      Introduce(tcp_.peer().ip.ToString(), tcp_.local().ip.ToString());
    }
    Greet();
  }
  void EndWithoutReply() {
    ending_ = true;
    tcp_.CloseAfterFlush();
    deadline_.SetAfter(kLinger);
  }

  void OnBytes(std::string_view bytes) override {
    if (ending_) return;
    if (!smtp_) {
      OnProxyHeader(bytes);
      return;
    }
    smtp_->session().OnBytes(now(), bytes);
    Update();
  }
  void OnWritable() override { Update(); }
  bool OnPeerFinished() override {
    if (!smtp_) {
      EndWithoutReply();
      return true;
    }
    smtp_->session().OnEof(now());
    Update();
    return true;  // answers may still be due; a session that has none is closing
  }
  void OnClosed(const absl::Status&) override { clients_.Remove(this); }  // destroys this
  void OnWake() override { Update(); }

  void OnDeadline() {
    if (ending_ || !smtp_) {
      tcp_.Close();
      clients_.Remove(this);  // destroys this
      return;
    }
    smtp_->session().OnTimer(now());
    Update();
  }

  // Brings the socket in line with the session.
  void Update() {
    if (ending_ || !smtp_) return;
    mail::SmtpServerSession& session = smtp_->session();
    while (!session.output().empty() && !tcp_.congested()) {
      const std::string_view output = session.output();
      tcp_.Write(output);
      session.Sent(now(), output.size());
    }
    if (session.closing() && session.output().empty()) {
      ending_ = true;
      if (reading_paused_) tcp_.ResumeReading();  // to notice that the client has gone
      tcp_.CloseAfterFlush();
      deadline_.SetAfter(kLinger);
      return;
    }
    if (session.wants_read() == reading_paused_) {
      reading_paused_ = !reading_paused_;
      if (reading_paused_) {
        tcp_.PauseReading();
      } else {
        tcp_.ResumeReading();
      }
    }
    if (const std::optional<MonotonicTime> deadline = session.deadline()) {
      deadline_.Set(*deadline);
    } else {
      deadline_.Clear();
    }
  }

  MonotonicTime now() const { return clients_.ingest().now(); }

  Clients& clients_;
  TcpConnection tcp_;
  Deadline deadline_;
  bool reading_paused_ = false;
  bool ending_ = false;
  ConnectionLimits::Slot slot_;
  std::string proxy_bytes_;
  std::optional<SmtpConnection> smtp_;  // none until a proxy has said who the client is
};

void SmtpListener::Clients::Adopt(UniqueFd fd, bool proxied) {
  auto connection = std::make_unique<Connection>(*this, std::move(fd), proxied);
  Connection* const raw = connection.get();
  connections_.emplace(raw, std::move(connection));
  raw->Start();
}

SmtpListener::SmtpListener(const SmtpListenerOptions& options, std::vector<IngestLoop> loops)
    : limits_(options.max_connections) {
  for (const IngestLoop& loop : loops) {
    SLUICE_CHECK(loop.loop != nullptr && loop.ingest != nullptr);
    clients_.push_back(std::make_shared<Clients>(loop, limits_));
  }
}

SmtpListener::~SmtpListener() = default;

absl::StatusOr<std::unique_ptr<SmtpListener>> SmtpListener::Open(EventLoop& accept_loop,
                                                                 const SmtpListenerOptions& options,
                                                                 std::vector<IngestLoop> loops) {
  SLUICE_CHECK(!loops.empty());
  std::unique_ptr<SmtpListener> listener(new SmtpListener(options, std::move(loops)));
  SmtpListener* const raw = listener.get();
  listener->addresses_.resize(options.addresses.size());
  for (const bool proxied : {false, true}) {
    std::vector<size_t> which;
    std::vector<Endpoint> addresses;
    for (size_t i = 0; i < options.addresses.size(); ++i) {
      const auto& proxies = options.proxied;
      if ((std::find(proxies.begin(), proxies.end(), i) != proxies.end()) != proxied) continue;
      which.push_back(i);
      addresses.push_back(options.addresses[i]);
    }
    if (which.empty()) continue;
    absl::StatusOr<std::unique_ptr<Listener>> opened =
        Listener::Open(accept_loop, {.addresses = addresses, .backlog = options.backlog},
                       [raw, proxied](UniqueFd fd, const Endpoint&, const Endpoint&) {
                         raw->OnAccept(std::move(fd), proxied);
                       });
    if (!opened.ok()) return opened.status();
    for (size_t i = 0; i < which.size(); ++i) {
      listener->addresses_[which[i]] = (*opened)->addresses()[i];
    }
    listener->listeners_.push_back(*std::move(opened));
  }
  return listener;
}

void SmtpListener::OnAccept(UniqueFd fd, bool proxied) {
  const std::shared_ptr<Clients>& clients = clients_[next_loop_++ % clients_.size()];
  if (clients->loop().InLoopThread()) {
    clients->Adopt(std::move(fd), proxied);
    return;
  }
  clients->loop().Post(
      [clients, proxied, fd = std::move(fd)]() mutable { clients->Adopt(std::move(fd), proxied); });
}

void SmtpListener::StopAccepting() { listeners_.clear(); }

}  // namespace sluice::ingest
