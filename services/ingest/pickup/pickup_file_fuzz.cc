// Any bytes: no crash, and what is read has an envelope and a text that was in the file.
#include <cstdint>
#include <string_view>

#include "services/base/check.h"
#include "services/ingest/pickup/pickup_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto request = sluice::ingest::ReadPickupFile(text);
  if (!request.ok()) return 0;
  SLUICE_CHECK(request->recipients_size() > 0);
  SLUICE_CHECK(!request->content().empty() && text.ends_with(request->content()));
  const auto one_line = [](const std::string& value) {
    return value.find_first_of("\r\n") == std::string::npos;
  };
  for (const auto& recipient : request->recipients()) SLUICE_CHECK(one_line(recipient.address()));
  SLUICE_CHECK(one_line(request->mail_from()));
  return 0;
}
