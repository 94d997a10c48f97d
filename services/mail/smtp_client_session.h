// One SMTP client session without IO (RFC 5321, pipelining RFC 2920, BDAT RFC 3030, DSN RFC 3461,
// LMTP RFC 2033): replies in, commands and bodies out, a verdict for each recipient. Socket, clock
// and message store are somebody else's.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/clock.h"
#include "services/mail/dot_stuffer.h"
#include "services/mail/reply_parser.h"
#include "services/mail/smtp_auth_exchange.h"

namespace sluice::mail {

// Whether a session leaves clear text behind (RFC 3207).
enum class StartTls : uint8_t {
  kNever,
  kOpportunistic,  // where the remote offers it, and takes it
  kRequired,       // or nothing is sent
};

struct SmtpClientOptions {
  StartTls starttls = StartTls::kNever;
  // TLS from the first byte (RFC 8314): the owner begins the handshake as it connects, and says
  // OnTlsReady before any bytes. `starttls` counts for nothing then.
  bool implicit_tls = false;
  Duration tls_timeout = std::chrono::seconds(60);  // of the handshake, as a whole
  std::string ehlo_name = "localhost";
  bool use_pipelining = true;
  bool use_8bitmime = true;
  bool use_chunking = true;
  bool use_dsn = true;
  bool lmtp = false;  // LHLO, and a reply for each recipient after the message
  // What becomes of a message whose transfer broke off; `pix`: behind a firewall that masked the
  // greeting.
  bool bounce_upon_transfer_failure = false;
  bool bounce_upon_pix_transfer_failure = false;
  bool assume_delivery_upon_final_timeout = false;
  Duration greeting_timeout = std::chrono::minutes(5);
  Duration command_timeout = std::chrono::minutes(5);
  Duration mail_timeout{};  // of MAIL, RCPT and DATA; 0: command_timeout
  Duration rcpt_timeout{};
  Duration data_initiation_timeout{};
  Duration data_timeout = std::chrono::minutes(3);  // without progress of the body
  Duration final_timeout = std::chrono::minutes(10);
  // Authenticates before any mail; where that cannot be done the session ends.
  std::optional<SaslCredentials> auth;
  // PLAIN and LOGIN are sent although nothing encrypts them.
  bool auth_in_clear = false;
  // The bytes of the session travel in TLS from the start.
  bool encrypted = false;
  std::string auth_nonce;  // sasl_client.h
  bool trace = false;      // calls SmtpClientHandler::OnTrace
};

enum class SmtpStage : uint8_t {
  kGreeting,
  kEhlo,
  kMail,
  kRcpt,
  kData,
  kBody,
  kFinalDot,
  kAuth,
  kStartTls
};

// RFC 3461, as decoded.
struct RecipientDsn {
  uint32_t notify = 0;  // bits: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0: not given
  std::string orcpt;    // "rfc822;user@example.org"; empty: not given
};

struct ClientTransaction {
  enum class Ret : uint8_t { kNotGiven, kFull, kHeaders };

