// Rows of text, lined up in columns for a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::ctl {

// Text from the network may hold terminal escapes: every control character becomes '?', line ends
// become a space, and what is not UTF-8 is shown byte by byte as '?'.
std::string PrintableText(std::string_view text);

// "1.5 GiB"; below 1 KiB "512 B".
std::string FormatBytes(uint64_t bytes);

// A span of time at two units' precision: "45 ms", "12 s", "3m05s", "4h12m", "2d07h". Negative
// spans get a minus sign.
std::string FormatSpan(int64_t span_us);

// Thread-safety: one thread at a time.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
    size_t width_max = 0;  // longer cells end in "..."; 0: no bound
  };

  explicit Table(std::vector<Column> columns);

  // Cells are made printable. Missing cells are empty, surplus ones are an error of the caller.
  void AddRow(std::vector<std::string> cells);

  size_t rows() const { return rows_.size(); }

  // Title line, then the rows; columns two spaces apart; no blanks at the end of lines.
  std::string ToString() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace sluice::ctl
