#include "tools/sink/sink.h"

#include <unistd.h>

#include <cstdlib>
#include <deque>
#include <filesystem>
#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/tls_self_signed.h"
#include "services/base/net/tls_session.h"

namespace sluice::sink {
namespace {

constexpr size_t kHttpRequestMaxBytes = 1024 * 1024;
constexpr size_t kHttpClientsMax = 100;
constexpr Duration kHttpTimeout = std::chrono::seconds(10);

}  // namespace

// An SMTP connection. Replies that are due at once go straight to the socket; with an added round
// trip or a scripted delay they stand in a line until their time.
class Sink::Connection final : public TcpHandler, private SessionOutput {
 public:
  Connection(Sink& sink, UniqueFd fd, const Endpoint& local, const Endpoint& peer,
             bool immediate_tls)
      : sink_(sink),
        immediate_tls_(immediate_tls),
        connection_(sink.loop_, std::move(fd)),
        session_(sink.state_, sink.options_.session, *this, sink.log_.get(), peer.ip, local.ip),
        idle_(sink.loop_.wheel(), [this] { Leave(); }),
        next_due_(sink.loop_.wheel(), [this] { SendDue(); }) {}

  // `self`: where the sink keeps this connection.
  void Start(std::list<std::unique_ptr<Connection>>::iterator self) {
    self_ = self;
    connection_.Start(this);
    idle_.SetAfter(sink_.options_.idle_timeout);
    if (immediate_tls_) {
      connection_.StartTls(sink_.tls_->NewSession());
      return;
    }
    Begin();
    session_.Start();
  }

  void OnTlsReady() override {
    session_.OnTlsReady(connection_.tls()->facts().resumed);
    if (!immediate_tls_) return;
    Begin();
    session_.Start();
  }

  void OnBytes(std::string_view bytes) override {
    idle_.SetAfter(sink_.options_.idle_timeout);
    Begin();
    session_.OnBytes(bytes);
    if (connection_.congested()) connection_.PauseReading();
  }
  void OnWritable() override { connection_.ResumeReading(); }
  void OnClosed(const absl::Status&) override {
    if (connection_.tls() != nullptr && connection_.tls()->facts().version.empty()) {
      ++sink_.state_.counters().tls_failed;
    }
    Leave();
  }

 private:
  struct Delayed {
    MonotonicTime due;
    std::string text;
    bool close = false;
    bool start_tls = false;
  };

  // Replies from here on are due a round trip after now, and never before earlier ones.
  void Begin() {
    if (sink_.options_.round_trip == Duration(0) && line_.empty()) {
      delaying_ = false;
      return;
    }
    delaying_ = true;
    due_ = std::max(due_, sink_.loop_.clock().Now() + sink_.options_.round_trip);
  }

  void Reply(std::string_view lines) override {
    if (!delaying_) {
      connection_.Write(lines);
    } else if (!line_.empty() && line_.back().due == due_) {
      line_.back().text += lines;
    } else {
      PutInLine({due_, std::string(lines)});
    }
  }

  void Delay(Duration delay) override {
    if (!delaying_) {
      delaying_ = true;
      due_ = std::max(due_, sink_.loop_.clock().Now());
    }
    due_ += delay;
  }

  void Close() override {
    if (delaying_) {
      PutInLine({due_, std::string(), true});
    } else {
      connection_.CloseAfterFlush();
    }
  }

  void StartTls() override {
    if (delaying_) {
      PutInLine({due_, std::string(), false, true});
    } else {
      connection_.StartTls(sink_.tls_->NewSession());
    }
  }

  void PutInLine(Delayed delayed) {
    if (line_.empty()) next_due_.Set(delayed.due);
    line_.push_back(std::move(delayed));
  }

  void SendDue() {
    MonotonicTime now = sink_.loop_.clock().Now();
    while (!line_.empty() && line_.front().due <= now) {
      connection_.Write(line_.front().text);
      if (line_.front().close) connection_.CloseAfterFlush();
      if (line_.front().start_tls) connection_.StartTls(sink_.tls_->NewSession());
      line_.pop_front();
    }
    if (!line_.empty()) next_due_.Set(line_.front().due);
  }