  uint64_t id = 0;
  std::string mail_from;  // without <>; empty: the null sender
  std::vector<std::string> recipients;
  std::vector<RecipientDsn> dsn;  // of each recipient, or empty where none asked for anything
  Ret ret = Ret::kNotGiven;
  std::string envid;
  uint64_t size = 0;  // 0: not known
  bool eight_bit = false;
  // REQUIRETLS (RFC 8689): only to a peer that offers it, over a verified TLS session.
  bool require_tls = false;
  bool tls_verified = false;  // what the owner knows of this connection
  bool tls_failed = false;    // the remote offers TLS, and a handshake with it failed not long ago
  bool binary = false;        // goes by BDAT to a peer with BINARYMIME, or not at all
  // The message itself needs SMTPUTF8; addresses are looked at here.
  bool smtputf8 = false;
  // Refusals that the connection may have had when this is over, those of before it included; 0: no
  // limit. Never passed: no more recipients are under way than may be refused, and those without
  // room are not attempted. A refusal: of MAIL, of each RCPT, of DATA, of the message (LMTP: for
  // each recipient).
  uint32_t most_errors = 0;
};

enum class Verdict : uint8_t { kDelivered, kTransient, kPermanent, kNotAttempted };

struct RecipientVerdict {
  Verdict verdict = Verdict::kNotAttempted;
  SmtpStage stage = SmtpStage::kMail;
  SmtpReply reply;
  bool local = false;  // the reply's text is ours
};

// What ends a session by the remote's own doing; refusals and closing are its right.
enum class RemoteFault : uint8_t {
  kNone,
  kNoSmtp,     // what came is no reply, or has no end
  kUnasked,    // a reply that nobody waited for, other than 421
  kInjection,  // clear text around the reply to STARTTLS
  kTimeout,
};

// What the peer said in EHLO.
struct PeerCapabilities {
  bool esmtp = false;
  bool pipelining = false;
  bool eight_bit_mime = false;
  bool smtputf8 = false;
  bool size = false;
  uint64_t max_size = 0;  // 0: none given
  bool dsn = false;
  bool starttls = false;
  bool chunking = false;
  bool binary_mime = false;
  bool require_tls = false;
  bool masked_greeting = false;       // "220 ****": a Cisco PIX with its SMTP fixup is between us
  std::vector<std::string> keywords;  // at most 64
  std::vector<std::string> auth;      // mechanisms, upper case; at most 16
};

// Called within OnBytes, Begin, OnDisconnect and OnTimeout; none may call back but SendBody.
class SmtpClientHandler {
 public:
  virtual ~SmtpClientHandler() = default;
  virtual void OnOutput(std::string_view text) = 0;
  virtual void OnReady() = 0;
  // The remote waits for a TLS handshake: begin it, and then say OnTlsReady or OnDisconnect. Comes
  // only with SmtpClientOptions::starttls.
  virtual void OnStartTls() {}
  // The remote takes the message: call SendBody with its pieces, now or later.
  virtual void OnWantBody(uint64_t id) = 0;
  // Right before the final dot. False: the session breaks off without it.
  virtual bool MayFinish(uint64_t id) = 0;
  virtual void OnResult(uint64_t id, std::vector<RecipientVerdict> recipients) = 0;
  // No command can follow: close the connection. `last` is what the remote, or we, said.
  virtual void OnEnd(const RecipientVerdict& last) = 0;
  // A command, or a whole reply, without its line end: what a log may show. Neither what AUTH says
  // nor the text of a message comes here. A reply is as the remote sent it, control characters
  // included, and at most kMaxReplyTextBytes of it.
  virtual void OnTrace(bool /*reply*/, std::string_view /*text*/) {}
};

// Thread-safety: none. Memory: two transactions, one reply.
class SmtpClientSession {
 public:
  SmtpClientSession(SmtpClientHandler& handler, const SmtpClientOptions& options)
      : handler_(handler),
        options_(options),
        tls_(options.implicit_tls ? Tls::kHandshake : Tls::kClear) {}

  void OnBytes(std::string_view bytes);
  // The connection closed, or broke; `why` is for people.
  void OnDisconnect(std::string_view why);
  // timeout() went by since the last call.
  void OnTimeout();
  // The handshake is done; what the remote said before counts no more. `bindings`: of the
  // connection, for AUTH.
  void OnTlsReady(SaslChannelBindings bindings = {});
  // Between OnStartTls, or the beginning of implicit TLS, and OnTlsReady.
  bool in_tls_handshake() const { return tls_ == Tls::kHandshake; }
  bool secured() const { return tls_ == Tls::kSecured; }
  // Begins anew for a new connection, as if just made with this; only before OnReady, and not with
  // implicit TLS.
  void Restart(StartTls starttls);

  // After OnReady; at most two are under way. The second one's commands go out behind the first
  // one's final dot where the peer allows it, otherwise after its reply. One that comes after the
  // end is not attempted.
  void Begin(ClientTransaction transaction);
  // Part of the body of the transaction that OnWantBody named; `slice` gets what is to be sent of
  // `piece` itself. With `last` the final dot follows. False where the session broke off.
  bool SendBody(std::string_view piece, bool last, absl::FunctionRef<void(std::string_view)> slice);
  // The body cannot be had: breaks off without the final dot.
  void AbortBody(std::string_view why);
  // QUIT after what is under way.
  void Quit();

  // How long to wait for the next bytes (or for progress of the body).
  Duration timeout() const;
  SmtpStage stage() const;
  const PeerCapabilities& peer() const { return peer_; }
  bool ended() const { return ended_; }
  // kNone before the end.
  RemoteFault fault() const { return fault_; }
  // Whole replies so far. A remote that sends a byte now and then makes no progress: what is waited
  // for is a reply.
  uint64_t replies() const { return replies_; }
  size_t under_way() const { return transactions_.size(); }

 private:
  enum class Expect : uint8_t {
    kGreeting,
    kEhlo,
    kHelo,
    kAuth,
    kStartTls,
    kRset,
    kMail,
    kRcpt,
    kData,
    kChunk,
    kFinal,
    kQuit
  };
  struct Transaction {
    ClientTransaction given;
    std::vector<RecipientVerdict> recipients;
    std::optional<RecipientVerdict> failed;  // MAIL or DATA was refused: holds for all
    size_t next_rcpt = 0;                    // to be answered; those refused here are passed over
    size_t next_sent = 0;                    // of pipelined RCPTs, to be sent
    std::optional<size_t> cut_at;            // from here on there was no room for errors
    size_t next_final = 0;  // LMTP: the recipient that the next reply is about, or one behind it
    size_t accepted = 0;
    bool chunking = false;  // by BDAT
    bool commands_sent = false;
    bool body_sent = false;
    bool empty_body = false;  // a lone dot for a 354 that nobody wanted
  };
  struct Waiting {
    Expect what;
    uint64_t id;
  };
  enum class Tls : uint8_t { kClear, kAsked, kHandshake, kSecured };

