#include "services/delivery/io/outbound_connection.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/net/connector.h"
#include "services/base/net/egress_connector.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/timer_wheel.h"
#include "services/base/net/tls_session.h"
#include "services/delivery/io/outbound_terms.h"
#include "services/delivery/io/outbound_tls.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::delivery {
namespace {

using mail::RecipientVerdict;

class OutboundConnection final : public Connection,
                                 private TcpHandler,
                                 private mail::SmtpClientHandler {
 public:
  OutboundConnection(EventLoop& loop, OutboundTls& tls, OutboundFaultStats& faults,
                     const ConnectTarget& target, ConnectionHandler* handler)
      : loop_(loop),
        tls_(tls),
        faults_(faults),
        target_(target),
        handler_(handler),
        wanted_(tls.Wanted(target, loop.clock().Now())),
        session_(*this, SessionOptions(target, wanted_)),
        deadline_(loop.wheel(), [this] { OnDeadline(); }) {
    ConnectOptions connect;
    const auto ip = IpAddress::Parse(target.address);
    if (!ip) {
      FailLater(
          absl::InvalidArgumentError(absl::StrCat("\"", target.address, "\" is no IP address")));
      return;
    }
    connect.remote = Endpoint{*ip, target.port};
    if (!target.source_ip.empty()) {
      connect.source = IpAddress::Parse(target.source_ip);
      if (!connect.source) {
        FailLater(absl::InvalidArgumentError(
            absl::StrCat("the source \"", target.source_ip, "\" is no IP address")));
        return;
      }
    }
    connect.timeout = Duration(target.settings->connect_timeout_us());
    connect_ = connect;
    Open();
  }

  ~OutboundConnection() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
  }

  void Send(Transaction transaction) override {
    mail::ClientTransaction begin = SessionTransaction(transaction, session_.peer());
    if (begin.require_tls && tcp_ && tcp_->tls() != nullptr) {
      common::v1::TlsInfo tls;
      tls_.Fill(target_, tcp_->tls()->facts(), &tls);
      // RFC 8689 section 4.2.1: a certificate is worth what the name is worth that it is for.
      const bool sure_of_host = !target_.route.from_dns || target_.route.authenticated;
      begin.tls_verified = tls.verdict() == "dane" || tls.verdict() == "mta-sts" ||
                           (tls.verdict() == "verified" && sure_of_host);
    }
    if (begin.require_tls && (!tcp_ || tcp_->tls() == nullptr) && session_.peer().starttls &&
        target_.tls.use_starttls.value_or(target_.settings->use_starttls())) {
      // In clear for a failure that may have passed: the next connection tries anew.
      begin.tls_failed = true;
      tls_.ForgetFailure(target_);
    }
    work_.push_back({std::move(transaction), loop_.clock().Now(), {}, {}, {}});
    if (work_.size() == 1) work_.front().started = loop_.clock().Now();
    session_.Begin(std::move(begin));
    Touch();
  }

  void Quit() override {
    if (!tcp_) return;
    quitting_ = true;
    session_.Quit();
    Touch();
  }

