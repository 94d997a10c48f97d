// AUTH (RFC 4954): the framing of an exchange in lines of base64. The mechanisms are the handler's.
#include <utility>

#include "absl/strings/escaping.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {
namespace {

// An unpadded or broken text is refused, since clients that differ in it differ in what they mean.
std::optional<std::string> FromBase64(std::string_view text) {
  std::string bytes;
  if (text.size() % 4 != 0 || text.find_first_of(" \t") != std::string_view::npos ||
      !absl::Base64Unescape(absl::string_view(text.data(), text.size()), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

}  // namespace

void SmtpServerSession::OnAuthCommand(std::string_view argument) {
  if (stage_ == Stage::kConnect) {
    Error(503, {5, 5, 1}, "Say EHLO first");
    return;
  }
  if (stage_ != Stage::kHello) {
    Error(503, {5, 5, 1}, "AUTH is not possible in a transaction");
    return;
  }
  if (authenticated_) {
    Error(503, {5, 5, 1}, "Authenticated already");
    return;
  }
  if (handler_.AuthMechanisms().empty()) {
    Error(502, {5, 5, 1}, "AUTH is not available here");
    return;
  }
  const size_t blank = argument.find(' ');
  const std::string_view mechanism = argument.substr(0, blank);
  if (mechanism.empty()) {
    Error(501, {5, 5, 4}, "Write AUTH mechanism [initial response]");
    return;
  }
  std::optional<std::string> initial;
  if (blank != std::string_view::npos) {
    const std::string_view text = argument.substr(blank + 1);
    // "=" is the empty response (RFC 4954 4).
    initial = text == "=" ? std::string() : FromBase64(text);
    if (!initial) {
      Error(501, {5, 5, 2}, "The response is not base64");
      return;
    }
  }
  in_auth_ = true;
  Ask(Question::kAuth, handler_.OnAuth(mechanism, initial));
}

void SmtpServerSession::OnAuthLine(std::string_view line) {
  if (line == "*") {
    in_auth_ = false;
    handler_.OnAuthCancel();
    Error(501, {5, 7, 0}, "Authentication cancelled");
    return;
  }
  const std::optional<std::string> response = FromBase64(line);
  if (!response) {
    in_auth_ = false;
    handler_.OnAuthCancel();
    Error(501, {5, 5, 2}, "The response is not base64");
    return;
  }
  Ask(Question::kAuth, handler_.OnAuthResponse(*response));
}

void SmtpServerSession::AnswerAuth(const ServerReply& reply) {
  if (reply.code == 334) {
    if (options_->trace) TraceReply(334, {}, "(challenge hidden)");
    output_ += "334 ";
    output_ += absl::Base64Escape(reply.text);
    output_ += "\r\n";
    return;
  }
  in_auth_ = false;
  if (reply.code == 235) {
    authenticated_ = true;
    Reply(reply);
    return;
  }
  if (reply.code == 421) {
    Reply(reply);
    closing_ = true;
    return;
  }
  Error(reply.code, reply.enhanced, reply.text);
}

}  // namespace sluice::mail
