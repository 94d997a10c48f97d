#include "services/mail/smtp_auth_exchange.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace sluice::mail {
namespace {

constexpr size_t kMaxCommandBytes = 512;  // RFC 5321 section 4.5.3.1.4, with CRLF
constexpr int kMaxChallenges = 8;

}  // namespace

std::string SmtpAuthExchange::Command() {
  std::string command = absl::StrCat("AUTH ", sasl_->name().data());
  std::optional<std::string> initial = sasl_->InitialResponse();
  if (initial) {
    std::string encoded = initial->empty() ? "=" : absl::Base64Escape(*initial);
    if (command.size() + encoded.size() + 3 <= kMaxCommandBytes) {
      absl::StrAppend(&command, " ", encoded);
    } else {
      pending_ = *std::move(initial);
      has_pending_ = true;
    }
  }
  return command + "\r\n";
}

SmtpAuthExchange::Step SmtpAuthExchange::OnReply(const SmtpReply& reply) {
  if (reply.positive()) {
    const absl::Status status = has_pending_
                                    ? absl::InvalidArgumentError("AUTH: success before it began")
                                    : sasl_->OnSuccess();
    if (status.ok()) return Step::kDone;
    return Break(std::string_view(status.message().data(), status.message().size()));
  }
  if (reply.code != 334)
    return reply.code >= 400 ? Step::kFailed : Break("AUTH: neither 334 nor 235");
  if (++challenges_ > kMaxChallenges) return Break("AUTH: more than 8 challenges");
  if (std::exchange(has_pending_, false)) {
    output_ = absl::Base64Escape(pending_) + "\r\n";
    return Step::kSend;
  }
  std::string challenge;
  if (!absl::Base64Unescape(reply.text, &challenge))
    return Break("AUTH: a challenge is not base64");
  absl::StatusOr<std::string> response = sasl_->OnChallenge(challenge);
  if (!response.ok()) {
    return Break(
        std::string_view(response.status().message().data(), response.status().message().size()));
  }
  output_ = absl::Base64Escape(*response) + "\r\n";
  return Step::kSend;
}

SmtpAuthExchange::Step SmtpAuthExchange::Break(std::string_view problem) {
  problem_ = std::string(problem);
  return Step::kBroken;
}

}  // namespace sluice::mail
