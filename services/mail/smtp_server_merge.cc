// Mail merge: XACK, XMRG, XDFN, XPRT as PowerMTA has them. With XACK OFF the replies to XMRG, XDFN
// and RCPT are left out; where one would have been a refusal the next XPRT gets it in place of its
// 354, and the whole transaction is over, so that nobody is left out unseen.
#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "services/mail/smtp_server_session.h"
#include "services/mail/xtext.h"

namespace sluice::mail {

bool SmtpServerSession::TakeQuietly(int code, EnhancedCode enhanced, std::string_view text) {
  if (code == 421) return false;
  if (code >= 400 && !merge_error_) {
    merge_error_ = ServerReply{static_cast<uint16_t>(code), enhanced, std::string(text)};
  }
  return true;
}

void SmtpServerSession::OnMergeCommand(const CommandLine& command) {
  const std::string_view argument = command.argument;
  if (!handler_.OffersMailMerge()) {
    quiet_ = false;
    Error(502, {5, 5, 1}, "Mail merge is not available here");
    return;
  }
  switch (command.verb) {
    case SmtpVerb::kXack: {
      const absl::string_view word(argument.data(), argument.size());
      if (!absl::EqualsIgnoreCase(word, "ON") && !absl::EqualsIgnoreCase(word, "OFF")) {
        Error(501, {5, 5, 4}, "Write XACK ON or XACK OFF");
        return;
      }
      acks_off_ = absl::EqualsIgnoreCase(word, "OFF");
      Reply(250, {2, 0, 0}, acks_off_ ? "Replies are left out" : "Every command is answered");
      return;
    }
    case SmtpVerb::kXmrg:
      OnMailCommand(argument, true);
      return;
    case SmtpVerb::kXdfn: {
      if (merge_ == nullptr || (stage_ != Stage::kMail && stage_ != Stage::kRcpt)) {
        Error(503, {5, 5, 1}, "XDFN stands between XMRG and XPRT");
        return;
      }
      if (const auto refusal = ParseMergeDefinitions(argument, merge_->definitions)) {
        if (HoldsControl(argument)) handler_.OnRefusal(ClientRefusal::kHeaderInjection);
        Error(refusal->code, refusal->enhanced, refusal->text);
        return;
      }
      Reply(250, {2, 0, 0}, "Defined");
      return;
    }
    default:
      OnPartCommand(argument);
  }
}

std::optional<ServerReply> SmtpServerSession::ParseMergeMail(std::string_view argument) {
  CommandExtensions extensions = options_->extensions;
  extensions.verp = true;
  auto refusal = ParseMailCommand(argument, extensions, mail_);
  mail_.merge = true;
  return refusal;
}

// The definitions are for this recipient alone, whether taken or refused.
void SmtpServerSession::AskMergeRcpt() {
  rcpt_.merge = &merge_->definitions;
  merge_->next_wanted = 0;
  for (const uint32_t part : merge_->definitions.parts) {
    merge_->next_wanted = std::max(merge_->next_wanted, part);
  }
  std::optional<ServerReply> answer = handler_.OnRcpt(rcpt_);
  merge_->definitions = MergeDefinitions();
  Ask(Question::kRcpt, std::move(answer));
}

void SmtpServerSession::OnPartCommand(std::string_view argument) {
  if (merge_error_) {
    const ServerReply error = *std::move(merge_error_);
    ResetTransaction();
    Reply(error);
    CountRejection();
    return;
  }
  if (RepeatDeferral()) return;
  if (merge_ == nullptr) {
    Error(503, {5, 5, 1}, "XMRG comes before XPRT");
    return;
  }
  if (stage_ == Stage::kMail) {
    Reply(554, {5, 5, 1}, "No valid recipients");
    return;
  }
  const std::optional<PartCommand> part = ParsePartCommand(argument);
  if (!part) {
    Error(501, {5, 5, 4}, "Write XPRT number [LAST]");
    return;
  }
  if (mail_.body == BodyParam::kBinaryMime) {
    Error(503, {5, 5, 1}, "A mail merge is made of lines");
    return;
  }
  if (part->number != merge_->part + 1) {
    Error(503, {5, 5, 1}, "Part " + std::to_string(merge_->part + 1) + " is the next");
    return;
  }
  if (part->last && part->number < merge_->wanted) {
    Error(503, {5, 5, 1}, "A recipient wants part " + std::to_string(merge_->wanted));
    return;
  }
  merge_->last = part->last;
  if (part->number == 1) {
    Ask(Question::kData, handler_.OnData());
    return;
  }
  const uint64_t limit = options_->max_message_bytes;
  if (limit != 0 && merge_->totals.size >= limit) {
    ResetTransaction();
    Reply(552, {5, 3, 4}, "The message is larger than " + std::to_string(limit) + " bytes");
    return;
  }
  Reply(354, {}, "Go on with part " + std::to_string(part->number));
  stage_ = Stage::kData;
  reader_.emplace(
      DataReader::Limits{limit == 0 ? 0 : limit - merge_->totals.size, options_->max_header_bytes});
}

bool SmtpServerSession::EndPart(DataReader::Totals& totals) {
  ++merge_->part;
  handler_.OnPartEnd(merge_->part);
  merge_->totals.size += totals.size;
  merge_->totals.hops += totals.hops;
  if (merge_->part == 1) merge_->totals.header_size = totals.header_size;
  totals = merge_->totals;
  if (merge_->last) return false;
  stage_ = Stage::kChunks;
  Reply(250, {2, 0, 0}, "Part " + std::to_string(merge_->part) + " taken");
  return true;
}

}  // namespace sluice::mail
