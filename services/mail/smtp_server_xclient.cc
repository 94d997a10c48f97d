// XCLIENT: a trusted proxy says who its client is.
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {

void SmtpServerSession::OnXclientCommand(std::string_view argument) {
  if (!handler_.OffersXclient()) {
    handler_.OnRefusal(ClientRefusal::kXclient);
    Error(550, {5, 7, 0}, "XCLIENT is not for this client");
    return;
  }
  if (stage_ > Stage::kHello) {
    Error(503, {5, 5, 1}, "XCLIENT is not possible in a transaction");
    return;
  }
  XclientCommand xclient;
  if (const auto refusal = ParseXclientCommand(argument, xclient)) {
    Error(refusal->code, refusal->enhanced, refusal->text);
    return;
  }
  const ServerReply reply = handler_.OnXclient(xclient);
  if (reply.code != 220) {
    Reply(reply);
    if (reply.code == 421) closing_ = true;
    return;
  }
  stage_ = Stage::kConnect;
  acks_off_ = false;
  authenticated_ = xclient.login.has_value();
  Greet();
}

}  // namespace sluice::mail
