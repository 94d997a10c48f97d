// Any words of remotes, clients and operators, and any original: the notification is CR LF lines
// within their bounds, it has the header fields that it should have and no other, and its parts are
// three. Bytes 0x1D part the texts.
#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/mail/dsn.h"
#include "services/mail/header_fields.h"

namespace {

using namespace sluice::mail;  // NOLINT: a fuzzer is its own program

constexpr std::array<std::string_view, 9> kFields = {"From",         "To",
                                                     "Subject",      "Date",
                                                     "Message-ID",   "Auto-Submitted",
                                                     "MIME-Version", "Content-Transfer-Encoding",
                                                     "Content-Type"};

// Whole lines that end with CR LF, none too long, none with a control character.
void CheckLines(std::string_view text) {
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') {
      SLUICE_CHECK(i > 0 && text[i - 1] == '\r' && i - 1 - begin <= 998);
      begin = i + 1;
    } else if (text[i] == '\r') {
      SLUICE_CHECK(i + 1 < text.size() && text[i + 1] == '\n');
    } else {
      SLUICE_CHECK(text[i] == '\t' || static_cast<unsigned char>(text[i]) >= ' ');
    }
  }
  SLUICE_CHECK(begin == text.size());
}

size_t Count(std::string_view text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != text.npos; at = text.find(what, at + 1)) ++count;
  return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  const auto next = [&rest] {
    const size_t end = std::min(rest.find('\x1d'), rest.size());
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return text;
  };
  DsnInput in;
  in.kind = static_cast<DsnKind>(data[0] & 3);
  in.full = (data[0] & 4) != 0;
  in.plain_text = (data[0] & 8) != 0;
  in.diagnostic_code = (data[0] & 16) != 0 ? 550 : 0;
  in.last_attempt_unix_us = (data[0] & 32) != 0 ? 1'795'000'000'000'000 : 0;
  in.retry_until_unix_us = (data[0] & 64) != 0 ? 1'795'000'000'000'000 : 0;
  in.now_unix_us = in.arrived_unix_us = 1'794'000'000'000'000;
  in.message_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  in.reporting_mta = "mx.test";
  in.sender = next();
  in.recipient = next();
  in.original_recipient = next();
  in.original_envid = next();
  in.status = next();
  in.diagnostic = next();
  in.remote_mta = next();
  in.postmaster = next();
  if ((data[1] & 1) != 0) in.from = next();
  if ((data[1] & 2) != 0) in.subject = next();
  if ((data[1] & 4) != 0) in.text = next();
  in.original = rest;

  const std::string dsn = BuildDsn(in);
  const std::string_view original = in.full ? in.original : HeaderSection(in.original, 64 * 1024);
  SLUICE_CHECK(original == in.original.substr(0, original.size()));
  SLUICE_CHECK(dsn.size() <=
               original.size() + 16 * 1024 + (in.text.empty() ? 0 : kMaxDsnTextBytes));
  const std::string end =
      in.plain_text ? "" : "\r\n--=_sluice_" + std::string(in.message_id) + "--\r\n";
  SLUICE_CHECK(std::string_view(dsn).ends_with(std::string(original) + end));
  const std::string_view ours =
      std::string_view(dsn).substr(0, dsn.size() - original.size() - end.size());
  CheckLines(ours);

  HeaderFieldReader reader(dsn);
  size_t known = 0;
  for (HeaderField field; reader.Next(field);) {
    // In their order, each at most once.
    while (known < kFields.size() && !HeaderNameEquals(field.name, kFields[known])) ++known;
    SLUICE_CHECK(known++ < kFields.size());
  }
  SLUICE_CHECK(known == kFields.size());
  // Who writes the words cannot write a boundary: what is ours of it are the declaration and the
  // three parts, and words that repeat it are not at the beginning of a line, or are an operator's.
  if (!in.plain_text && in.text.empty()) {
    SLUICE_CHECK(Count(ours, "\r\n--=_sluice_" + std::string(in.message_id)) == 3);
  }
  return 0;
}
