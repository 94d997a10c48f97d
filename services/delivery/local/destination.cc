#include "services/delivery/local/destination.h"

#include "services/mail/message_id.h"

namespace sluice::delivery {
namespace {

std::string Safe(std::string_view value) {
  std::string safe;
  for (const char c : value.substr(0, 200)) {
    const bool odd = c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
    safe += odd ? '_' : c;
  }
  if (safe.empty() || safe.front() == '.') safe.insert(0, 1, '_');
  return safe;
}

}  // namespace

bool NamesRecipient(std::string_view text) {
  for (const std::string_view name : {"${local}", "${domain}", "${rcpt}"}) {
    if (text.find(name) != std::string_view::npos) return true;
  }
  return false;
}

std::string Expand(std::string_view text, const queue::v1::Lease& lease, int delivery,
                   bool for_path, bool preserve_case) {
  const std::string& rcpt = lease.deliveries(delivery).rcpt();
  const size_t at = rcpt.rfind('@');
  std::string out;
  while (!text.empty()) {
    const size_t begin = text.find("${");
    const size_t end =
        begin == std::string_view::npos ? std::string_view::npos : text.find('}', begin);
    if (end == std::string_view::npos) break;
    out += text.substr(0, begin);
    const std::string_view name = text.substr(begin + 2, end - begin - 2);
    std::string value;
    bool known = true;
    bool address = true;
    if (name == "local") {
      value = rcpt.substr(0, at);
    } else if (name == "domain") {
      value = at == rcpt.npos ? "" : rcpt.substr(at + 1);
    } else if (name == "rcpt") {
      value = rcpt;
    } else if (name == "from") {
      value = lease.message().mail_from();
    } else if (name == "id") {
      value = mail::FormatMessageId(lease.message().id());
      address = false;
    } else {
      known = false;
    }
    if (address && !preserve_case) {
      for (char& c : value) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      }
    }
    if (!known) {
      out += text.substr(begin, end + 1 - begin);
    } else {
      out += for_path ? Safe(value) : value;
    }
    text.remove_prefix(end + 1);
  }
  out += text;
  return out;
}

}  // namespace sluice::delivery
