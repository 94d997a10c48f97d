// Any bytes: decoding does not depend on how they are cut, agrees with a plain decoder written
// apart, and what is accepted holds no bare CR, bare LF or NUL.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "services/base/check.h"
#include "services/mail/data_reader.h"

namespace {

using sluice::mail::DataError;
using sluice::mail::DataReader;

struct Result {
  std::string text;
  size_t taken = 0;
  bool done = false;
  DataError error = DataError::kNone;
  uint32_t hops = 0;
  uint64_t header_size = 0;
};

Result Read(std::string_view wire, size_t chunk) {
  DataReader reader({.max_bytes = 4096, .max_header_bytes = 1024});
  Result r;
  while (r.taken < wire.size() && !reader.done()) {
    r.taken += reader.Feed(wire.substr(r.taken, chunk), [&](std::string_view s) { r.text += s; });
  }
  r.done = reader.done();
  r.error = reader.error();
  r.hops = reader.hops();
  r.header_size = reader.header_size();
  return r;
}

// By the book: lines that end with CR LF, the first dot of each taken away, a lone dot is the end.
bool PlainDecode(std::string_view wire, std::string& text) {
  while (true) {
    const size_t end = wire.find("\r\n");
    if (end == std::string_view::npos) return false;
    std::string_view line = wire.substr(0, end);
    wire.remove_prefix(end + 2);
    if (line == ".") return true;
    if (line.starts_with(".")) line.remove_prefix(1);
    text.append(line);
    text += "\r\n";
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t chunk = data[0] % 61 + 1;
  const std::string_view wire(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Result whole = Read(wire, wire.size() + 1);
  const Result cut = Read(wire, chunk);
  SLUICE_CHECK(whole.done == cut.done && whole.error == cut.error);
  SLUICE_CHECK(!whole.done || whole.taken == cut.taken);
  if (whole.error != DataError::kNone) return 0;
  SLUICE_CHECK(whole.text == cut.text && whole.hops == cut.hops);
  SLUICE_CHECK(whole.header_size == cut.header_size);
  if (!whole.done) return 0;
  std::string plain;
  SLUICE_CHECK(PlainDecode(wire, plain) && plain == whole.text);
  for (size_t i = 0; i < whole.text.size(); ++i) {
    SLUICE_CHECK(whole.text[i] != '\0');
    const bool lf_next = i + 1 < whole.text.size() && whole.text[i + 1] == '\n';
    if (whole.text[i] == '\r') SLUICE_CHECK(lf_next);
    if (whole.text[i] == '\n') SLUICE_CHECK(i > 0 && whole.text[i - 1] == '\r');
  }
  return 0;
}
