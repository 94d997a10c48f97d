#include "tools/ctl/render_parts.h"

#include "tools/ctl/text.h"

namespace sluice::ctl {

std::string Number(uint64_t n) { return std::to_string(n); }

std::string Age(int64_t since_us, int64_t now_us) {
  return since_us == 0 ? "-" : FormatSpan(now_us > since_us ? now_us - since_us : 0);
}

std::string Until(int64_t when_us, int64_t now_us) {
  if (when_us == 0) return "-";
  return when_us <= now_us ? "now" : "in " + FormatSpan(when_us - now_us);
}

std::string ReplyText(const common::v1::Reply& reply) {
  std::string text;
  if (reply.code() != 0) text = Number(reply.code());
  if (!reply.enhanced().empty() && !reply.text().starts_with(reply.enhanced())) {
    if (!text.empty()) text += ' ';
    text += reply.enhanced();
  }
  if (!reply.text().empty()) {
    if (!text.empty()) text += ' ';
    text += reply.text();
  }
  return text;
}

std::string Unreachable(const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    out += "no answer from " + PrintableText(name) + ": what it holds is not shown\n";
  }
  return out;
}

}  // namespace sluice::ctl
