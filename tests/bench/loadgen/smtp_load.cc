#include "tests/bench/loadgen/smtp_load.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "services/base/check.h"
#include "services/base/net/connector.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/tls_session.h"

namespace sluice::bench {
namespace {

constexpr Duration kReconnectPause = std::chrono::milliseconds(50);
// Idle sessions that connect at one time.
constexpr size_t kIdleAtOnce = 100;

}  // namespace

class SmtpLoad::Session final : public TcpHandler {
 public:
  Session(SmtpLoad& load, uint32_t index, bool silent = false)
      : load_(load),
        silent_(silent),
        target_(load.options_.targets[index % load.options_.targets.size()]),
        deadline_(load.loop_.wheel(), [this] { OnDeadline(); }) {
    const auto& sources = load.options_.sources;
    if (!sources.empty()) source_ = sources[index % sources.size()];
  }

  void Connect() {
    reconnecting_ = false;
    connector_ = std::make_unique<Connector>(
        load_.loop_,
        ConnectOptions{.remote = target_, .source = source_, .timeout = load_.options_.timeout},
        [this](absl::StatusOr<UniqueFd> fd) { OnConnected(std::move(fd)); });
  }

  // A message may be due now.
  void Wake() {
    if (idle_) BeginMessage();
  }

  void OnBytes(std::string_view bytes) override {
    deadline_.SetAfter(load_.options_.timeout);
    while (!bytes.empty() && connection_) {
      size_t end = bytes.find('\n');
      if (end == bytes.npos) {
        partial_.append(bytes);
        return;
      }
      if (partial_.empty()) {
        OnLine(bytes.substr(0, end));
      } else {
        partial_.append(bytes.substr(0, end));
        std::string line = std::move(partial_);
        partial_.clear();
        OnLine(line);
      }
      bytes.remove_prefix(end + 1);
    }
  }

  void OnTlsReady() override {
    ++load_.result_.tls_handshakes;
    if (connection_->tls()->facts().resumed) ++load_.result_.tls_resumed;
    if (load_.options_.tls == SmtpLoadOptions::Tls::kStartTls) SayEhlo();
  }
  void OnClosed(const absl::Status&) override { Reconnect(); }

 private:
  enum class Expect : uint8_t {
    kGreeting,
    kEhlo,
    kStartTls,
    kRset,
    kMail,
    kRcpt,
    kData,
    kDot,
    kQuit
  };

  struct Message {
    uint64_t number;
    MonotonicTime started;
    uint32_t recipients_sent = 0;
    uint32_t recipients_taken = 0;
    char failure = 0;  // first digit of the first reply that failed
    std::string domain;
  };

  void OnConnected(absl::StatusOr<UniqueFd> fd) {
    if (!fd.ok()) {
      if (++load_.result_.connect_errors > load_.options_.connect_errors_max) {
        load_.Finish();
        return;
      }
      reconnecting_ = true;
      deadline_.SetAfter(kReconnectPause);
      return;
    }
    ++load_.result_.connections;
    connection_ = std::make_unique<TcpConnection>(load_.loop_, std::move(*fd));
    connection_->Start(this);
    if (load_.options_.tls == SmtpLoadOptions::Tls::kImmediate) StartTls();
    expected_.assign(1, Expect::kGreeting);
    deadline_.SetAfter(load_.options_.timeout);
  }

  void StartTls() {
    TlsClientTarget target;
    if (load_.options_.tls_resumption) target.session_key = target_.ToString();
    connection_->StartTls(load_.tls_->NewSession(target));
  }
  void SayEhlo() {
    connection_->Write("EHLO " + load_.options_.ehlo + "\r\n");
    expected_.push_back(Expect::kEhlo);
  }

  void OnDeadline() {
    if (reconnecting_) {
      Connect();
    } else {
      Reconnect();
    }
  }

  // What had no answer is lost: whether it was taken is not known, so it is not repeated.
  void Reconnect() {
    uint64_t unanswered = messages_.size();
    messages_.clear();
    expected_.clear();
    partial_.clear();
    idle_ = false;
    rset_first_ = false;
    sent_on_connection_ = 0;
    deadline_.Clear();
    // Not in a callback of its own: the connection may be on the stack.
    load_.loop_.Post([gone = std::move(connection_)] {});
    for (; unanswered > 0; --unanswered) load_.OnOutcome(&LoadResult::lost);
    if (silent_) {  // it was there once: a rate beside fewer of them would be no answer
      ++load_.result_.connect_errors;
      return;
    }
    if (load_.finished_ || load_.taken_ >= load_.load_.messages) return;
    reconnecting_ = true;
    deadline_.SetAfter(quitting_ ? Duration(0) : kReconnectPause);
    quitting_ = false;
  }

