// Any bytes of an HTTP client: one request however they are cut, within bounds, and of it nothing
// that is more than one line.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/metrics/http_request.h"

namespace {

using State = sluice::HttpRequestReader::State;

std::string Run(std::string_view wire, size_t step) {
  sluice::HttpRequestReader reader;
  State state = State::kMore;
  while (!wire.empty() && state == State::kMore) {
    state = reader.OnBytes(wire.substr(0, step));
    wire.remove_prefix(std::min(step, wire.size()));
  }
  if (state == State::kMore) return "more";
  SLUICE_CHECK(reader.OnBytes("GET /other HTTP/1.1\r\n\r\n") == state);
  if (state == State::kTooLarge) return "too large";
  for (const std::string_view word : {reader.method(), reader.path()}) {
    SLUICE_CHECK(word.size() <= sluice::HttpRequestReader::kMaxBytes);
    SLUICE_CHECK(word.find("\r\n") == word.npos && word.find(' ') == word.npos);
  }
  SLUICE_CHECK(reader.path().find('?') == std::string_view::npos);
  return std::string(reader.method()) + " " + std::string(reader.path());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // More than the fuzzer gives: what is there, several times.
  std::string wire(reinterpret_cast<const char*>(data), size);
  if (size > 4000) wire += wire + wire;
  const std::string whole = Run(wire, wire.size() + 1);
  SLUICE_CHECK((whole == "more") == (wire.size() < sluice::HttpRequestReader::kMaxBytes &&
                                     wire.find("\r\n\r\n") == std::string::npos));
  SLUICE_CHECK(whole == Run(wire, size % 7 + 1));
  return 0;
}
