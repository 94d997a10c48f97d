// SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, with and without channel binding. Use
// SaslServer::Make.
#pragma once

#include <memory>

#include "services/mail/sasl_server.h"

namespace sluice::mail {

std::unique_ptr<SaslServer> MakeScramServer(SaslContext context, bool plus);

}  // namespace sluice::mail