  void OnLine(std::string_view line) {
    if (line.size() < 3) return;
    if (line.size() > 3 && line[3] == '-') return;
    if (expected_.empty()) {  // such as a 421 between transactions; the server closes
      return;
    }
    Expect expect = expected_.front();
    expected_.pop_front();
    OnReply(expect, line[0]);
  }

  void OnReply(Expect expect, char digit) {
    bool good = digit == '2' || digit == '3';
    switch (expect) {
      case Expect::kGreeting:
        if (!good) {
          ++load_.result_.connect_errors;
          Reconnect();
          return;
        }
        SayEhlo();
        return;
      case Expect::kEhlo:
        if (load_.options_.tls == SmtpLoadOptions::Tls::kStartTls &&
            connection_->tls() == nullptr) {
          connection_->Write("STARTTLS\r\n");
          expected_.push_back(Expect::kStartTls);
        } else if (silent_) {
          deadline_.Clear();
          load_.OnIdle();
        } else {
          BeginMessage();
        }
        return;
      case Expect::kStartTls:
        if (good) {
          StartTls();
        } else {
          ++load_.result_.connect_errors;
          Reconnect();
        }
        return;
      case Expect::kRset:
      case Expect::kQuit:
        return;
      case Expect::kMail:
        if (!good) Failed(digit);
        if (!load_.options_.pipelining) {
          if (good) {
            SendRcpt();
          } else {
            EndMessage();
          }
        }
        return;
      case Expect::kRcpt: {
        Message& message = messages_.front();
        if (good) {
          ++message.recipients_taken;
        } else {
          Failed(digit);
        }
        if (load_.options_.pipelining) return;
        if (message.recipients_sent < load_.load_.recipients) {
          SendRcpt();
        } else if (message.recipients_taken > 0) {
          connection_->Write("DATA\r\n");
          expected_.push_back(Expect::kData);
        } else {
          EndMessage();
        }
        return;
      }
      case Expect::kData:
        if (digit == '3') {
          SendText();
        } else {
          Failed(digit);
          EndMessage();
        }
        return;
      case Expect::kDot:
        OnFinalReply(digit);
        return;
    }
  }

  void Failed(char digit) {
    if (messages_.front().failure == 0) messages_.front().failure = digit;
  }

  void BeginMessage() {
    idle_ = false;
    uint64_t limit = load_.options_.messages_per_connection;
    if (limit != 0 && sent_on_connection_ >= limit) {
      if (messages_.empty()) Quit();
      return;
    }
    uint64_t number;
    if (!load_.TakeMessage(this, &number)) {
      idle_ = true;
      if (messages_.empty() && load_.taken_ >= load_.load_.messages) Quit();
      return;
    }
    ++sent_on_connection_;
    messages_.push_back({.number = number, .started = load_.loop_.clock().Now()});
    Message& message = messages_.back();
    message.domain = load_.domains_.Next();
    std::string out;
    if (rset_first_) {
      out += "RSET\r\n";
      expected_.push_back(Expect::kRset);
      rset_first_ = false;
    }
    out += "MAIL FROM:<" + load_.load_.from + ">\r\n";
    expected_.push_back(Expect::kMail);
    if (load_.options_.pipelining) {
      for (; message.recipients_sent < load_.load_.recipients; ++message.recipients_sent) {
        out += "RCPT TO:<" +
               load_.maker_.Recipient(number, message.recipients_sent, message.domain) + ">\r\n";
        expected_.push_back(Expect::kRcpt);
      }
      out += "DATA\r\n";
      expected_.push_back(Expect::kData);
    }
    connection_->Write(out);
  }

  void SendRcpt() {
    Message& message = messages_.front();
    connection_->Write(
        "RCPT TO:<" +
        load_.maker_.Recipient(message.number, message.recipients_sent, message.domain) + ">\r\n");
    ++message.recipients_sent;
    expected_.push_back(Expect::kRcpt);
  }

  void SendText() {
    connection_->Write(
        load_.maker_.Header(messages_.front().number, load_.loop_.clock().WallNow()));
    connection_->Write(load_.maker_.body());
    connection_->Write(".\r\n");
    expected_.push_back(Expect::kDot);
    if (load_.options_.pipelining) BeginMessage();
  }

