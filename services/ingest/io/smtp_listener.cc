#include "services/ingest/io/smtp_listener.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "services/base/check.h"
#include "services/base/net/tcp_connection.h"
#include "services/ingest/core/smtp_connection.h"

namespace sluice::ingest {
namespace {

// Replies are short; a client with this much unread gets no more until it reads.
constexpr TcpConnectionOptions kTcpOptions = {.output_high_bytes = 16 * 1024,
                                              .output_low_bytes = 4 * 1024};
// How long the last reply may take to leave.
constexpr Duration kLinger = std::chrono::seconds(10);

}  // namespace

// The clients of one loop.
class SmtpListener::Clients {
 public:
  Clients(const IngestLoop& where, ConnectionLimits& limits) : where_(where), limits_(limits) {}

  // On the loop.
  void Adopt(UniqueFd fd);
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
  Connection(Clients& clients, UniqueFd fd)
      : clients_(clients),
        tcp_(clients.loop(), std::move(fd), kTcpOptions),
        deadline_(clients.loop().wheel(), [this] { OnDeadline(); }),
        smtp_(clients.ingest(),
              {tcp_.peer().ip.ToString(), tcp_.local().ip.ToString(), tcp_.local().ToString()},
              *this) {}

  void Start() {
    const auto refusal = clients_.limits().Take(smtp_.session_profile(), slot_);
    tcp_.Start(this);
    smtp_.Start(refusal ? &*refusal : nullptr);
    Update();
  }

 private:
  void OnBytes(std::string_view bytes) override {
    if (ending_) return;
    smtp_.session().OnBytes(now(), bytes);
    Update();
  }
  void OnWritable() override { Update(); }
  bool OnPeerFinished() override {
    smtp_.session().OnEof(now());
    Update();
    return true;  // answers may still be due; a session that has none is closing
  }
  void OnClosed(const absl::Status&) override { clients_.Remove(this); }  // destroys this
  void OnWake() override { Update(); }

  void OnDeadline() {
    if (ending_) {
      tcp_.Close();
      clients_.Remove(this);  // destroys this
      return;
    }
    smtp_.session().OnTimer(now());
    Update();
  }

  // Brings the socket in line with the session.
  void Update() {
    if (ending_) return;
    mail::SmtpServerSession& session = smtp_.session();
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
  SmtpConnection smtp_;
};

void SmtpListener::Clients::Adopt(UniqueFd fd) {
  auto connection = std::make_unique<Connection>(*this, std::move(fd));
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
  absl::StatusOr<std::unique_ptr<Listener>> opened =
      Listener::Open(accept_loop, {.addresses = options.addresses, .backlog = options.backlog},
                     [raw](UniqueFd fd, const Endpoint& local, const Endpoint& peer) {
                       raw->OnAccept(std::move(fd), local, peer);
                     });
  if (!opened.ok()) return opened.status();
  listener->listener_ = *std::move(opened);
  listener->addresses_ = listener->listener_->addresses();
  return listener;
}

void SmtpListener::OnAccept(UniqueFd fd, const Endpoint&, const Endpoint&) {
  const std::shared_ptr<Clients>& clients = clients_[next_loop_++ % clients_.size()];
  if (clients->loop().InLoopThread()) {
    clients->Adopt(std::move(fd));
    return;
  }
  clients->loop().Post([clients, fd = std::move(fd)]() mutable { clients->Adopt(std::move(fd)); });
}

void SmtpListener::StopAccepting() { listener_.reset(); }

}  // namespace sluice::ingest
