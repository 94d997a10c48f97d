#include "tools/ctl/message_id_text.h"

#include "services/mail/message_id.h"

namespace sluice::ctl {

std::string MessageIdText(std::string_view bytes) {
  if (bytes.size() == mail::kMessageIdBytes) return mail::FormatMessageId(bytes);
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string text;
  for (const char c : bytes) {
    text.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
    text.push_back(kHex[static_cast<unsigned char>(c) & 15]);
  }
  return text;
}

}  // namespace sluice::ctl
