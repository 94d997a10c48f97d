// What a log may show of a client's commands: everything but what could be a secret.
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {

void SmtpServerSession::TraceLine(std::string_view line) {
  if (in_auth_) {
    handler_.OnTrace(SmtpTrace::kCommand, "(response hidden)");
    return;
  }
  const CommandLine command = SplitCommand(line);
  if (command.verb == SmtpVerb::kUnknown || command.verb == SmtpVerb::kForeign) {
    // A client that did not understand the refusal of its AUTH sends its password next.
    handler_.OnTrace(SmtpTrace::kCommand,
                     "(unknown command of " + std::to_string(line.size()) + " bytes hidden)");
    return;
  }
  if (command.verb != SmtpVerb::kAuth) {
    handler_.OnTrace(SmtpTrace::kCommand, line);
    return;
  }
  const size_t blank = command.argument.find_first_of(" \t");
  std::string text = "AUTH ";
  text += command.argument.substr(0, blank);
  if (blank != std::string_view::npos) text += " (response hidden)";
  handler_.OnTrace(SmtpTrace::kCommand, text);
}

void SmtpServerSession::TraceReply(int code, EnhancedCode enhanced, std::string_view text) {
  std::string reply;
  AppendReply(code, enhanced, text, reply);
  while (reply.ends_with('\n') || reply.ends_with('\r')) reply.pop_back();
  handler_.OnTrace(SmtpTrace::kReply, reply);
}

}  // namespace sluice::mail