  void Leave() {
    auto self = self_;
    sink_.connections_.erase(self);
  }

  Sink& sink_;
  const bool immediate_tls_;
  TcpConnection connection_;
  Session session_;
  Deadline idle_;
  Deadline next_due_;
  std::deque<Delayed> line_;
  MonotonicTime due_{};
  bool delaying_ = false;
  std::list<std::unique_ptr<Connection>>::iterator self_;
};

// One HTTP/1.x request a connection: GET /counters, GET /healthz, POST /rules, POST /reset.
class Sink::HttpClient final : public TcpHandler {
 public:
  HttpClient(Sink& sink, UniqueFd fd)
      : sink_(sink),
        connection_(sink.loop_, std::move(fd)),
        deadline_(sink.loop_.wheel(), [this] { Leave(); }) {
    connection_.Start(this);
    deadline_.SetAfter(kHttpTimeout);
  }

  void OnBytes(std::string_view bytes) override {
    request_.append(bytes);
    size_t header_end = request_.find("\r\n\r\n");
    if (header_end == request_.npos) {
      if (request_.size() > kHttpRequestMaxBytes) Leave();
      return;
    }
    size_t body_size = 0;
    std::string_view length =
        HeaderField(std::string_view(request_).substr(request_.find("\r\n") + 2), "Content-Length");
    for (char c : length) {
      if (c < '0' || c > '9' || body_size > kHttpRequestMaxBytes) break;
      body_size = body_size * 10 + static_cast<size_t>(c - '0');
    }
    if (body_size > kHttpRequestMaxBytes) {
      Answer("413 Content Too Large", "too big\n");
      return;
    }
    if (request_.size() < header_end + 4 + body_size) return;
    std::string_view line = std::string_view(request_).substr(0, request_.find("\r\n"));
    Serve(line.substr(0, line.rfind(' ')),
          std::string_view(request_).substr(header_end + 4, body_size));
  }
  void OnClosed(const absl::Status&) override { Leave(); }

 private:
  void Serve(std::string_view what, std::string_view body) {
    if (what == "GET /counters" || what == "GET /") {
      Answer("200 OK", sink_.CountersJson() + "\n");
    } else if (what == "GET /healthz") {
      Answer("200 OK", "ok\n");
    } else if (what == "POST /rules") {
      absl::Status status = sink_.state_.rules().AddAll(body);
      if (status.ok()) {
        Answer("200 OK", "ok\n");
      } else {
        Answer("400 Bad Request", std::string(status.message()) + "\n");
      }
    } else if (what == "POST /reset") {
      sink_.state_.ResetCounters();
      Answer("200 OK", "ok\n");
    } else {
      Answer("404 Not Found", "GET /counters, GET /healthz, POST /rules, POST /reset\n");
    }
  }

  void Answer(std::string_view status, std::string_view body) {
    std::string head = "HTTP/1.1 ";
    head.append(status)
        .append("\r\nConnection: close\r\nContent-Type: ")
        .append(body.front() == '{' ? "application/json" : "text/plain")
        .append("\r\nContent-Length: ")
        .append(std::to_string(body.size()))
        .append("\r\n\r\n");
    connection_.Write(head);
    connection_.Write(body);
    connection_.CloseAfterFlush();
  }

  void Leave() {
    sink_.http_clients_.remove_if([this](const auto& each) { return each.get() == this; });
  }

