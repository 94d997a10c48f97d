#include "tools/ctl/table.h"

#include <algorithm>
#include <utility>

#include "services/base/check.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

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
