// One ESMTP server session without IO (RFC 5321): bytes of the client in, replies out, decisions by
// a handler that may take its time. The socket, the clock and the policy are somebody else's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/clock.h"
#include "services/mail/data_reader.h"
#include "services/mail/mail_merge.h"
#include "services/mail/server_reply.h"
#include "services/mail/smtp_command.h"

namespace sluice::mail {

// Commands of a mail merge without replies that has failed already, before they count as commands
// without a message: two for each recipient of a long list.
inline constexpr uint32_t kMaxPassedOver = 200'000;
// While this much waits for the client to read it, nothing more is read from the client.
inline constexpr size_t kOutputHighWaterBytes = 16 * 1024;
// What a message may take before its rate counts.
inline constexpr Duration kDataRateGrace = std::chrono::seconds(30);
// What a message may take in all, at whatever rate and in however many chunks, and a client to read
// everything that it was told: who sends or takes a byte now and then holds a session no longer
// than this.
inline constexpr Duration kMessageTimeMax = std::chrono::hours(12);
inline constexpr Duration kUnreadTimeMax = std::chrono::hours(1);

struct SmtpServerOptions {
  std::string host_name = "localhost";      // in the greeting and in answers
  std::string greeting = "ESMTP Sluice";    // after the host name in the 220
  uint64_t max_message_bytes = 0;           // 0: no limit; also what SIZE says
  uint64_t max_header_bytes = 1024 * 1024;  // 0: no limit
  uint32_t max_hops = 100;                  // Received fields; 0: no limit
  uint32_t max_recipients = 1000;           // of a transaction: 452 beyond
  uint32_t max_errors = 20;                 // commands refused for what they are, since the last
                                            // accepted message: 421 beyond
  uint32_t max_rejections = 1000;     // MAIL and RCPT refused by the handler in a row: 421 beyond
  uint32_t max_idle_commands = 1000;  // commands without a message among them, the recipients and
                                      // chunks of a transaction apart: 421 beyond
  uint32_t max_line_bytes = 4096;     // a command with CRLF
  Duration command_timeout = std::chrono::minutes(10);
  Duration data_timeout = std::chrono::minutes(10);  // without a byte of the message
  // A message that comes in more slowly, counted from kDataRateGrace after its 354, ends the
  // session; 0: as slowly as data_timeout lets it.
  uint64_t min_data_bytes_per_second = 0;
  Duration tls_timeout = std::chrono::seconds(60);  // of the handshake, as a whole
  bool offer_starttls = false;                      // where the listener has a certificate
  bool trace = false;                               // calls SmtpServerHandler::OnTrace
  CommandExtensions extensions;
};

// What ends a session by the client's own doing.
enum class ClientFault : uint8_t {
  kBareLineEnd,      // a bare LF, a bare CR or a NUL in a command: smuggling
  kLineTooLong,      // a command, or a response of AUTH
  kForeignProtocol,  // HTTP and the like
  kTooManyErrors,    // of syntax, refusals, commands without a message
  kTooSlow,          // silent, below the least rate of data, or not reading
  kCutOff,           // gone, or half-closed, within the text of a message
};
// What the session refuses by itself, and goes on.
enum class ClientRefusal : uint8_t {
  kTooManyRecipients,  // above max_recipients
  kDeclaredTooLarge,   // by SIZE
  kHeaderInjection,    // a control character in a value of a mail merge
  kXclient,            // from a client that may not speak for others
};
enum class SmtpTrace : uint8_t { kCommand, kReply };

// What the session asks its owner. A question that returns a reply is answered; one that returns
// nothing is answered later by SmtpServerSession::OnVerdict, and until then the session takes no
// further command.
//
// Order of calls: OnHello; then, any number of times, OnMail, OnRcpt (once or more), OnData, OnBody
// (any number), OnMessageEnd. OnReset may come at any point between OnMail and the verdict on
// OnMessageEnd, and ends the transaction: the answer to an open question is then ignored, and must
// not be given. After a refusal by the handler of MAIL, RCPT or DATA the transaction is as before
// that command; after the verdict on OnMessageEnd it is over, with no OnReset.
// None of these functions may call back into the session, but PauseBody and UseOptions.
class SmtpServerHandler {
 public:
  virtual ~SmtpServerHandler() = default;
  virtual void OnHello(std::string_view name, bool extended) = 0;
  // Valid during the call.
  virtual std::optional<ServerReply> OnMail(const MailCommand& mail) = 0;
  virtual std::optional<ServerReply> OnRcpt(const RcptCommand& rcpt) = 0;
  // At least one recipient was accepted. 354 lets the message come. With BDAT asked at the first
  // chunk: the 354 is not sent, and a refusal ends the transaction (OnReset follows).
  virtual std::optional<ServerReply> OnData() = 0;
  virtual void OnBody(std::string_view text) = 0;
  struct MessageFacts {
    uint64_t size = 0;         // bytes that OnBody brought
    uint64_t header_size = 0;  // with the empty line
    uint32_t hops = 0;
  };
  // All chunks of BDAT, or the text of DATA, are there.
  virtual std::optional<ServerReply> OnMessageEnd(const MessageFacts& facts) = 0;
  virtual void OnReset() = 0;
  // ---- AUTH (RFC 4954)
  // "PLAIN LOGIN …": what can succeed in this session as it is; empty: no AUTH.
  virtual std::string AuthMechanisms() { return ""; }
  // Outside of transactions, and not after a success. Challenges and responses are bare bytes here,
  // base64 is the session's. 334 with a challenge brings OnAuthResponse; 235 is the success;
  // anything else ends the exchange. OnAuthCancel ends it, too, and may come while a question is
  // open.
  virtual std::optional<ServerReply> OnAuth(std::string_view /*mechanism*/,
                                            std::optional<std::string_view> /*initial*/) {
    return ServerReply{504, {5, 5, 4}, "Mechanism not known"};
  }
  virtual std::optional<ServerReply> OnAuthResponse(std::string_view /*response*/) {
    return ServerReply{535, {5, 7, 8}, "Authentication failed"};
  }
  virtual void OnAuthCancel() {}
  // ---- Mail merge
  // XMRG is a MAIL whose `merge` is set; then every OnRcpt has definitions, the text comes in
  // parts, 1 and up, and each ends with OnPartEnd, the last one before OnMessageEnd.
  virtual bool OffersMailMerge() { return false; }
  virtual void OnPartEnd(uint32_t /*number*/) {}
  // ---- XCLIENT
  // Whether this client may speak for others.
  virtual bool OffersXclient() { return false; }
  // Outside of transactions. 220 takes the session back to its greeting, as another client's.
  virtual ServerReply OnXclient(const XclientCommand& /*xclient*/) {
    return {550, {5, 7, 0}, "Not for you"};
  }
  // The message was not wanted for what it is (bare LF and the like; kNone: too many hops); OnReset
  // follows. For counting.
  virtual void OnDataRefused(DataError) {}
  // The session ends, for this. For counting.
  virtual void OnFault(ClientFault) {}
  // A command was refused for this. For counting.
  virtual void OnRefusal(ClientRefusal) {}
  // The client asked for TLS. Of what it sent behind the command `discarded` bytes were read, and
  // dropped: an attack where there are any (RFC 3207, CVE-2011-0411).
  virtual void OnStartTls(size_t discarded) { static_cast<void>(discarded); }
  // For logs, where the options say so: a command as it came, without its end and without what may
  // be a secret (responses and challenges of AUTH, words that are no command), or a reply with the
  // CR LF between its lines. The client chose the bytes.
  virtual void OnTrace(SmtpTrace, std::string_view /*text*/) {}
  // OnVerdict, ResumeBody or Shutdown changed what output(), wants_read(), deadline() or closing()
  // say.
  virtual void OnWake() {}
};

// Thread-safety: none. Lifetime: `handler` and the options in use outlive it. Memory: at most one
// read of the owner and one line beside the output, which stops growing while the client does not
// read it.
class SmtpServerSession {
 public:
  SmtpServerSession(SmtpServerHandler& handler, const SmtpServerOptions& options)
      : handler_(handler), options_(&options) {}
  // With an open transaction OnReset is *not* called.
  ~SmtpServerSession() = default;
  SmtpServerSession(const SmtpServerSession&) = delete;
  SmtpServerSession& operator=(const SmtpServerSession&) = delete;

