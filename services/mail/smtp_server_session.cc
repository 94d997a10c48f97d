#include "services/mail/smtp_server_session.h"

#include <algorithm>
#include <utility>

namespace sluice::mail {
namespace {

// An idle session keeps no larger buffer than this.
constexpr size_t kKeptBufferBytes = 2 * 1024;

}  // namespace

void SmtpServerSession::Start(MonotonicTime now, const ServerReply* refusal) {
  activity_ = now;
  all_read_ = now;
  if (refusal != nullptr) {
    Reply(*refusal);
    closing_ = true;
    return;
  }
  Greet();
}

void SmtpServerSession::Greet() {
  output_ += "220 ";
  output_ += options_->host_name;
  output_ += ' ';
  output_ += options_->greeting;
  output_ += "\r\n";
}

bool SmtpServerSession::CanProcess() const {
  return !closing_ && !handshake_ && question_ == Question::kNone && held_ == nullptr &&
         !body_stopped() && output_.size() - sent_ < kOutputHighWaterBytes;
}

bool SmtpServerSession::wants_read() const { return !eof_ && (tls_handshake() || CanProcess()); }

std::optional<MonotonicTime> SmtpServerSession::deadline() const {
  if (handshake_) return activity_ + options_->tls_timeout;
  if (output_.size() > sent_) {
    return std::min(activity_ + options_->command_timeout, all_read_ + kUnreadTimeMax);
  }
  if (held_ != nullptr) return held_->until;
  if (question_ != Question::kNone || body_stopped()) return std::nullopt;
  if (stage_ == Stage::kData || chunk_.has_value()) {
    return std::min(activity_ + options_->data_timeout, MessageDeadline());
  }
  const MonotonicTime idle = activity_ + options_->command_timeout;
  // Between its chunks a message's time goes on.
  return stage_ == Stage::kChunks ? std::min(idle, MessageDeadline()) : idle;
}

MonotonicTime SmtpServerSession::MessageDeadline() const {
  const MonotonicTime last = data_begin_ + kMessageTimeMax;
  if (options_->min_data_bytes_per_second == 0) return last;
  // A cap, so that no rate and no size leave the clock's range.
  const uint64_t earned_s =
      std::min<uint64_t>(data_bytes_ / options_->min_data_bytes_per_second, 1'000'000'000);
  return std::min(last, data_begin_ + kDataRateGrace + std::chrono::seconds(earned_s));
}

void SmtpServerSession::OnBytes(MonotonicTime now, std::string_view bytes) {
  if (closing_ || handshake_) return;
  NoteOutput(now);
  if (pending_.empty()) {
    Process(now, bytes);
  } else {
    pending_.append(bytes);
    const std::string buffered = std::exchange(pending_, std::string());
    Process(now, buffered);
  }
}

void SmtpServerSession::Process(MonotonicTime now, std::string_view bytes) {
  while (!bytes.empty() && CanProcess()) {
    if (stage_ == Stage::kData) {
      activity_ = now;
      const size_t taken =
          reader_->Feed(bytes, [this](std::string_view text) { handler_.OnBody(text); });
      bytes.remove_prefix(taken);
      data_bytes_ += taken;
      if (body_paused_) data_paused_ = now;
      if (reader_->done()) EndOfData();
      continue;
    }
    if (chunk_) {
      activity_ = now;
      ReadChunk(bytes);
      continue;
    }
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) {
      if (bytes.size() < options_->max_line_bytes) break;
      Punish(ClientFault::kLineTooLong, 500, {5, 5, 2}, "Line too long");
      return;
    }
    const std::string_view line = bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
    activity_ = now;
    if (line.size() + 1 > options_->max_line_bytes) {
      Punish(ClientFault::kLineTooLong, 500, {5, 5, 2}, "Line too long");
      return;
    }
    // A line that ends otherwise may be a smuggled command: nothing behind it is trusted.
    if (line.empty() || line.back() != '\r' ||
        line.find_first_of(std::string_view("\r\0", 2)) != line.size() - 1) {
      Punish(ClientFault::kBareLineEnd, 554, {5, 5, 2},
             "Lines end with CR LF, and hold neither of them nor NUL");
      return;
    }
    OnLine(now, line.substr(0, line.size() - 1));
  }
  if (closing_) return;
  if (handshake_) {
    handler_.OnStartTls(bytes.size());
    return;
  }
  pending_.assign(bytes);
}

void SmtpServerSession::ProcessPending(MonotonicTime now) {
  if (!pending_.empty()) {
    const std::string buffered = std::exchange(pending_, std::string());
    Process(now, buffered);
  }
  if (eof_ && CanProcess()) {
    if (within_text()) handler_.OnFault(ClientFault::kCutOff);
    ResetTransaction();
    closing_ = true;
  }
}

void SmtpServerSession::OnLine(MonotonicTime, std::string_view line) {
  if (options_->trace) TraceLine(line);
  if (in_auth_) {
    OnAuthLine(line);
    return;
  }
  const CommandLine command = SplitCommand(line);
  if (acks_off_) {
    quiet_ = command.verb == SmtpVerb::kXmrg || command.verb == SmtpVerb::kXdfn ||
             (command.verb == SmtpVerb::kRcpt && (merge_ != nullptr || merge_error_));
  }
  // XPRT will say so: a client that does not hear of it goes on to the end of its list.
  const bool passed_over = quiet_ && merge_error_;
  if (passed_over && ++passed_over_ <= kMaxPassedOver) return;
  if (++idle_commands_ > options_->max_idle_commands) {
    Punish(ClientFault::kTooManyErrors, 421, {4, 7, 0}, "Too many commands without a message");
    return;
  }
  if (passed_over) return;
  switch (command.verb) {
    case SmtpVerb::kHelo:
    case SmtpVerb::kEhlo:
      OnHelloCommand(command.argument, command.verb == SmtpVerb::kEhlo);
      return;
    case SmtpVerb::kMail:
      OnMailCommand(command.argument);
      return;
    case SmtpVerb::kRcpt:
      OnRcptCommand(command.argument);
      return;
    case SmtpVerb::kData:
      OnDataCommand(command.argument);
      return;
    case SmtpVerb::kRset:
      if (!command.argument.empty()) {
        Error(501, {5, 5, 4}, "RSET takes no argument");
        return;
      }
      ResetTransaction();
      Reply(250, {2, 0, 0}, "OK");
      if (shutting_down_) Fatal(421, {4, 3, 2}, options_->host_name + " is shutting down");
      return;
    case SmtpVerb::kNoop:
      Reply(250, {2, 0, 0}, "OK");
      return;
    case SmtpVerb::kQuit:
      if (!command.argument.empty()) {
        Error(501, {5, 5, 4}, "QUIT takes no argument");
        return;
      }
      Reply(221, {2, 0, 0}, options_->host_name + " closes the connection");
      ResetTransaction();
      closing_ = true;
      return;
    case SmtpVerb::kVrfy:
      if (command.argument.empty()) {
        Error(501, {5, 5, 4}, "VRFY wants an address");
        return;
      }
      // RFC 5321 3.5.3: neither yes nor no.
      Reply(252, {2, 1, 5}, "Cannot verify the address, but mail to it is taken for delivery");
      return;
    case SmtpVerb::kHelp:
      Reply(214, {2, 0, 0},
            "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET VRFY NOOP HELP QUIT\nSee RFC 5321");
      return;
    case SmtpVerb::kBdat:
      OnBdatCommand(command.argument);
      return;
    case SmtpVerb::kAuth:
      OnAuthCommand(command.argument);
      return;
    case SmtpVerb::kXack:
    case SmtpVerb::kXmrg:
    case SmtpVerb::kXdfn:
    case SmtpVerb::kXprt:
      OnMergeCommand(command);
      return;
    case SmtpVerb::kXclient:
      OnXclientCommand(command.argument);
      return;
    case SmtpVerb::kStartTls:
      OnStartTlsCommand(command.argument);
      return;
    case SmtpVerb::kExpn:
      Error(502, {5, 5, 1}, "Command not implemented");
      return;
    case SmtpVerb::kForeign:
      Punish(ClientFault::kForeignProtocol, 554, {5, 5, 1}, "This is a mail server");
      return;
    case SmtpVerb::kUnknown:
      Error(500, {5, 5, 2}, "Command not recognised");
      return;
  }
}

void SmtpServerSession::OnHelloCommand(std::string_view name, bool extended) {
  if (!IsAcceptableHello(name)) {
    Error(501, {5, 5, 4},
          extended ? "EHLO wants a domain or an address literal"
                   : "HELO wants a domain or an address literal");
    return;
  }
  ResetTransaction();
  stage_ = Stage::kHello;
  handler_.OnHello(name, extended);
  if (!extended) {
    Reply(250, {}, options_->host_name);
    return;
  }
  const CommandExtensions& on = options_->extensions;
  std::string text = options_->host_name;
  text += "\nPIPELINING\nENHANCEDSTATUSCODES";
  if (on.size) text += "\nSIZE " + std::to_string(options_->max_message_bytes);
  if (on.eight_bit_mime) text += "\n8BITMIME";
  if (on.chunking) text += "\nCHUNKING";
  if (on.chunking && on.binary_mime) text += "\nBINARYMIME";
  if (on.smtp_utf8) text += "\nSMTPUTF8";
  if (on.dsn) text += "\nDSN";
  if (on.require_tls && secured_) text += "\nREQUIRETLS";
  if (on.mt_priority) text += "\nMT-PRIORITY";
  if (const std::string mechanisms = handler_.AuthMechanisms(); !mechanisms.empty()) {
    text += "\nAUTH " + mechanisms;
  }
  if (handler_.OffersMailMerge()) text += "\nXACK\nXMRG\nVERP";
  if (handler_.OffersXclient())
    text += "\nXCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
  if (offers_tls()) text += "\nSTARTTLS";
  text += "\nHELP";
  Reply(250, {}, text);
}

void SmtpServerSession::OnVerdict(MonotonicTime now, const ServerReply& reply) {
  if (question_ == Question::kNone) return;  // the session ended meanwhile
  NoteOutput(now);
  activity_ = now;
  Answer(std::exchange(question_, Question::kNone), reply);
  ProcessPending(now);
  handler_.OnWake();
}

void SmtpServerSession::ResumeBody(MonotonicTime now) {
  if (!std::exchange(body_paused_, false)) return;
  NoteOutput(now);
  activity_ = now;
  data_begin_ += now - data_paused_;
  ProcessPending(now);
  handler_.OnWake();
}

void SmtpServerSession::Sent(MonotonicTime now, size_t bytes) {
  const bool was_full = output_.size() - sent_ >= kOutputHighWaterBytes;
  sent_ += bytes;
  NoteOutput(now);
  if (bytes != 0) activity_ = now;
  if (sent_ == output_.size()) {
    sent_ = 0;
    if (output_.capacity() > kKeptBufferBytes) {
      output_ = std::string();
    } else {
      output_.clear();
    }
  }
  if (was_full) ProcessPending(now);
}

void SmtpServerSession::OnTimer(MonotonicTime now) {
  const std::optional<MonotonicTime> when = deadline();
  if (closing_ || !when || now < *when) return;
  NoteOutput(now);
  if (output_.size() > sent_ || handshake_) {
    // The client does not read, or not what we could say: a farewell would not reach it.
    if (!handshake_) handler_.OnFault(ClientFault::kTooSlow);
    output_.clear();
    sent_ = 0;
    ResetTransaction();
    closing_ = true;
    return;
  }
  if (held_ != nullptr) {
    const std::unique_ptr<Held> held = std::move(held_);
    activity_ = now;
    Answer(held->question, held->reply);
    ProcessPending(now);
    return;
  }
  Punish(ClientFault::kTooSlow, 421, {4, 4, 2},
         options_->host_name + " waited too long, closing the connection");
}

void SmtpServerSession::OnEof(MonotonicTime now) {
  NoteOutput(now);
  eof_ = true;
  if (handshake_) closing_ = true;
  // What came before is still answered, for a client that has only closed its half.
  if (CanProcess()) ProcessPending(now);
}

void SmtpServerSession::OnLost() {
  if (!closing_ && within_text()) handler_.OnFault(ClientFault::kCutOff);
  closing_ = true;
}

void SmtpServerSession::Shutdown(MonotonicTime now) {
  if (std::exchange(shutting_down_, true) || closing_) return;
  if (receiving_data() || question_ == Question::kData || held_ != nullptr) return;
  NoteOutput(now);
  activity_ = now;
  Fatal(421, {4, 3, 2}, options_->host_name + " is shutting down");
  handler_.OnWake();
}

void SmtpServerSession::Error(int code, EnhancedCode enhanced, std::string_view text) {
  Reply(code, enhanced, text);
  if (++errors_ > options_->max_errors)
    Punish(ClientFault::kTooManyErrors, 421, {4, 7, 0}, "Too many errors");
}

void SmtpServerSession::Fatal(int code, EnhancedCode enhanced, std::string_view text) {
  quiet_ = false;
  Reply(code, enhanced, text);
  ResetTransaction();
  closing_ = true;
  pending_ = std::string();
}

}  // namespace sluice::mail
