// Rows of text, lined up in columns for a terminal.
#pragma once

#include <string>
#include <vector>

namespace sluice::ctl {

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
