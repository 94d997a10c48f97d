#include "services/mail/merge_body.h"

#include <algorithm>
#include <optional>

#include "services/mail/header_start.h"
#include "services/mail/mail_merge.h"

namespace sluice::mail {

std::string MergedBody(std::string_view stored, const common::v1::Message& message,
                       const common::v1::Delivery& delivery, bool expands_undefined) {
  const auto lookup = [&](std::string_view name) -> std::optional<std::string_view> {
    const auto found = delivery.merge_variables().find(std::string(name));
    if (found != delivery.merge_variables().end()) return found->second;
    if (name == "*to") return delivery.rcpt();
    if (name == "*from") return message.mail_from();
    if (name == "*vmta") return delivery.vmta();
    if (name == "*jobid") return delivery.job_id();
    if (name == "*envid") {
      return delivery.envelope_id().empty() ? message.envid() : delivery.envelope_id();
    }
    return std::nullopt;
  };
  std::string out;
  out.reserve(stored.size() + 1024);
  const auto add = [&](const common::v1::BodyPart& part) {
    if (part.offset() > stored.size() || part.size() > stored.size() - part.offset()) return;
    const std::string_view text = stored.substr(part.offset(), part.size());
    if (part.number() == 0) {
      out += text;
    } else {
      ExpandMerge(text, lookup, expands_undefined, out);
    }
  };
  size_t front = 0;
  for (const common::v1::BodyPart& part : message.parts()) {
    if (part.number() == 0 || delivery.parts().empty()) add(part);
    if (part.number() == 0) front = out.size();
  }
  for (const uint32_t wanted : delivery.parts()) {
    const auto part = std::find_if(message.parts().begin(), message.parts().end(),
                                   [&](const auto& p) { return p.number() == wanted; });
    if (wanted != 0 && part != message.parts().end()) add(*part);
  }
  if (front > 0) SeparateFromFields(front, out);
  return out;
}

std::string VerpSender(std::string_view mail_from, std::string_view rcpt) {
  const size_t at = mail_from.rfind('@');
  const size_t rcpt_at = rcpt.rfind('@');
  if (at == std::string_view::npos || rcpt_at == std::string_view::npos ||
      mail_from.starts_with('"') || rcpt.starts_with('"')) {
    return std::string(mail_from);
  }
  std::string sender(mail_from.substr(0, at));
  sender += '-';
  sender += rcpt.substr(0, rcpt_at);
  sender += '=';
  sender += rcpt.substr(rcpt_at + 1);
  sender += mail_from.substr(at);
  return sender;
}

}  // namespace sluice::mail
