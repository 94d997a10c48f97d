// Between the terms of an SMTP session and those of a worker: what a session is to do for a target
// and a lease, and what its verdicts mean. Pure, but for a nonce.
#pragma once

#include <string>
#include <vector>

#include "services/delivery/core/connection.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::delivery {

mail::SmtpClientOptions SessionOptions(const ConnectTarget& target, mail::StartTls wanted);
// But for what depends on the connection: whether its TLS is verified.
mail::ClientTransaction SessionTransaction(const Transaction& transaction,
                                           const mail::PeerCapabilities& peer);

// Of the target's host.
common::v1::Reply ToReply(const mail::RecipientVerdict& verdict, const ConnectTarget& target);
// What most recipients got stands once; the others are named.
void FillOutcomes(const std::vector<mail::RecipientVerdict>& recipients,
                  const ConnectTarget& target, queue::v1::GroupResult* result);

}  // namespace sluice::delivery