  // smtp_client_starttls.cc
  // True where the EHLO that was answered is not the last one.
  bool AskForTls();
  void OnStartTlsReply(SmtpReply reply);
  // Bytes stand behind a reply that nothing may follow.
  void RefuseInjection();
  void SayEhlo();
  void BecomeReady();

  void OnReply(SmtpReply reply);
  void OnEhlo(const SmtpReply& reply);
  // EHLO or HELO is done: authenticates, or says OnReady.
  void Ready();
  void OnAuthReply(SmtpReply reply);
  void OnMailReply(Transaction& transaction, SmtpReply reply);
  void OnRcptReply(Transaction& transaction, SmtpReply reply);
  void OnDataReply(Transaction& transaction, SmtpReply reply);
  void OnChunkReply(Transaction& transaction, SmtpReply reply);
  void OnFinalReply(SmtpReply reply);
  // By BDAT, the body follows the last RCPT's reply.
  void AfterEnvelope(Transaction& transaction);
  void WantBody(Transaction& transaction);
  bool SendChunk(Transaction& transaction, std::string_view piece, bool last,
                 absl::FunctionRef<void(std::string_view)> slice);
  void BodySent(Transaction& transaction);
  // Judges the addresses. False where nothing of the transaction can be sent.
  bool Check(Transaction& transaction) const;
  static void PassRefused(Transaction& transaction);
  void SendCommands(Transaction& transaction);
  // RCPTs as far as they may be sent, and DATA behind the last one.
  void AppendEnvelope(Transaction& transaction, std::string* commands);
  // After a reply, where not all RCPTs could be sent at once.
  void ContinueEnvelope(Transaction& transaction);
  // Refusals that may still come of what was sent of it.
  size_t ErrorsAhead(const Transaction& transaction) const;
  // How many more RCPTs of it may be sent.
  size_t RoomForErrors(const Transaction& transaction) const;
  void SendNextStep(Transaction& transaction);
  void StartWaiting();
  void Finish(Transaction& transaction);
  // `remote_left`: by 421 or by closing; a transaction whose MAIL had no answer is then not
  // attempted, if this connection has delivered: remotes limit the messages of a connection.
  // `broke`: without a word from either side.
  void End(RecipientVerdict last, bool remote_left = false, bool broke = false);
  void Write(std::string_view text) { handler_.OnOutput(text); }

  // smtp_client_commands.cc
  // Whole commands, each with its line end.
  void Say(std::string_view commands);
  void SayAuth(bool first, std::string_view line);
  void TraceReply(const SmtpReply& reply);
  // What an address can be refused for before it is sent.
  std::optional<RecipientVerdict> RefusalOf(std::string_view address, SmtpStage stage) const;
  std::string MailCommand(const ClientTransaction& transaction) const;
  void AppendRcpt(const ClientTransaction& transaction, size_t recipient,
                  std::string* command) const;
  bool MustBeUtf8(const ClientTransaction& transaction) const;
  // `converted` holds the text where it is another one.
  std::string_view OnTheWire(std::string_view address, std::string* converted) const;

  bool chunking() const { return peer_.chunking && options_.use_chunking; }
  Transaction* Find(uint64_t id);
  bool pipelining() const { return peer_.pipelining && options_.use_pipelining; }

  SmtpClientHandler& handler_;
  SmtpClientOptions options_;
  Tls tls_;
  PeerCapabilities peer_;
  ReplyParser parser_;
  std::deque<Waiting> waiting_{{Expect::kGreeting, 0}};
  std::deque<Transaction> transactions_;
  DotStuffer stuffer_;
  std::optional<SmtpAuthExchange> auth_;
  SaslChannelBindings bindings_;
  uint64_t body_of_ = 0;  // transaction whose body is being sent
  bool sending_body_ = false;
  bool cr_sent_ = false;  // by BDAT: how the body ended so far
  bool crlf_sent_ = false;
  bool masked_greeting_ = false;
  bool need_rset_ = false;
  bool delivered_ = false;  // some message, on this connection
  bool quit_asked_ = false;
  bool quit_sent_ = false;
  bool ready_ = false;
  uint64_t replies_ = 0;
  uint64_t errors_ = 0;  // as ClientTransaction::most_errors counts them
  RemoteFault fault_ = RemoteFault::kNone;
  bool ended_ = false;
};

}  // namespace sluice::mail
