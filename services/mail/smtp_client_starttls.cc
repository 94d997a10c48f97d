// The part of SmtpClientSession that asks for TLS (RFC 3207).
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/mail/smtp_client_session.h"
#include "services/mail/smtp_client_verdict.h"

namespace sluice::mail {

void SmtpClientSession::SayEhlo() {
  waiting_.push_back({Expect::kEhlo, 0});
  Say(absl::StrCat(options_.lmtp ? "LHLO " : "EHLO ", options_.ehlo_name, "\r\n"));
}

void SmtpClientSession::BecomeReady() {
  if (AskForTls()) return;
  Ready();
}

bool SmtpClientSession::AskForTls() {
  if (options_.starttls == StartTls::kNever || tls_ != Tls::kClear) return false;
  if (peer_.starttls) {
    tls_ = Tls::kAsked;
    waiting_.push_back({Expect::kStartTls, 0});
    Say("STARTTLS\r\n");
    return true;
  }
  if (options_.starttls == StartTls::kOpportunistic) return false;
  End(LocalVerdict("TLS is required, and the remote does not offer STARTTLS", SmtpStage::kStartTls,
                   "4.7.4"));
  return true;
}

void SmtpClientSession::OnStartTlsReply(SmtpReply reply) {
  if (reply.code == 220) {
    tls_ = Tls::kHandshake;
    handler_.OnStartTls();
    return;
  }
  if (options_.starttls == StartTls::kRequired) {
    RecipientVerdict refused;
    refused.verdict = Verdict::kTransient;
    refused.stage = SmtpStage::kStartTls;
    refused.reply = std::move(reply);
    End(std::move(refused));
    return;
  }
  tls_ = Tls::kClear;
  options_.starttls = StartTls::kNever;
  Ready();
}

void SmtpClientSession::RefuseInjection() {
  fault_ = RemoteFault::kInjection;
  // CVE-2011-0411 and its kin: they would count as replies of the encrypted session, or as an
  // answer to STARTTLS that the remote never gave.
  End(LocalVerdict("the remote sent clear text around its reply to STARTTLS", SmtpStage::kStartTls,
                   "4.7.0"));
}

void SmtpClientSession::OnTlsReady(SaslChannelBindings bindings) {
  SLUICE_CHECK(tls_ == Tls::kHandshake);
  bindings_ = std::move(bindings);
  tls_ = Tls::kSecured;
  peer_ = {};
  if (!options_.implicit_tls) SayEhlo();  // else the greeting is still to come
}

void SmtpClientSession::Restart(StartTls starttls) {
  SLUICE_CHECK(!ready_ && transactions_.empty() && !options_.implicit_tls);
  options_.starttls = starttls;
  tls_ = Tls::kClear;
  peer_ = {};
  parser_ = {};
  waiting_.assign(1, {Expect::kGreeting, 0});
  auth_.reset();
  bindings_ = {};
  quit_asked_ = false;
  quit_sent_ = false;
  fault_ = RemoteFault::kNone;
  ended_ = false;
}

}  // namespace sluice::mail
