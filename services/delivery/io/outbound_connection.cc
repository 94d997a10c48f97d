#include "services/delivery/io/outbound_connection.h"

#include <algorithm>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/net/connector.h"
#include "services/base/net/egress_connector.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/timer_wheel.h"
#include "services/base/net/tls_session.h"
#include "services/delivery/io/outbound_tls.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::delivery {
namespace {

using mail::RecipientVerdict;
using mail::SmtpStage;
using mail::Verdict;

constexpr size_t kKeptReplyBytes = 2048;

common::v1::Stage ToStage(SmtpStage stage) {
  switch (stage) {
    case SmtpStage::kGreeting:
      return common::v1::STAGE_GREETING;
    case SmtpStage::kEhlo:
      return common::v1::STAGE_EHLO;
    case SmtpStage::kAuth:
      return common::v1::STAGE_AUTH;
    case SmtpStage::kMail:
      return common::v1::STAGE_MAIL;
    case SmtpStage::kRcpt:
      return common::v1::STAGE_RCPT;
    case SmtpStage::kData:
      return common::v1::STAGE_DATA;
    case SmtpStage::kBody:
      return common::v1::STAGE_BODY;
    case SmtpStage::kFinalDot:
      return common::v1::STAGE_FINAL_DOT;
    case SmtpStage::kStartTls:
      return common::v1::STAGE_STARTTLS;
  }
  return common::v1::STAGE_UNSPECIFIED;
}

queue::v1::RecipientOutcome ToOutcome(Verdict verdict) {
  switch (verdict) {
    case Verdict::kDelivered:
      return queue::v1::RECIPIENT_OUTCOME_DELIVERED;
    case Verdict::kTransient:
      return queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
    case Verdict::kPermanent:
      return queue::v1::RECIPIENT_OUTCOME_PERMANENT;
    case Verdict::kNotAttempted:
      return queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;
  }
  return queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
}

bool Equal(const RecipientVerdict& a, const RecipientVerdict& b) {
  return a.verdict == b.verdict && a.stage == b.stage && a.reply.code == b.reply.code &&
         a.reply.enhanced == b.reply.enhanced && a.reply.text == b.reply.text;
}

// What the sender asked of delivery reports goes on to a peer that makes them (RFC 3461
// section 5.2).
void FillDsn(const queue::v1::Lease& lease, mail::ClientTransaction* transaction) {
  const common::v1::Message& message = lease.message();
  // Of a mail merge each recipient goes alone, with its own.
  const std::string& own = lease.deliveries(0).envelope_id();
  transaction->envid = own.empty() ? message.envid() : own;
  if (message.dsn_return() == common::v1::DSN_RETURN_FULL) {
    transaction->ret = mail::ClientTransaction::Ret::kFull;
  } else if (message.dsn_return() == common::v1::DSN_RETURN_HEADERS) {
    transaction->ret = mail::ClientTransaction::Ret::kHeaders;
  }
  const bool any =
      std::any_of(lease.deliveries().begin(), lease.deliveries().end(),
                  [](const auto& each) { return each.notify() != 0 || !each.orcpt().empty(); });
  if (!any) return;
  for (const auto& each : lease.deliveries()) {
    transaction->dsn.push_back({each.notify(), each.orcpt()});
  }
}

// Whether a message that came with SMTPUTF8 needs it: many clients say it for plain ASCII. What is
// not at hand is taken to need it.
bool HeaderNeedsUtf8(const Transaction& transaction) {
  if (transaction.chunks != nullptr) return true;
  std::string_view header = transaction.body.view();
  const uint64_t size = transaction.lease->message().header_size();
  if (size > 0) header = header.substr(0, size);
  return std::any_of(header.begin(), header.end(),
                     [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

// For SCRAM: 160 bits of the system's randomness.
std::string MakeNonce() {
  std::random_device random;
  std::string nonce;
  for (int i = 0; i < 5; ++i) absl::StrAppend(&nonce, absl::Hex(random(), absl::kZeroPad8));
  return nonce;
}

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
        session_(*this, OptionsOf(target, wanted_)),
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
    const queue::v1::Lease& lease = *transaction.lease;
    mail::ClientTransaction begin;
    begin.id = lease.lease_id();
    begin.mail_from = lease.message().mail_from_rewritten().empty()
                          ? lease.message().mail_from()
                          : lease.message().mail_from_rewritten();
    for (const auto& delivery : lease.deliveries()) begin.recipients.push_back(delivery.rcpt());
    begin.size = lease.message().body_size();
    begin.eight_bit = lease.message().body_type() == common::v1::BODY_TYPE_8BITMIME;
    begin.binary = lease.message().body_type() == common::v1::BODY_TYPE_BINARYMIME;
    begin.require_tls = lease.message().require_tls();
    if (begin.require_tls && tcp_ && tcp_->tls() != nullptr) {
      common::v1::TlsInfo tls;
      tls_.Fill(target_, tcp_->tls()->facts(), &tls);
      // RFC 8689 section 4.2.1: a certificate is worth what the name is worth that it is for.
      const bool sure_of_host = !target_.route.from_dns || target_.route.authenticated;
      begin.tls_verified = tls.verdict() == "dane" || tls.verdict() == "mta-sts" ||
                           (tls.verdict() == "verified" && sure_of_host);
    }
    begin.smtputf8 =
        lease.message().smtputf8() && (session_.peer().smtputf8 || HeaderNeedsUtf8(transaction));
    FillDsn(lease, &begin);
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

  static mail::SmtpClientOptions OptionsOf(const ConnectTarget& target, mail::StartTls wanted) {
    const auto& settings = *target.settings;
    mail::SmtpClientOptions options;
    options.ehlo_name = target.ehlo_name.empty() ? "localhost" : target.ehlo_name;
    options.use_pipelining = !settings.ignore_pipelining();
    options.use_8bitmime = !settings.ignore_8bitmime();
    options.use_chunking = !settings.ignore_chunking();
    options.use_dsn = !settings.ignore_dsn();
    options.lmtp = settings.type() == "lmtp";
    options.bounce_upon_transfer_failure = settings.bounce_upon_transfer_failure();
    options.bounce_upon_pix_transfer_failure = settings.bounce_upon_pix_transfer_failure();
    options.assume_delivery_upon_final_timeout =
        settings.assume_delivery_upon_data_termination_timeout();
    options.mail_timeout = Duration(settings.smtp_mail_reply_timeout_us());
    options.rcpt_timeout = Duration(settings.smtp_rcpt_reply_timeout_us());
    options.data_initiation_timeout = Duration(settings.smtp_data_initiation_timeout_us());
    options.greeting_timeout = Duration(settings.smtp_greeting_timeout_us());
    options.command_timeout = Duration(settings.smtp_command_reply_timeout_us());
    options.data_timeout = Duration(settings.data_send_timeout_us());
    options.final_timeout = Duration(settings.smtp_data_termination_timeout_us());
    if (!settings.auth_username().empty()) {
      options.auth = mail::SaslCredentials{settings.auth_username(), settings.auth_password()};
      options.auth_in_clear = settings.use_unencrypted_plain_auth();
      options.auth_nonce = MakeNonce();
    }
    options.starttls = wanted;
    options.implicit_tls = target.tls.implicit;
    if (settings.tls_handshake_timeout_us() > 0) {
      options.tls_timeout = Duration(settings.tls_handshake_timeout_us());
    }
    return options;
  }

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
    FillPeer(&end.reply);
    handler_->OnClosed(std::move(end));  // destroys us
  }

  void FillPeer(common::v1::Reply* reply) const {
    reply->set_host(target_.host);
    reply->set_ip(target_.address);
  }

  common::v1::Reply ToReply(const RecipientVerdict& verdict) const {
    common::v1::Reply reply;
    reply.set_code(static_cast<uint32_t>(verdict.reply.code));
    reply.set_enhanced(verdict.reply.enhanced);
    reply.set_text(verdict.reply.text.substr(0, kKeptReplyBytes));
    reply.set_stage(ToStage(verdict.stage));
    reply.set_local(verdict.local);
    FillPeer(&reply);
    return reply;
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
    // What most recipients got stands once; the others are named.
    size_t common = 0;
    size_t best = 0;
    for (size_t i = 0; i < recipients.size() && i < 8; ++i) {
      const size_t same = static_cast<size_t>(
          std::count_if(recipients.begin(), recipients.end(),
                        [&](const auto& each) { return Equal(each, recipients[i]); }));
      if (same > best) {
        best = same;
        common = i;
      }
    }
    result.set_outcome(ToOutcome(recipients[common].verdict));
    *result.mutable_reply() = ToReply(recipients[common]);
    for (size_t i = 0; i < recipients.size(); ++i) {
      if (Equal(recipients[i], recipients[common])) continue;
      queue::v1::RecipientResult* own = result.add_recipients();
      own->set_position(static_cast<uint32_t>(i));
      own->set_outcome(ToOutcome(recipients[i].verdict));
      *own->mutable_reply() = ToReply(recipients[i]);
    }
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
      end.reply = ToReply(*end_);
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