  // Holds from the next command on; also from within a handler's function.
  void UseOptions(const SmtpServerOptions& options) { options_ = &options; }

  // The connection is there: the greeting, or where `refusal` is given, that and the end.
  void Start(MonotonicTime now, const ServerReply* refusal = nullptr);

  // This connection can be encrypted: STARTTLS is offered where the options say so.
  void set_tls_available() { tls_available_ = true; }
  // The connection begins with a handshake: Start comes behind OnTlsReady.
  void ExpectTls(MonotonicTime now) {
    activity_ = now;
    handshake_ = true;
  }
  // The owner is to begin a handshake as soon as output() has been sent in clear, and to say
  // OnTlsReady when it is done. Meanwhile nothing is read for the session.
  bool tls_handshake() const { return handshake_ && !closing_; }
  void OnTlsReady(MonotonicTime now);
  bool secured() const { return secured_; }

  // Takes all of `bytes`. To be called only while wants_read().
  void OnBytes(MonotonicTime now, std::string_view bytes);
  // The deadline that deadline() named may have passed.
  void OnTimer(MonotonicTime now);
  // The client will send nothing more.
  void OnEof(MonotonicTime now);
  // The connection is gone: nothing can be answered, and nothing of the session may be called but
  // what only looks.
  void OnLost();
  // The answer to the one open question.
  void OnVerdict(MonotonicTime now, const ServerReply& reply);
  // The handler has enough of the body for now (its store is slow).
  void PauseBody() { body_paused_ = true; }
  void ResumeBody(MonotonicTime now);
  // Orderly end: 421 now, or after the message that is on its way.
  void Shutdown(MonotonicTime now);

