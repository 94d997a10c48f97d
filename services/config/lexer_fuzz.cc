// Any bytes as a directive file's text: statements within it, or diagnostics.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "services/base/check.h"
#include "services/config/lexer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto takes_regex = [](std::string_view name) { return name == "/" || name == "reply"; };
  std::vector<sluice::config::Diagnostic> diagnostics;
  const auto statements = sluice::config::Lex("f", text, takes_regex, &diagnostics);
  int line = 0;
  for (const auto& statement : statements) {
    SLUICE_CHECK(statement.where.line > line);
    line = statement.where.line;
    SLUICE_CHECK(statement.where.column >= 1);
    SLUICE_CHECK(statement.where.line_text.size() <= size);
    for (const auto& token : statement.arguments) {
      SLUICE_CHECK(token.column >= 1);
      SLUICE_CHECK(!token.text.empty() || token.quoted);
    }
  }
  for (const auto& diagnostic : diagnostics) SLUICE_CHECK(!diagnostic.ToString().empty());
  return 0;
}
