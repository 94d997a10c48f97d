// One SMTP client: its session, and the message it is sending. The socket is the driver's
// (io/smtp_listener.h, or a simulation).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "services/base/net/tls_facts.h"
#include "services/ingest/core/ingest.h"
#include "services/ingest/core/merge_template.h"
#include "services/ingest/core/smtp_auth.h"
#include "services/ingest/core/submission.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::ingest {

struct SmtpPeer {
  std::string client_ip;  // text
  std::string local_ip;
  std::string listener;  // its address, for records
};

// Thread-safety: none; on the ingest's executor. Lifetime: ingest and driver outlive it. Destroying
// it drops the message that is not yet with a shard; one that is goes its way.
class SmtpConnection final : private mail::SmtpServerHandler,
                             private Submission::Owner,
                             private SmtpAuth::Owner,
                             private Drainable {
 public:
  class Driver {
   public:
    // session() has news that no call of the driver's caused: output, end, another deadline. The
    // connection must not be destroyed within.
    virtual void OnWake() = 0;
    // The client is another one than it was taken for (XCLIENT), or a user: the connection counts
    // for what `profile` says from now on. The refusal where there is no room.
    virtual std::optional<mail::ServerReply> OnOtherClient(const ClientProfile&) {
      return std::nullopt;
    }
    // Of the client's own TLS connection; asked at AUTH alone.
    virtual mail::SaslChannelBindings ChannelBindings() { return {}; }

   protected:
    ~Driver() = default;
  };

  SmtpConnection(Ingest& ingest, SmtpPeer peer, Driver& driver);
  ~SmtpConnection();

  // Greets, or refuses where policy offers no SMTP to this client or a drain has begun. `refusal`:
  // the driver's own reason.
  void Start(const mail::ServerReply* refusal = nullptr);
  mail::SmtpServerSession& session() { return session_; }
  const ClientProfile& profile() const { return *profile_; }
  // The handshake that session().tls_handshake() asked for is done.
  // `user`: whom the client's certificate makes it; empty: nobody. `can_bind`: Driver has
  // ChannelBindings.
  void OnTlsReady(const TlsFacts& facts, std::string user = "", bool can_bind = false);
  // It failed, or the driver gave it up.
  void OnTlsFailed(std::string_view problem);

 private:
  void OnHello(std::string_view name, bool extended) override;
  std::optional<mail::ServerReply> OnMail(const mail::MailCommand& mail) override;
  std::optional<mail::ServerReply> OnRcpt(const mail::RcptCommand& rcpt) override;
  std::optional<mail::ServerReply> OnData() override;
  void OnBody(std::string_view text) override;
  std::optional<mail::ServerReply> OnMessageEnd(const MessageFacts& facts) override;
  void OnReset() override;
  void OnDataRefused(mail::DataError error) override;
  void OnFault(mail::ClientFault fault) override;
  void OnRefusal(mail::ClientRefusal refusal) override;
  std::string AuthMechanisms() override;
  std::optional<mail::ServerReply> OnAuth(std::string_view mechanism,
                                          std::optional<std::string_view> initial) override;
  std::optional<mail::ServerReply> OnAuthResponse(std::string_view response) override;
  void OnAuthCancel() override { auth_.reset(); }
  bool OffersMailMerge() override { return profile_->settings->allow_mailmerge(); }
  void OnPartEnd(uint32_t number) override;
  bool OffersXclient() override;
  mail::ServerReply OnXclient(const mail::XclientCommand& xclient) override;
  void OnStartTls(size_t discarded) override;
  void OnTrace(mail::SmtpTrace kind, std::string_view text) override;
  void OnWake() override { driver_.OnWake(); }

  void OnSubmissionWritable() override;
  void OnSubmissionDone(const SubmitResult& result) override;

  void OnAuthReply(const mail::ServerReply& reply) override;
  // Ends the exchange where `reply` does.
  void Settle(const std::optional<mail::ServerReply>& reply);
  // Nobody where `user` is empty.
  void BecomeUser(std::string user);
  // To what holds now for this client and user; the other one: where the policy has changed.
  void UpdateProfile();
  void FollowPolicy();

  void OnDrain() override;

  // Adds the recipient, or says why not.
  std::optional<mail::ServerReply> CheckRcpt(const mail::RcptCommand& rcpt);
  // The refusal, or nothing where the client is to wait for it.
  std::optional<mail::ServerReply> HoldBack(mail::ServerReply refusal);
  // The reply to a message; with disconnect-on-transient-error one that ends the connection.
  mail::ServerReply Final(mail::ServerReply reply) const;
  void TryHeader();
  void BeginLarge();
  void AppendLarge(std::string_view text);
  SmtpAuth::Protection protection() const { return {tls_.has_value(), can_bind_}; }
  // Header work and the choice of virtual MTA; the refusal where there is one.
  std::optional<mail::ServerReply> FinishHeader(size_t header_end);
  void FillMessage(const MessageFacts& facts);
  // Makes room for a buffer that will hold so much. Where there is none the message is refused, and
  // its text dropped.
  // The refusal, once the log has it.
  mail::ServerReply Noted(std::string_view step, mail::ServerReply refusal);
  bool Charge(uint64_t bytes);
  // The same for what a recipient takes until the message is with a shard; the refusal of it where
  // there is no room.
  std::optional<mail::ServerReply> ChargeRecipient(const mail::RcptCommand& rcpt);
  void Forget();

  Ingest& ingest_;
  Driver& driver_;
  SmtpPeer peer_;
  const std::string connected_ip_;                // peer_'s may be what a proxy says
  std::shared_ptr<const ClientProfile> profile_;  // session_ refers to its options
  uint64_t policy_generation_;
  std::string hello_;
  std::optional<TlsFacts> tls_;
  std::string tls_text_;  // for Received fields
  bool extended_ = false;
  uint32_t refusals_ = 0;
  uint32_t messages_ = 0;                       // accepted
  std::optional<MonotonicTime> began_;          // where the connection is logged
  std::optional<mail::ServerReply> held_back_;  // until the timer
  TimerId held_back_timer_ = 0;
  bool can_bind_ = false;                  // SCRAM-SHA-256-PLUS
  std::unique_ptr<SmtpAuth> auth_;         // an exchange is on its way
  std::string user_;                       // who authenticated; empty: nobody
  std::optional<mail::ServerReply> full_;  // there is no room for this client or user
  std::string claimed_hello_;              // what a trusted proxy says that its client said

  // The message that is coming in.
  queue::v1::NewMessage message_;
  uint64_t declared_size_ = 0;
  uint64_t expected_size_ = 0;  // by the message before, where the client says none
  std::string buffer_;          // Received field and text; of a large one, what is in no chunk yet
  size_t text_begin_ = 0;       // end of our Received field
  size_t header_searched_ = 0;  // up to here there is no end of the header
  bool header_done_ = false;
  uint64_t header_size_ = 0;  // with our field, after the cuts
  uint64_t cut_bytes_ = 0;
  uint64_t added_bytes_ = 0;
  bool too_many_recipients_ = false;
  RouteChoice route_;
  ControlFields control_;
  std::optional<mail::ServerReply> refusal_;  // decided while text still comes
  std::unique_ptr<MergeTemplate> merge_;      // of a mail merge
  std::optional<Submission> submission_;
  bool ended_ = false;
  uint64_t body_size_ = 0;
  size_t recipients_ = 0;
  uint64_t charged_ = 0;  // with the envelope's
  uint64_t envelope_charged_ = 0;

  mail::SmtpServerSession session_;
};

}  // namespace sluice::ingest