  Sink& sink_;
  TcpConnection connection_;
  Deadline deadline_;
  std::string request_;
};

Sink::Sink(EventLoop& loop, SinkState& state, const SinkOptions& options)
    : loop_(loop), state_(state), options_(options) {
  options_.session.starttls = !options_.tls_certificate.empty();
  options_.session.Finish();
}

Sink::~Sink() = default;

absl::Status Sink::OpenTls() {
  if (options_.tls_certificate.empty()) {
    if (options_.listen_tls.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("a listener with TLS needs a certificate");
  }
  TlsServerOptions tls{.protocols = options_.tls_protocols, .ask_client_certificate = true};
  std::string made;
  if (options_.tls_certificate == "self-signed") {
    made = std::filesystem::temp_directory_path() / "sluice-sink-XXXXXX";
    UniqueFd file(::mkstemp(made.data()));
    const std::string pem = ToPem(MakeCertificate({.common_name = options_.session.host_name}));
    if (!file || ::write(file.get(), pem.data(), pem.size()) < 0) {
      return absl::UnavailableError("cannot write a certificate to " + made);
    }
    tls.certificates.push_back({made, ""});
  } else {
    tls.certificates.push_back({options_.tls_certificate, ""});
  }
  auto context = TlsServerContext::Load(tls, loop_.clock());
  if (!made.empty()) std::filesystem::remove(made);
  if (!context.ok()) return context.status();
  tls_ = *std::move(context);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Listener>> Sink::ListenSmtp(const std::vector<Endpoint>& addresses,
                                                           bool immediate_tls) {
  return Listener::Open(
      loop_, {.addresses = addresses, .backlog = 4096},
      [this, immediate_tls](UniqueFd fd, const Endpoint& local, const Endpoint& peer) {
        connections_.push_back(
            std::make_unique<Connection>(*this, std::move(fd), local, peer, immediate_tls));
        connections_.back()->Start(std::prev(connections_.end()));
      });
}

std::vector<Endpoint> Sink::tls_addresses() const {
  return smtp_tls_ == nullptr ? std::vector<Endpoint>() : smtp_tls_->addresses();
}

absl::Status Sink::Start() {
  if (!options_.log.log_path.empty() || !options_.log.store_dir.empty()) {
    log_ = std::make_unique<MessageLog>(loop_);
    absl::Status status = log_->Open(options_.log);
    if (!status.ok()) return status;
  }
  if (absl::Status status = OpenTls(); !status.ok()) return status;
  auto smtp = ListenSmtp(options_.listen, false);
  if (!smtp.ok()) return smtp.status();
  smtp_ = std::move(*smtp);
  if (!options_.listen_tls.empty()) {
    auto smtp_tls = ListenSmtp(options_.listen_tls, true);
    if (!smtp_tls.ok()) return smtp_tls.status();
    smtp_tls_ = std::move(*smtp_tls);
  }
  if (options_.dns) {
    DnsOptions dns = options_.dns_options;
    if (dns.addresses.empty()) {
      for (const Endpoint& endpoint : options_.listen) dns.addresses.push_back(endpoint.ip);
    }
    auto server = DnsServer::Open(loop_, state_, *options_.dns, dns);
    if (!server.ok()) return server.status();
    dns_ = std::move(*server);
  }
  if (options_.http) {
    auto http = Listener::Open(
        loop_, {.addresses = {*options_.http}},
        [this](UniqueFd fd, const Endpoint&, const Endpoint&) {
          if (http_clients_.size() >= kHttpClientsMax) return;
          http_clients_.push_back(std::make_unique<HttpClient>(*this, std::move(fd)));
        });
    if (!http.ok()) return http.status();
    http_ = std::move(*http);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Sink>> Sink::Open(EventLoop& loop, SinkState& state,
                                                 const SinkOptions& options) {
  std::unique_ptr<Sink> sink(new Sink(loop, state, options));
  absl::Status status = sink->Start();
  if (!status.ok()) return status;
  return sink;
}

std::optional<Endpoint> Sink::dns_address() const {
  if (dns_ == nullptr) return std::nullopt;
  return dns_->address();
}

std::optional<Endpoint> Sink::http_address() const {
  if (http_ == nullptr) return std::nullopt;
  return http_->addresses()[0];
}

std::string Sink::CountersJson() const {
  return state_.ToJson(options_.json_domains_max)
      .dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace sluice::sink
