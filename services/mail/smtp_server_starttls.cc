// The part of SmtpServerSession that turns to TLS (RFC 3207).
#include "services/base/check.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {

void SmtpServerSession::OnStartTlsCommand(std::string_view argument) {
  if (!argument.empty()) {
    Error(501, {5, 5, 4}, "STARTTLS takes no argument");
    return;
  }
  if (secured_) {
    Error(503, {5, 5, 1}, "TLS is active already");
    return;
  }
  if (!offers_tls()) {
    Error(502, {5, 5, 1}, "Command not implemented");
    return;
  }
  // Nothing that was said in clear counts from here on (RFC 3207 section 4.2).
  ResetTransaction();
  stage_ = Stage::kConnect;
  authenticated_ = false;
  acks_off_ = false;
  Reply(220, {2, 0, 0}, "Ready to start TLS");
  handshake_ = true;
}

void SmtpServerSession::OnTlsReady(MonotonicTime now) {
  SLUICE_CHECK(handshake_);
  handshake_ = false;
  secured_ = true;
  activity_ = now;
}

}  // namespace sluice::mail
