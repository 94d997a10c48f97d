// Any bytes of an HTTP server: an answer within bounds or a problem, the same however they are cut.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/delivery/local/http_answer.h"

namespace {

std::optional<sluice::delivery::HttpAnswer> Run(std::string_view wire, size_t step,
                                                std::string* problem) {
  sluice::delivery::HttpAnswerReader reader;
  while (!wire.empty() && !reader.OnBytes(wire.substr(0, step))) {
    wire.remove_prefix(std::min(step, wire.size()));
  }
  return reader.Finish(problem);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view wire(reinterpret_cast<const char*>(data), size);
  std::string problem;
  const auto whole = Run(wire, size + 1, &problem);
  constexpr size_t kSteps[] = {1, 3, 64};
  std::string other;
  SLUICE_CHECK(Run(wire, kSteps[size % 3], &other) == whole);
  SLUICE_CHECK(other == problem);
  SLUICE_CHECK(whole.has_value() == problem.empty());
  if (!whole) return 0;
  SLUICE_CHECK(whole->status >= 200 && whole->status < 1000);
  SLUICE_CHECK(whole->reason.size() <= 200 && whole->body.size() <= 500);
  for (const std::string& text : {whole->reason, whole->body}) {
    SLUICE_CHECK(text.find_first_of(std::string_view("\r\n\0\x1b", 4)) == text.npos);
  }
  return 0;
}