  void Abort() override {
    loop_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
      if (alive.expired() || session_.ended()) return;
      session_.OnDisconnect("closed by this worker: its right to send from here has run out");
      Tell();
    });
  }

 private:
  struct Work {
    Transaction transaction;
    MonotonicTime given;
    MonotonicTime started;
    MonotonicTime data;
    MonotonicTime final_dot;
    uint32_t next_chunk = 0;
    bool fetching = false;
  };
  // What the session said within one call, told to the handler behind it.
  struct Event {
    bool ready = false;  // else it is a result
    queue::v1::GroupResult result;
  };

  void Open() {
    began_ = loop_.clock().Now();
    auto done = [this](absl::StatusOr<UniqueFd> fd) { OnConnected(std::move(fd)); };
    if (target_.proxy != nullptr) {
      egress_.emplace(loop_, *target_.proxy, connect_, std::move(done));
    } else {
      connector_.emplace(loop_, connect_, std::move(done));
    }
  }

  // A connect of its own, for limits on these.
  void Reopen() {
    const Duration wait = handler_->MayConnect();
    if (wait.count() == 0) {
      Open();
      return;
    }
    loop_.After(wait, [this, alive = std::weak_ptr<bool>(alive_)] {
      if (!alive.expired()) Reopen();
    });
  }

  void OnConnected(absl::StatusOr<UniqueFd> fd) {
    if (!fd.ok()) {
      EndConnect(fd.status());
      return;
    }
    connected_ = loop_.clock().Now();
    tcp_.emplace(loop_, *std::move(fd));
    connector_.reset();
    egress_.reset();
    tcp_->Start(this);
    if (target_.tls.implicit) OnStartTls();
    deadline_.SetAfter(session_.timeout());
  }

  void FailLater(absl::Status status) {
    loop_.Post([this, alive = std::weak_ptr<bool>(alive_), status = std::move(status)] {
      if (!alive.expired()) EndConnect(status);
    });
  }

  void EndConnect(const absl::Status& status) {
    ConnectionEnd end;
    end.source_missing = status.code() == absl::StatusCode::kFailedPrecondition;
    end.reply.set_local(true);
    end.reply.set_stage(common::v1::STAGE_CONNECT);
    end.reply.set_enhanced("4.4.1");
    end.reply.set_text(std::string(status.message()));
    end.reply.set_host(target_.host);
    end.reply.set_ip(target_.address);
    handler_->OnClosed(std::move(end));  // destroys us
  }

  void Touch() {
    // An idle connection is watched by the worker.
    if (session_.ended() || (ready_ && work_.empty() && !quitting_)) {
      deadline_.Clear();
    } else {
      deadline_.SetAfter(session_.timeout());
    }
    if (!events_.empty() || end_) TellLater();
  }

  // ---- TcpHandler
  void OnBytes(std::string_view bytes) override {
    const uint64_t replies = session_.replies();
    session_.OnBytes(bytes);
    if (!Tell()) return;
    // Part of a reply leaves the deadline as it is.
    if (session_.replies() != replies) Touch();
  }
  void OnWritable() override {
    if (!work_.empty() && work_.front().transaction.chunks != nullptr) PumpChunks();
  }
  void OnTlsReady() override {
    const absl::Status status = tls_.OnReady(target_, *tcp_->tls());
    if (!status.ok()) {
      FailTls(status.message());
      return;
    }
    tls_done_ = loop_.clock().Now();
    mail::SaslChannelBindings bindings;
    if (!target_.settings->auth_username().empty()) {
      bindings.tls_exporter = tcp_->tls()->ExporterBinding();
      bindings.tls_server_end_point = tcp_->tls()->ServerEndPointBinding();
    }
    session_.OnTlsReady(std::move(bindings));
    Touch();
  }
  void OnClosed(const absl::Status& status) override {
    if (session_.in_tls_handshake()) {
      FailTls(status.message());
      return;
    }
    const bool answer_due = !ready_ || session_.under_way() > 0;
    if (answer_due && !session_.ended() && !quitting_) ++faults_.hang_ups;
    session_.OnDisconnect(status.ok()
                              ? std::string_view("the remote closed the connection")
                              : std::string_view(status.message().data(), status.message().size()));
    Tell();
  }
  void OnDeadline() {
    if (session_.in_tls_handshake()) {
      FailTls("the TLS handshake took too long");
      return;
    }
    session_.OnTimeout();
    Tell();
  }

  // ---- mail::SmtpClientHandler
  void OnOutput(std::string_view text) override { tcp_->Write(text); }
  void OnTrace(bool reply, std::string_view text) override { handler_->OnTrace(reply, text); }
  void OnReady() override {
    ready_ = true;
    events_.push_back({true, {}});
  }
  void OnStartTls() override {
    auto tls = tls_.NewSession(target_);
    if (tls.ok()) {
      tls_began_ = loop_.clock().Now();
      tcp_->StartTls(*std::move(tls));
      return;
    }
    // Within a call of the session's.
    loop_.Post([this, alive = std::weak_ptr<bool>(alive_), status = tls.status()] {
      if (!alive.expired() && session_.in_tls_handshake()) FailTls(status.message());
    });
  }
  void OnWantBody(uint64_t) override {
    Work& work = work_.front();
    work.data = loop_.clock().Now();
    if (work.transaction.chunks != nullptr) {
      PumpChunks();
      return;
    }
    const Body body = work.transaction.body;
    const char* base = body.view().data();
    work.final_dot = work.data;
    // May end the transaction, and `work` with it.
    session_.SendBody(body.view(), true, [this, &body, base](std::string_view slice) {
      tcp_->Write(body, static_cast<size_t>(slice.data() - base), slice.size());
    });
  }
  // Asks for the next chunk unless enough waits to be sent.
  void PumpChunks() {
    Work& work = work_.front();
    if (work.fetching || tcp_->congested() || session_.ended() ||
        work.next_chunk >= work.transaction.lease->chunk_count()) {
      return;
    }
    work.fetching = true;
    work.transaction.chunks->Fetch(work.next_chunk, [this](absl::StatusOr<Body> chunk) {
      Work& work = work_.front();
      work.fetching = false;
      if (!chunk.ok()) {
        session_.AbortBody(std::string(chunk.status().message()));
        Tell();
        return;
      }
      const bool last = ++work.next_chunk == work.transaction.lease->chunk_count();
      if (last) work.final_dot = loop_.clock().Now();
      const Body& body = *chunk;
      const char* base = body.view().data();
      session_.SendBody(body.view(), last, [this, &body, base](std::string_view slice) {
        tcp_->Write(body, static_cast<size_t>(slice.data() - base), slice.size());
      });
      if (!Tell()) return;
      Touch();
      if (!last) PumpChunks();
    });
  }
  bool MayFinish(uint64_t id) override { return handler_->MayFinish(id); }

  void OnResult(uint64_t id, std::vector<RecipientVerdict> recipients) override {
    Work work = std::move(work_.front());
    work_.erase(work_.begin());
    const MonotonicTime now = loop_.clock().Now();
    if (!work_.empty()) work_.front().started = now;
    Event event;
    queue::v1::GroupResult& result = event.result;
    result.set_lease_id(id);
    result.set_time_us(ToUnixMicros(loop_.clock().WallNow()));
    FillOutcomes(recipients, target_, &result);
    common::v1::Attempt* attempt = result.mutable_attempt();
    attempt->set_source_ip(
        (target_.proxy != nullptr ? target_.proxy->client.ip : tcp_->local().ip).ToString());
    attempt->set_destination_ip(target_.address);
    attempt->set_destination_host(target_.host);
    attempt->set_source(target_.ehlo_name);
    attempt->set_delivery_type(target_.settings->type() == "lmtp" ? "lmtp" : "smtp");
    attempt->set_dsn_passed_on(session_.peer().dsn && !target_.settings->ignore_dsn());
    attempt->set_size(work.transaction.lease->message().body_size());
    if (sent_ == 0) {
      for (const std::string& keyword : session_.peer().keywords) {
        attempt->add_esmtp_extensions(keyword);
      }
      attempt->mutable_times()->set_connect_us(Micros(connected_ - began_));
      if (tcp_->tls() != nullptr)
        attempt->mutable_times()->set_tls_us(Micros(tls_done_ - tls_began_));
    }
    if (tcp_->tls() != nullptr) {
      tls_.Fill(target_, tcp_->tls()->facts(), attempt->mutable_tls());
    }
    ++sent_;
    attempt->mutable_times()->set_queue_wait_us(Micros(work.started - work.given));
    if (work.data != MonotonicTime{}) {
      attempt->mutable_times()->set_envelope_us(Micros(work.data - work.started));
    }
    if (work.final_dot != MonotonicTime{}) {
      attempt->mutable_times()->set_data_us(Micros(work.final_dot - work.data));
      attempt->mutable_times()->set_final_us(Micros(now - work.final_dot));
    }
    events_.push_back(std::move(event));
  }
  void OnEnd(const RecipientVerdict& last) override {
    end_ = last;
    switch (session_.fault()) {
      case mail::RemoteFault::kNone:
        break;
      case mail::RemoteFault::kNoSmtp:
        ++faults_.no_smtp;
        break;
      case mail::RemoteFault::kUnasked:
        ++faults_.unasked;
        break;
      case mail::RemoteFault::kInjection:
        ++faults_.injections;
        break;
      case mail::RemoteFault::kTimeout:
        ++faults_.timeouts;
        break;
    }
  }

  static uint32_t Micros(Duration time) {
    return static_cast<uint32_t>(std::clamp<int64_t>(time.count(), 0, UINT32_MAX));
  }

  // The handshake is over without success: the last word, or once a connection in clear. Clear text
  // around STARTTLS does not come here: whoever sends that gets no mail at all.
  void FailTls(absl::string_view why) {
    tls_.OnFailed(target_, tcp_->tls(), std::string_view(why.data(), why.size()));
    if (wanted_ == mail::StartTls::kOpportunistic && OutboundTls::MayFallBack(*target_.settings)) {
      ++tls_.mutable_stats().fallbacks;
      tls_.RememberFailure(target_, loop_.clock().Now());
      deadline_.Clear();
      tcp_.reset();
      session_.Restart(mail::StartTls::kNever);
      Reopen();
      return;
    }
    session_.OnDisconnect(std::string_view(why.data(), why.size()));
    Tell();
  }

  void TellLater() {
    if (std::exchange(tell_posted_, true)) return;
    loop_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
      if (alive.expired()) return;
      tell_posted_ = false;
      if (Tell()) Touch();
    });
  }

  // False where a callback destroyed us, or the connection is over.
  bool Tell() {
    bool destroyed = false;
    bool* outer = std::exchange(destroyed_, &destroyed);
    while (!events_.empty()) {
      std::vector<Event> events = std::exchange(events_, {});
      for (Event& event : events) {
        if (event.ready) {
          handler_->OnReady();
        } else {
          handler_->OnResult(std::move(event.result));
        }
        if (destroyed) return false;
      }
    }
    if (end_) {
      ConnectionEnd end;
      end.ready = ready_;
      end.reply = ToReply(*end_, target_);
      if (target_.proxy != nullptr && end_->local && session_.replies() == 0) {
        // A proxy that says nothing of its own looks like a remote that does not.
        absl::StrAppend(end.reply.mutable_text(), " (through proxy ",
                        target_.proxy->server.ToString(), ")");
      }
      tcp_->CloseAfterFlush();
      handler_->OnClosed(std::move(end));
      if (!destroyed) destroyed_ = outer;
      return false;
    }
    destroyed_ = outer;
    return true;
  }

  EventLoop& loop_;
  OutboundTls& tls_;
  OutboundFaultStats& faults_;
  const ConnectTarget target_;
  ConnectionHandler* const handler_;
  const mail::StartTls wanted_;
  mail::SmtpClientSession session_;
  Deadline deadline_;
  ConnectOptions connect_;
  std::optional<Connector> connector_;
  std::optional<EgressConnector> egress_;  // instead, through a proxy
  std::optional<TcpConnection> tcp_;
  std::vector<Work> work_;  // at most two
  std::vector<Event> events_;
  std::optional<RecipientVerdict> end_;  // told behind all results
  MonotonicTime began_{};
  MonotonicTime connected_{};
  MonotonicTime tls_began_{};
  MonotonicTime tls_done_{};
  uint64_t sent_ = 0;
  bool ready_ = false;
  bool quitting_ = false;
  bool tell_posted_ = false;
  bool* destroyed_ = nullptr;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace

OutboundConnections::OutboundConnections(EventLoop& loop)
    : loop_(loop), tls_(std::make_unique<OutboundTls>()) {}

OutboundConnections::~OutboundConnections() = default;

const OutboundTlsStats& OutboundConnections::tls_stats() const { return tls_->stats(); }

std::unique_ptr<Connection> OutboundConnections::Connect(const ConnectTarget& target,
                                                         ConnectionHandler* handler) {
  return std::make_unique<OutboundConnection>(loop_, *tls_, *faults_, target, handler);
}

}  // namespace sluice::delivery