  void OnFinalReply(char digit) {
    if (digit == '2') {
      load_.result_.latency.Record((load_.loop_.clock().Now() - messages_.front().started).count());
    } else {
      Failed(digit);
    }
    bool next_is_under_way = messages_.size() > 1;
    bool taken = digit == '2';
    char failure = messages_.front().failure;
    messages_.pop_front();
    Account(taken, failure);
    if (!next_is_under_way && connection_) BeginMessage();
  }

  // The message failed before its text; the transaction may be open.
  void EndMessage() {
    char failure = messages_.front().failure;
    messages_.pop_front();
    rset_first_ = true;
    Account(false, failure);
    if (connection_) BeginMessage();
  }

  void Account(bool taken, char failure) {
    load_.OnOutcome(taken            ? &LoadResult::accepted
                    : failure == '4' ? &LoadResult::deferred
                                     : &LoadResult::rejected);
  }

  void Quit() {
    quitting_ = true;
    connection_->Write("QUIT\r\n");
    expected_.push_back(Expect::kQuit);
  }

  SmtpLoad& load_;
  const bool silent_;
  const Endpoint target_;
  std::optional<IpAddress> source_;
  std::unique_ptr<Connector> connector_;
  std::unique_ptr<TcpConnection> connection_;
  std::deque<Expect> expected_;
  std::deque<Message> messages_;  // the one whose replies come, and the one sent ahead
  std::string partial_;
  uint64_t sent_on_connection_ = 0;
  bool idle_ = false;
  bool rset_first_ = false;
  bool quitting_ = false;
  bool reconnecting_ = false;
  Deadline deadline_;
};

SmtpLoad::SmtpLoad(EventLoop& loop, const LoadOptions& load, const SmtpLoadOptions& options,
                   absl::AnyInvocable<void()> on_finished)
    : loop_(loop),
      load_(load),
      options_(options),
      on_finished_(std::move(on_finished)),
      maker_(load),
      domains_(load),
      pace_(load.rate, loop.clock().Now()),
      wake_(loop.wheel(), [this] { WakeWaiting(); }) {}

SmtpLoad::~SmtpLoad() = default;

void SmtpLoad::Start() {
  start_ = loop_.clock().Now();
  pace_ = Pace(load_.rate, start_);
  if (options_.tls != SmtpLoadOptions::Tls::kNone) {
    auto tls = TlsClientContext::Load({});
    SLUICE_CHECK(tls.ok());
    tls_ = *std::move(tls);
  }
  for (uint32_t i = 0; i < options_.idle_sessions; ++i) {
    sessions_.push_back(std::make_unique<Session>(*this, i, true));
    if (i < kIdleAtOnce) sessions_.back()->Connect();
  }
  if (options_.idle_sessions == 0) StartMessages();
}

void SmtpLoad::OnIdle() {
  ++idle_ready_;
  const size_t next = idle_ready_ + kIdleAtOnce - 1;
  if (next < options_.idle_sessions) sessions_[next]->Connect();
  if (idle_ready_ == options_.idle_sessions) StartMessages();
}

// The time counts from here: all that is to be idle is.
void SmtpLoad::StartMessages() {
  start_ = loop_.clock().Now();
  pace_ = Pace(load_.rate, start_);
  for (uint32_t i = 0; i < options_.sessions; ++i) {
    sessions_.push_back(std::make_unique<Session>(*this, i));
    sessions_.back()->Connect();
  }
}

bool SmtpLoad::TakeMessage(Session* session, uint64_t* number) {
  if (taken_ >= load_.messages) return false;
  if (load_.rate > 0) {
    MonotonicTime due = pace_.Due(taken_);
    if (due > loop_.clock().Now()) {
      waiting_.push_back(session);
      wake_.Set(due);
      return false;
    }
  }
  *number = taken_++;
  return true;
}

void SmtpLoad::WakeWaiting() {
  std::vector<Session*> waiting = std::move(waiting_);
  waiting_.clear();
  for (Session* session : waiting) session->Wake();
}

void SmtpLoad::OnOutcome(uint64_t LoadResult::*kind) {
  ++(result_.*kind);
  if (result_.finished() >= load_.messages) Finish();
}

void SmtpLoad::Finish() {
  if (finished_) return;
  finished_ = true;
  result_.elapsed = loop_.clock().Now() - start_;
  on_finished_();
}

}  // namespace sluice::bench
