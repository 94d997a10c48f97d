#include "services/config/compile_cache.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace sluice::config {
namespace {

constexpr int kMaxLines = 200;
constexpr std::string_view kOpen = "<domain";
constexpr std::string_view kClose = "</domain>";

absl::string_view Key(std::string_view text) { return {text.data(), text.size()}; }

bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view Strip(std::string_view line) {
  while (!line.empty() && IsBlank(line.front())) line.remove_prefix(1);
  while (!line.empty() && IsBlank(line.back())) line.remove_suffix(1);
  return line;
}

// Takes one line from `text`, with its end.
std::string_view TakeLine(std::string_view* text) {
  const size_t end = text->find('\n');
  const std::string_view line = text->substr(0, end == text->npos ? text->size() : end + 1);
  text->remove_prefix(line.size());
  return line;
}

bool Opens(std::string_view line) {
  return line.starts_with(kOpen) && line.size() > kOpen.size() && IsBlank(line[kOpen.size()]) &&
         line.back() == '>';
}

// How many bytes the section has that begins where `text` does, and how many lines; 0 bytes: it is
// none that can be kept.
std::pair<size_t, int> SectionAt(std::string_view text) {
  const std::string_view all = text;
  std::string_view line = TakeLine(&text);
  // Quotes and comments in it are rare, and left to the lexer.
  if (line.find_first_of("$\"#,") != line.npos) return {0, 0};
  for (int lines = 2; lines <= kMaxLines && !text.empty(); ++lines) {
    line = Strip(TakeLine(&text));
    if (line == kClose) return {all.size() - text.size(), lines};
    const bool border = line.starts_with('<');
    const bool include = line.size() > 7 && IsBlank(line[7]) &&
                         absl::EqualsIgnoreCase(Key(line.substr(0, 7)), "include");
    if (border || include || line.find('$') != line.npos) return {0, 0};
  }
  return {0, 0};
}

}  // namespace

std::vector<TextPart> CutSections(std::string_view text) {
  std::vector<TextPart> parts;
  std::string_view rest = text;
  size_t began = 0;  // of what is left among the rest
  int began_line = 1;
  int line_number = 1;
  // After a line with a comma the next one may be its continuation.
  bool comma = false;
  while (!rest.empty()) {
    const size_t at = text.size() - rest.size();
    const std::string_view line = Strip(TakeLine(&rest));
    if (!comma && Opens(line)) {
      const auto [bytes, lines] = SectionAt(text.substr(at));
      if (bytes > 0) {
        if (at > began) parts.push_back({text.substr(began, at - began), began_line, false});
        parts.push_back({text.substr(at, bytes), line_number, true});
        line_number += lines;
        began = at + bytes;
        began_line = line_number;
        rest = text.substr(began);
        continue;
      }
    }
    ++line_number;
    if (!line.empty() && line.front() != '#') comma = line.find(',') != line.npos;
  }
  if (began < text.size()) parts.push_back({text.substr(began), began_line, false});
  return parts;
}

CompileCache::Entry* CompileCache::Find(std::string_view text) const {
  const auto found = entries_.find(Key(text));
  if (found == entries_.end() || found->second->section.name().empty()) return nullptr;
  return found->second.get();
}

CompileCache::Entry* CompileCache::Keep(std::string_view text, Entry entry) {
  auto& place = entries_[Key(text)];
  place = std::make_unique<Entry>(std::move(entry));
  Use(place.get());
  return place.get();
}

void CompileCache::Turn() {
  absl::erase_if(entries_, [&](const auto& item) {
    return item.second->used != compilation_ || item.second->section.name().empty();
  });
  ++compilation_;
}

}  // namespace sluice::config
