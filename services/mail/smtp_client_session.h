// One SMTP client session without IO (RFC 5321, pipelining RFC 2920): replies in, commands and
// bodies out, a verdict for each recipient. Socket, clock and message store are somebody else's.
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

struct SmtpClientOptions {
  std::string ehlo_name = "localhost";
  bool use_pipelining = true;
  bool use_8bitmime = true;
  Duration greeting_timeout = std::chrono::minutes(5);
  Duration command_timeout = std::chrono::minutes(5);
  Duration data_timeout = std::chrono::minutes(3);  // without progress of the body
  Duration final_timeout = std::chrono::minutes(10);
  // Authenticates before any mail; where that cannot be done the session ends.
  std::optional<SaslCredentials> auth;
  // PLAIN and LOGIN are sent although nothing encrypts them.
  bool auth_in_clear = false;
  // The bytes of the session travel in TLS from the start.
  bool encrypted = false;
  std::string auth_nonce;  // sasl_client.h
};

enum class SmtpStage : uint8_t { kGreeting, kEhlo, kMail, kRcpt, kData, kBody, kFinalDot, kAuth };

struct ClientTransaction {
  uint64_t id = 0;
  std::string mail_from;  // without <>; empty: the null sender
  std::vector<std::string> recipients;
  uint64_t size = 0;  // 0: not known
  bool eight_bit = false;
  bool smtputf8 = false;
};

enum class Verdict : uint8_t { kDelivered, kTransient, kPermanent, kNotAttempted };

struct RecipientVerdict {
  Verdict verdict = Verdict::kNotAttempted;
  SmtpStage stage = SmtpStage::kMail;
  SmtpReply reply;
  bool local = false;  // the reply's text is ours
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
  std::vector<std::string> keywords;  // at most 64
  std::vector<std::string> auth;      // mechanisms, upper case; at most 16
};

// Called within OnBytes, Begin, OnDisconnect and OnTimeout; none may call back but SendBody.
class SmtpClientHandler {
 public:
  virtual ~SmtpClientHandler() = default;
  virtual void OnOutput(std::string_view text) = 0;
  virtual void OnReady() = 0;
  // The remote takes the message: call SendBody with its pieces, now or later.
  virtual void OnWantBody(uint64_t id) = 0;
  // Right before the final dot. False: the session breaks off without it.
  virtual bool MayFinish(uint64_t id) = 0;
  virtual void OnResult(uint64_t id, std::vector<RecipientVerdict> recipients) = 0;
  // No command can follow: close the connection. `last` is what the remote, or we, said.
  virtual void OnEnd(const RecipientVerdict& last) = 0;
};

// Thread-safety: none. Memory: two transactions, one reply.
class SmtpClientSession {
 public:
  SmtpClientSession(SmtpClientHandler& handler, const SmtpClientOptions& options)
      : handler_(handler), options_(options) {}

  void OnBytes(std::string_view bytes);
  // The connection closed, or broke; `why` is for people.
  void OnDisconnect(std::string_view why);
  // timeout() went by since the last call.
  void OnTimeout();

  // After OnReady; at most two are under way. The second one's commands go out behind the first
  // one's final dot where the peer allows it, otherwise after its reply.
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
  size_t under_way() const { return transactions_.size(); }

 private:
  enum class Expect : uint8_t {
    kGreeting,
    kEhlo,
    kHelo,
    kAuth,
    kRset,
    kMail,
    kRcpt,
    kData,
    kFinal,
    kQuit
  };
  struct Transaction {
    ClientTransaction given;
    std::vector<RecipientVerdict> recipients;
    std::optional<RecipientVerdict> failed;  // MAIL or DATA was refused: holds for all
    size_t next_rcpt = 0;                    // to be answered; those refused here are passed over
    size_t accepted = 0;
    bool commands_sent = false;
    bool body_sent = false;
    bool empty_body = false;  // a lone dot for a 354 that nobody wanted
  };
  struct Waiting {
    Expect what;
    uint64_t id;
  };

  void OnReply(SmtpReply reply);
  void OnEhlo(const SmtpReply& reply);
  // EHLO or HELO is done: authenticates, or says OnReady.
  void Ready();
  void OnAuthReply(SmtpReply reply);
  void OnMailReply(Transaction& transaction, SmtpReply reply);
  void OnRcptReply(Transaction& transaction, SmtpReply reply);
  void OnDataReply(Transaction& transaction, SmtpReply reply);
  void OnFinalReply(SmtpReply reply);
  // What an address can be refused for before it is sent.
  std::optional<RecipientVerdict> RefusalOf(std::string_view address, SmtpStage stage) const;
  // Judges the addresses. False where nothing of the transaction can be sent.
  bool Check(Transaction& transaction) const;
  static void PassRefused(Transaction& transaction);
  void SendCommands(Transaction& transaction);
  void SendNextStep(Transaction& transaction);
  void StartWaiting();
  void Finish(Transaction& transaction);
  // `remote_left`: by 421 or by closing; a transaction whose MAIL had no answer is then not
  // attempted, if this connection has delivered: remotes limit the messages of a connection.
  void End(RecipientVerdict last, bool remote_left = false);
  void Write(std::string_view text) { handler_.OnOutput(text); }
  std::string MailCommand(const ClientTransaction& transaction) const;
  Transaction* Find(uint64_t id);
  bool pipelining() const { return peer_.pipelining && options_.use_pipelining; }

  SmtpClientHandler& handler_;
  const SmtpClientOptions options_;
  PeerCapabilities peer_;
  ReplyParser parser_;
  std::deque<Waiting> waiting_{{Expect::kGreeting, 0}};
  std::deque<Transaction> transactions_;
  DotStuffer stuffer_;
  std::optional<SmtpAuthExchange> auth_;
  uint64_t body_of_ = 0;  // transaction whose body is being sent
  bool sending_body_ = false;
  bool need_rset_ = false;
  bool delivered_ = false;  // some message, on this connection
  bool quit_asked_ = false;
  bool quit_sent_ = false;
  bool ready_ = false;
  bool ended_ = false;
};

}  // namespace sluice::mail
