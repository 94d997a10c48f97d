#include "tools/ctl/table.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "services/base/check.h"

namespace sluice::ctl {
namespace {

// Length of the UTF-8 sequence at the start of `text`, or 0 where it is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  size_t length = 0;
  if (byte(0) < 0x80) return 1;
  if (byte(0) >= 0xC2 && byte(0) <= 0xDF) length = 2;
  if (byte(0) >= 0xE0 && byte(0) <= 0xEF) length = 3;
  if (byte(0) >= 0xF0 && byte(0) <= 0xF4) length = 4;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates and C1 controls (which terminals obey) do not pass.
  if (byte(0) == 0xC2 && byte(1) < 0xA0) return 0;
  if (byte(0) == 0xE0 && byte(1) < 0xA0) return 0;
  if (byte(0) == 0xED && byte(1) >= 0xA0) return 0;
  if (byte(0) == 0xF0 && byte(1) < 0x90) return 0;
  if (byte(0) == 0xF4 && byte(1) >= 0x90) return 0;
  return length;
}

size_t DisplayWidth(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string Shorten(const std::string& text, size_t width_max) {
  if (width_max == 0 || DisplayWidth(text) <= width_max) return text;
  const size_t keep = width_max > 3 ? width_max - 3 : 0;
  size_t end = 0;
  for (size_t shown = 0; end < text.size(); ++end) {
    if ((static_cast<unsigned char>(text[end]) & 0xC0) != 0x80 && shown++ == keep) break;
  }
  return text.substr(0, end) + "...";
}

}  // namespace

std::string PrintableText(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const unsigned char c = static_cast<unsigned char>(text[0]);
    if (length == 1) {
      if (c == '\n' || c == '\t') {
        out.push_back(' ');
      } else if (c != '\r') {
        out.push_back(c < 0x20 || c == 0x7F ? '?' : text[0]);
      }
    } else if (length == 0) {
      out.push_back('?');
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string FormatSpan(int64_t span_us) {
  // Negated as unsigned: the most negative value has no positive twin.
  const uint64_t us =
      span_us < 0 ? uint64_t{0} - static_cast<uint64_t>(span_us) : static_cast<uint64_t>(span_us);
  const std::string sign = span_us < 0 ? "-" : "";
  const uint64_t seconds = us / 1'000'000;
  if (seconds == 0) return sign + std::to_string(us / 1'000) + " ms";
  if (seconds < 60) return sign + std::to_string(seconds) + " s";
  const auto pair = [&](uint64_t unit_s, const char* unit, uint64_t sub_s, const char* sub) {
    char text[48];
    std::snprintf(text, sizeof text, "%llu%s%02llu%s",
                  static_cast<unsigned long long>(seconds / unit_s), unit,
                  static_cast<unsigned long long>(seconds % unit_s / sub_s), sub);
    return sign + text;
  };
  if (seconds < 3600) return pair(60, "m", 1, "s");
  if (seconds < 86400) return pair(3600, "h", 60, "m");
  return pair(86400, "d", 3600, "h");
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  SLUICE_CHECK(cells.size() <= columns_.size());
  cells.resize(columns_.size());
  for (size_t i = 0; i < cells.size(); ++i) {
    cells[i] = Shorten(PrintableText(cells[i]), columns_[i].width_max);
  }
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<size_t> widths;
  for (const Column& column : columns_) widths.push_back(DisplayWidth(column.title));
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  std::string out;
  const auto line = [&](auto&& cell) {
    const size_t start = out.size();
    for (size_t i = 0; i < columns_.size(); ++i) {
      const std::string& text = cell(i);
      const size_t pad = widths[i] - DisplayWidth(text);
      if (i > 0) out.append("  ");
      if (columns_[i].align == Align::kRight) out.append(pad, ' ');
      out.append(text);
      if (columns_[i].align == Align::kLeft) out.append(pad, ' ');
    }
    while (out.size() > start && out.back() == ' ') out.pop_back();
    out.push_back('\n');
  };
  line([&](size_t i) -> const std::string& { return columns_[i].title; });
  for (const auto& row : rows_) line([&](size_t i) -> const std::string& { return row[i]; });
  return out;
}

}  // namespace sluice::ctl