  // Bytes for the client; Sent() takes from the front what the socket has taken.
  std::string_view output() const { return std::string_view(output_).substr(sent_); }
  void Sent(MonotonicTime now, size_t bytes);

  bool wants_read() const;
  // To be closed as soon as output() is empty.
  bool closing() const { return closing_; }
  // When OnTimer wants to be called; moves with every command. Nothing while the answer is ours to
  // give.
  std::optional<MonotonicTime> deadline() const;

  bool in_transaction() const { return stage_ >= Stage::kMail; }
  bool receiving_data() const { return stage_ >= Stage::kData; }
  // Bytes held for the client or from it.
  size_t buffered_bytes() const { return output_.capacity() + pending_.capacity(); }

 private:
  // kChunks: between MAIL and the end of a message that comes by BDAT; chunk_ says whether one is
  // being read.
  enum class Stage : uint8_t { kConnect, kHello, kMail, kRcpt, kData, kChunks, kEnd };
  bool within_text() const { return stage_ == Stage::kData || stage_ == Stage::kChunks || chunk_; }
  enum class Question : uint8_t { kNone, kMail, kRcpt, kData, kEnd, kAuth };

  void Process(MonotonicTime now, std::string_view bytes);
  void ProcessPending(MonotonicTime now);
  // At the begin of whatever may say something.
  void NoteOutput(MonotonicTime now) {
    if (output_.size() == sent_) all_read_ = now;
  }
  bool CanProcess() const;
  void OnLine(MonotonicTime now, std::string_view line);
  void OnHelloCommand(std::string_view name, bool extended);
  void OnMailCommand(std::string_view argument, bool merge = false);
  void OnRcptCommand(std::string_view argument);
  void OnDataCommand(std::string_view argument);
  void OnBdatCommand(std::string_view argument);
  void BeginChunk();
  // Takes from the front of `bytes` what belongs to the chunk.
  void ReadChunk(std::string_view& bytes);
  void EndChunk();
  bool body_stopped() const {
    return body_paused_ && (stage_ == Stage::kData || chunk_.has_value());
  }
  void OnMergeCommand(const CommandLine& command);
  std::optional<ServerReply> ParseMergeMail(std::string_view argument);
  void AskMergeRcpt();
  void OnPartCommand(std::string_view argument);
  // Adds what the part that has ended brought; true where more parts come.
  bool EndPart(DataReader::Totals& totals);
  bool TakeQuietly(int code, EnhancedCode enhanced, std::string_view text);
  void Greet();
  void OnXclientCommand(std::string_view argument);
  void OnAuthCommand(std::string_view argument);
  void OnAuthLine(std::string_view line);
  void AnswerAuth(const ServerReply& reply);
  // smtp_server_trace.cc
  void TraceLine(std::string_view line);
  void TraceReply(int code, EnhancedCode enhanced, std::string_view text);
  // smtp_server_starttls.cc
  void OnStartTlsCommand(std::string_view argument);
  bool offers_tls() const { return tls_available_ && options_->offer_starttls && !secured_; }
  void EndOfData();
  bool RepeatDeferral();
  void CountRejection();
  void Ask(Question question, std::optional<ServerReply> answer);
  void Answer(Question question, const ServerReply& reply);
  void Reply(int code, EnhancedCode enhanced, std::string_view text) {
    if (quiet_ && TakeQuietly(code, enhanced, text)) return;
    if (options_->trace) TraceReply(code, enhanced, text);
    AppendReply(code, enhanced, text, output_);
  }
  void Reply(const ServerReply& reply) { Reply(reply.code, reply.enhanced, reply.text); }
  // A refusal that the client's command has earned; too many end the session.
  void Error(int code, EnhancedCode enhanced, std::string_view text);
  void Fatal(int code, EnhancedCode enhanced, std::string_view text);
  void Punish(ClientFault fault, int code, EnhancedCode enhanced, std::string_view text) {
    handler_.OnFault(fault);
    Fatal(code, enhanced, text);
  }
  void ResetTransaction();
  // Until when all of the text that has begun has to be there.
  MonotonicTime MessageDeadline() const;

