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
// Of what the client sends at a time: a session keeps what stands behind a command whose answer
// waits. Commands are short; more than this is text, most often.
constexpr size_t kCommandReadBytes = 16 * 1024;
constexpr size_t kTextReadBytes = 64 * 1024;
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
  void Adopt(UniqueFd fd, Accepted how);
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
  Connection(Clients& clients, UniqueFd fd, Accepted how)
      : clients_(clients),
        tls_(std::move(how.tls)),
        tcp_(clients.loop(), std::move(fd), kTcpOptions),
        deadline_(clients.loop().wheel(), [this] { OnDeadline(); }) {
    if (!how.proxied) Introduce(tcp_.peer().ip.ToString(), tcp_.local().ip.ToString());
  }

  void Start() {
    tcp_.LimitReads(kCommandReadBytes);
    tcp_.Start(this);
    if (smtp_) {
      Greet();
      return;
    }
    const auto proxy =
        clients_.ingest().ProfileFor(tcp_.peer().ip.ToString(), tcp_.local().ToString());
    if (!proxy->settings->allow_proxy_protocol()) {
      // Where the kernel knows no peer any more, nobody is there: a check, most often.
      if (!tcp_.peer().ip.IsUnspecified()) CountRefusedProxy();
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
  // `begun`: what the client has sent of its first handshake already.
  void Greet(std::string_view begun = {}) {
    const auto refusal = clients_.limits().Take(smtp_->profile(), slot_);
    if (refusal && immediate_tls()) {
      // Nothing can be said before the handshake, and one for each client above the limit would
      // cost what the limit is there for.
      smtp_->Start(&*refusal);
      EndWithoutReply();
      return;
    }
    if (tls_.context != nullptr) smtp_->session().set_tls_available();
    if (immediate_tls()) {
      smtp_->session().ExpectTls(now());
      StartTls(begun);
    } else {
      smtp_->Start(refusal ? &*refusal : nullptr);
    }
    Update();
  }
  bool immediate_tls() const { return tls_.context != nullptr && tls_.immediate; }
  void StartTls(std::string_view begun) {
    std::unique_ptr<TlsSession> tls = tls_.context->NewSession();
    if (tls == nullptr) {  // out of memory
      EndWithoutReply();
      return;
    }
    tcp_.StartTls(std::move(tls), begun);
  }
  void OnProxyHeader(std::string_view bytes) {
    const size_t begun = proxy_bytes_.size();
    proxy_bytes_.append(bytes.substr(0, mail::kMaxProxyHeaderBytes - proxy_bytes_.size()));
    const mail::ProxyHeader header = mail::ReadProxyHeader(proxy_bytes_);
    using Outcome = mail::ProxyHeader::Outcome;
    if (header.outcome == Outcome::kIncomplete) return;
    // A server speaks first, so what came behind the header was not written by an SMTP client that
    // waits for its greeting (RFC 5321 3.1). With TLS from the start the client does.
    const bool more = header.size != begun + bytes.size();
    if (header.outcome == Outcome::kMalformed || (more && !immediate_tls())) {
      RefuseProxy();
      return;
    }
    proxy_bytes_ = std::string();
    if (header.outcome == Outcome::kClient) {
      Introduce(header.client_ip, header.server_ip);
    } else {
      Introduce(tcp_.peer().ip.ToString(), tcp_.local().ip.ToString());
    }
    Greet(bytes.substr(header.size - begun));
  }
  void CountRefusedProxy() {
    clients_.ingest().mutable_counters().proxy_headers_refused.fetch_add(1,
                                                                         std::memory_order_relaxed);
  }
  void RefuseProxy() {
    CountRefusedProxy();
    EndWithoutReply();
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
  void OnTlsReady() override {
    if (ending_) return;
    const TlsFacts& facts = tcp_.tls()->facts();
    std::string user;
    if (tls_.users != nullptr) {
      const auto found = tls_.users->find(facts.peer_fingerprint);
      if (found != tls_.users->end()) user = found->second;
    }
    smtp_->OnTlsReady(facts, std::move(user), tcp_.tls()->has_exporter_binding());
    if (tls_.immediate) smtp_->Start();
    Update();
  }
  bool OnPeerFinished() override {
    if (!smtp_) {
      // A proxy that only looks whether somebody listens says nothing.
      if (!proxy_bytes_.empty()) CountRefusedProxy();
      EndWithoutReply();
      return true;
    }
    smtp_->session().OnEof(now());
    Update();
    return true;  // answers may still be due; a session that has none is closing
  }
  void OnClosed(const absl::Status& status) override {
    if (!ending_ && smtp_ && smtp_->session().tls_handshake()) {
      const absl::string_view why = status.ok() ? "the client has left" : status.message();
      smtp_->OnTlsFailed({why.data(), why.size()});
    } else if (!ending_ && smtp_) {
      smtp_->session().OnLost();
    }
    clients_.Remove(this);  // destroys this
  }
  void OnWake() override { Update(); }
  std::optional<mail::ServerReply> OnOtherClient(const ClientProfile& profile) override {
    return clients_.limits().Move(profile, slot_);
  }
  mail::SaslChannelBindings ChannelBindings() override {
    return {tcp_.tls()->ExporterBinding(), tcp_.tls()->ServerEndPointBinding()};
  }

  void OnDeadline() {
    if (ending_ || !smtp_) {
      if (!ending_) CountRefusedProxy();
      tcp_.Close();
      clients_.Remove(this);  // destroys this
      return;
    }
    const bool handshake = smtp_->session().tls_handshake();
    smtp_->session().OnTimer(now());
    if (handshake && smtp_->session().closing()) smtp_->OnTlsFailed("the handshake took too long");
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
    if (session.tls_handshake() && tcp_.tls() == nullptr) {
      StartTls({});
      if (ending_) return;
    }
    if (session.closing() && session.output().empty()) {
      ending_ = true;
      if (reading_paused_) tcp_.ResumeReading();  // to notice that the client has gone
      tcp_.CloseAfterFlush();
      deadline_.SetAfter(kLinger);
      return;
    }
    tcp_.LimitReads(session.receiving_data() ? kTextReadBytes : kCommandReadBytes);
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
  const SmtpListenerTls tls_;
  TcpConnection tcp_;
  Deadline deadline_;
  bool reading_paused_ = false;
  bool ending_ = false;
  ConnectionLimits::Slot slot_;
  std::string proxy_bytes_;
  std::optional<SmtpConnection> smtp_;  // none until a proxy has said who the client is
};

void SmtpListener::Clients::Adopt(UniqueFd fd, Accepted how) {
  auto connection = std::make_unique<Connection>(*this, std::move(fd), std::move(how));
  Connection* const raw = connection.get();
  connections_.emplace(raw, std::move(connection));
  raw->Start();
}

SmtpListener::SmtpListener(const SmtpListenerOptions& options, std::vector<IngestLoop> loops)
    : limits_(options.max_connections), tls_(options.tls), proxied_(options.proxied) {
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
  for (size_t i = 0; i < options.addresses.size(); ++i) {
    absl::StatusOr<std::unique_ptr<Listener>> opened = Listener::Open(
        accept_loop, {.addresses = {options.addresses[i]}, .backlog = options.backlog},
        [raw, i](UniqueFd fd, const Endpoint&, const Endpoint&) {
          raw->OnAccept(std::move(fd), i);
        });
    if (!opened.ok()) return opened.status();
    listener->addresses_.push_back((*opened)->addresses().front());
    listener->listeners_.push_back(*std::move(opened));
  }
  return listener;
}

void SmtpListener::OnAccept(UniqueFd fd, size_t listener) {
  Accepted how;
  if (listener < tls_.size()) how.tls = tls_[listener];
  how.proxied = std::find(proxied_.begin(), proxied_.end(), listener) != proxied_.end();
  const std::shared_ptr<Clients>& clients = clients_[next_loop_++ % clients_.size()];
  if (clients->loop().InLoopThread()) {
    clients->Adopt(std::move(fd), std::move(how));
    return;
  }
  clients->loop().Post([clients, fd = std::move(fd), how = std::move(how)]() mutable {
    clients->Adopt(std::move(fd), std::move(how));
  });
}

void SmtpListener::StopAccepting() { listeners_.clear(); }

}  // namespace sluice::ingest
