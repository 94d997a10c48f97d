// How the client session words its verdicts. Thread-safety: free functions without state.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "services/mail/smtp_client_session.h"

namespace sluice::mail {

// What a reply says of whom it is about.
inline RecipientVerdict VerdictOf(SmtpReply reply, SmtpStage stage) {
  RecipientVerdict verdict;
  verdict.verdict = reply.permanent()  ? Verdict::kPermanent
                    : reply.positive() ? Verdict::kDelivered
                                       : Verdict::kTransient;
  verdict.stage = stage;
  verdict.reply = std::move(reply);
  return verdict;
}

// A trouble that no reply names: temporary until the caller says otherwise.
inline RecipientVerdict LocalVerdict(std::string_view text, SmtpStage stage,
                                     std::string_view enhanced) {
  RecipientVerdict verdict;
  verdict.verdict = Verdict::kTransient;
  verdict.stage = stage;
  verdict.reply.text = std::string(text);
  verdict.reply.enhanced = std::string(enhanced);
  verdict.local = true;
  return verdict;
}

}  // namespace sluice::mail
