#include "services/config/diagnostic.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/utf8.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMaxShownBytes = 200;

// Damerau's distance (a swap of neighbours counts once) over lower-case letters.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = absl::ascii_tolower(a[i - 1]) == absl::ascii_tolower(b[j - 1]);
      now[j] = std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && absl::ascii_tolower(a[i - 1]) == absl::ascii_tolower(b[j - 2]) &&
          absl::ascii_tolower(a[i - 2]) == absl::ascii_tolower(b[j - 1])) {
        now[j] = std::min(now[j], before[j - 2] + 1);
      }
    }
    before.swap(last);
    last.swap(now);
  }
  return last[b.size()];
}

std::string Shown(std::string_view line, size_t max) {
  std::string shown;
  for (const char c : line.substr(0, max)) {
    const auto byte = static_cast<unsigned char>(c);
    shown += c == '\t' ? ' ' : (byte < 0x20 || byte == 0x7f) ? '?' : c;
  }
  return shown;
}

}  // namespace

size_t Utf8Bytes(std::string_view text, size_t at) { return Utf8CharacterBytes(text.substr(at)); }

std::string Diagnostic::ToString() const {
  const char* const kind = severity == Severity::kError ? "error: " : "warning: ";
  std::string text;
  if (where.file != nullptr && where.line > 0) {
    absl::StrAppend(&text, *where.file, ":", where.line, ":", where.column, ": ", kind, message);
    const auto column = static_cast<size_t>(std::max(where.column, 1));
    if (column <= kMaxShownBytes) {
      // The caret stands below the character: what goes on with one takes no place of its own.
      const auto before = std::string_view(where.line_text).substr(0, column - 1);
      const auto more = std::count_if(before.begin(), before.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
      });
      absl::StrAppend(&text, "\n  ", Shown(where.line_text, kMaxShownBytes), "\n  ",
                      std::string(column - 1 - static_cast<size_t>(more), ' '), "^");
    }
  } else if (where.file != nullptr) {
    absl::StrAppend(&text, *where.file, ": ", kind, message);
  } else {
    absl::StrAppend(&text, kind, message);
  }
  if (!hint.empty()) absl::StrAppend(&text, "\n  ", hint);
  return ToUtf8(std::move(text));
}

bool HasErrors(const std::vector<Diagnostic>& diagnostics) {
  return std::any_of(diagnostics.begin(), diagnostics.end(), [](const Diagnostic& d) {
    return d.severity == Diagnostic::Severity::kError;
  });
}

std::string Render(const std::vector<Diagnostic>& diagnostics) {
  std::string text;
  for (const auto severity : {Diagnostic::Severity::kError, Diagnostic::Severity::kWarning}) {
    for (const Diagnostic& diagnostic : diagnostics) {
      if (diagnostic.severity == severity) absl::StrAppend(&text, diagnostic.ToString(), "\n");
    }
  }
  return text;
}

std::optional<std::string> ClosestName(std::string_view name,
                                       const std::vector<std::string_view>& candidates) {
  if (name.size() > kMaxNameBytes) return std::nullopt;
  std::optional<std::string> closest;
  size_t best = std::max<size_t>(name.size() / 3, 1) + 1;
  for (const std::string_view candidate : candidates) {
    if (candidate.size() > kMaxNameBytes) continue;
    // At least as far apart as their lengths are.
    if (std::max(name.size(), candidate.size()) - std::min(name.size(), candidate.size()) >= best) {
      continue;
    }
    const size_t distance = EditDistance(name, candidate);
    if (distance < best) {
      best = distance;
      closest = std::string(candidate);
    }
  }
  return closest;
}

}  // namespace sluice::config
