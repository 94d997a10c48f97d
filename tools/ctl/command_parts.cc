#include "tools/ctl/command_parts.h"

#include "services/mail/message_id.h"
#include "tools/ctl/json.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {

void Print(Context& context, const google::protobuf::Message& message, const std::string& text) {
  context.env.out << (context.json ? ToJson(message) + "\n" : text);
}

int Failed(Context& context, const grpc::Status& status, std::string_view what) {
  return ReportFailure(status, what, context.client.options().server, context.client.connected(),
                       context.env);
}

int Usage(Context& context, std::string_view what) {
  context.env.err << "sluicectl: " << what << "\n";
  return kExitUsage;
}

std::string Author(const Context& context, const std::string& given) {
  return given.empty() ? context.env.user : given;
}

std::optional<std::string> IdBytes(Context& context, const std::string& text) {
  std::optional<std::string> bytes = mail::ParseMessageId(text);
  if (!bytes.has_value()) {
    Usage(context, PrintableText(text) +
                       " is no message id: 26 letters and digits, as the 250 "
                       "reply, `messages list` and the logs show it");
  }
  return bytes;
}

std::string Count(uint64_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

}  // namespace sluice::ctl
