// Any template as it may lie on a damaged disk, and any recipient of it: nothing is read that is
// not there, the text stays within what its parts and values can come to, and with no variables it
// is its parts. The first line defines, the second has parts as pairs of letters, the rest is text.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/mail/mail_merge.h"
#include "services/mail/merge_body.h"

namespace {

std::string_view TakeLine(std::string_view& input) {
  const size_t end = input.find('\n');
  const std::string_view line = input.substr(0, end);
  input.remove_prefix(end == input.npos ? input.size() : end + 1);
  return line;
}

// Small ones mostly, and at times one near the end of what fits.
uint64_t Wide(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0xF0 ? byte : UINT64_MAX - (0xFF - byte);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;        // NOLINT: a fuzzer is its own program
  using namespace sluice::mail;  // NOLINT
  std::string_view input(reinterpret_cast<const char*>(data), size);
  MergeDefinitions definitions;
  ParseMergeDefinitions(TakeLine(input), definitions);
  common::v1::Message message;
  common::v1::Delivery delivery;
  delivery.set_rcpt("r@y.test");
  message.set_mail_from("s@b.test");
  size_t longest = 64;  // of what is predefined
  for (const auto& [name, value] : definitions.variables) {
    (*delivery.mutable_merge_variables())[name] = value;
    longest = std::max(longest, value.size());
  }
  for (const uint32_t part : definitions.parts) delivery.add_parts(part);
  const std::string_view parts = TakeLine(input);
  const std::string_view stored = input;
  uint64_t most = 0;
  for (size_t i = 0; i + 2 < parts.size(); i += 3) {
    common::v1::BodyPart& part = *message.add_parts();
    part.set_number(static_cast<unsigned char>(parts[i]) % 5);
    part.set_offset(Wide(parts[i + 1]));
    part.set_size(Wide(parts[i + 2]));
    const bool lies_in =
        part.offset() <= stored.size() && part.size() <= stored.size() - part.offset();
    if (lies_in) most = std::max(most, part.size());
  }
  const std::string text = MergedBody(stored, message, delivery, true);
  const uint64_t count = static_cast<uint64_t>(message.parts_size()) + delivery.parts_size();
  SLUICE_CHECK(text.size() <= count * (most + most / 3 * longest) + 2);
  if (stored.find('[') == stored.npos && delivery.parts().empty()) {
    std::string whole;
    for (const common::v1::BodyPart& part : message.parts()) {
      if (part.offset() > stored.size() || part.size() > stored.size() - part.offset()) continue;
      whole += stored.substr(part.offset(), part.size());
    }
    // But for the empty line that may part them from the fields in front.
    SLUICE_CHECK(text == whole || text.size() == whole.size() + 2);
  }
  // A sender of one recipient's own has one domain, the sender's.
  const std::string sender = VerpSender(parts, stored.substr(0, 100));
  const size_t at = parts.rfind('@');
  if (at != parts.npos) SLUICE_CHECK(sender.ends_with(parts.substr(at)));
  return 0;
}
