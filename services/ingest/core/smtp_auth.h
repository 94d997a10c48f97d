// One AUTH exchange of a client: the mechanism, the slow work beside the loop, what is counted, and
// how long a failure waits.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "services/ingest/core/client_profile.h"
#include "services/ingest/core/ingest.h"
#include "services/mail/sasl_server.h"
#include "services/mail/server_reply.h"

namespace sluice::ingest {

// Thread-safety: none; on the ingest's executor. Lifetime: ingest and owner outlive it; work that
// runs when it is destroyed is forgotten, and counts as a failure.
class SmtpAuth {
 public:
  class Owner {
   public:
    // The reply that a call returned nothing for. The SmtpAuth may be destroyed in it.
    virtual void OnAuthReply(const mail::ServerReply& reply) = 0;

   protected:
    ~Owner() = default;
  };

  struct Protection {
    bool encrypted = false;
    bool can_bind = false;  // to the TLS connection, for SCRAM-SHA-256-PLUS
  };

  // `bindings` are there where can_bind says so.
  SmtpAuth(Ingest& ingest, std::shared_ptr<const ClientProfile> profile, std::string client_ip,
           Protection protection, mail::SaslChannelBindings bindings, Owner& owner);
  ~SmtpAuth();

  // What a client may try as the session is; empty: nothing.
  static std::string Mechanisms(const ClientProfile& profile, Protection protection);

  // The next reply, or nothing where it comes later: 334 with a challenge, 235, or a refusal.
  std::optional<mail::ServerReply> Start(std::string_view mechanism,
                                         std::optional<std::string_view> initial);
  std::optional<mail::ServerReply> OnResponse(std::string_view response);

  // Who it is, after 235, as the configuration writes it.
  std::string user() const { return profile_->users->ConfiguredName(server_->user()); }

 private:
  std::optional<mail::ServerReply> Take(mail::SaslStep step);
  void OnWorkDone(bool ok);
  mail::ServerReply Fail(mail::ServerReply reply);

  Ingest& ingest_;
  const std::shared_ptr<const ClientProfile> profile_;
  const std::string client_ip_;
  const Protection protection_;
  mail::SaslChannelBindings bindings_;
  Owner& owner_;
  std::unique_ptr<mail::SaslServer> server_;
  MonotonicTime begun_{};
  bool open_ = false;  // begun, and neither failed nor succeeded
  std::shared_ptr<SmtpAuth*> self_ = std::make_shared<SmtpAuth*>(this);  // for work's return
};

}  // namespace sluice::ingest