  SmtpServerHandler& handler_;
  const SmtpServerOptions* options_;
  Stage stage_ = Stage::kConnect;
  Question question_ = Question::kNone;
  bool closing_ = false;
  bool tls_available_ = false;
  bool handshake_ = false;
  bool secured_ = false;
  bool shutting_down_ = false;
  bool body_paused_ = false;
  bool eof_ = false;
  uint32_t recipients_ = 0;
  uint32_t errors_ = 0;
  uint32_t rejections_ = 0;
  uint32_t idle_commands_ = 0;
  uint32_t passed_over_ = 0;   // commands of a mail merge that has failed, since the last message
  uint32_t idle_at_mail_ = 0;  // idle_commands_ as the transaction began
  MonotonicTime activity_;
  MonotonicTime all_read_;     // when nothing waited for the client last
  MonotonicTime data_begin_;   // of the message's text, later by what we made it wait
  MonotonicTime data_paused_;  // since when
  uint64_t data_bytes_ = 0;    // that have come of it
  MailCommand mail_;
  std::optional<ServerReply> deferral_;  // the 4xx that MAIL got, until the next one or a reset
  RcptCommand rcpt_;
  std::optional<DataReader> reader_;
  struct Chunk {
    uint64_t left = 0;
    uint64_t size = 0;
    bool last = false;
    // Read all the same, so that its text is never taken for commands, and then answered by this.
    std::optional<ServerReply> refusal;
  };
  std::optional<Chunk> chunk_;
  bool in_auth_ = false;  // the next line is a response, or the answer to one is awaited
  bool authenticated_ = false;
  // An answer that is held back until deadline().
  struct Held {
    Question question;
    ServerReply reply;
    MonotonicTime until;
  };
  std::unique_ptr<Held> held_;
  struct Merge {
    MergeDefinitions definitions;  // for the next recipient
    uint32_t wanted = 0;           // highest part that a recipient wants
    uint32_t next_wanted = 0;      // that the one in question wants
    uint32_t part = 0;             // the one that comes, or came last
    bool last = false;
    DataReader::Totals totals;  // of the parts that are there
  };
  std::unique_ptr<Merge> merge_;            // the transaction is a mail merge
  bool acks_off_ = false;                   // XACK OFF
  bool quiet_ = false;                      // the command that is answered gets no reply
  std::optional<ServerReply> merge_error_;  // what XPRT will be told in place of its 354
  std::string output_;
  size_t sent_ = 0;
  std::string pending_;  // read and not yet processed
};

}  // namespace sluice::mail
