// Proves that columns line up whatever their content is, and that text from the network cannot
// drive the terminal.
#include "tools/ctl/table.h"

#include <limits>

#include "gtest/gtest.h"

namespace sluice::ctl {
namespace {

TEST(TableTest, ColumnsLineUp) {
  Table table({{"QUEUE"}, {"RCPT", Table::Align::kRight}, {"REASON"}});
  table.AddRow({"example.com/a", "7", "451 later"});
  table.AddRow({"b/c", "1234567"});
  EXPECT_EQ(table.ToString(),
            "QUEUE             RCPT  REASON\n"
            "example.com/a        7  451 later\n"
            "b/c            1234567\n");
}

TEST(TableTest, NoRowsIsTheTitleLine) { EXPECT_EQ(Table({{"A"}, {"B"}}).ToString(), "A  B\n"); }

TEST(TableTest, LongCellsAreCutAtACharacter) {
  Table table({{"T", Table::Align::kLeft, 6}});
  table.AddRow({"äöüäöü"});
  table.AddRow({"äöüäöüä"});
  EXPECT_EQ(table.ToString(), "T\näöüäöü\näöü...\n");
}

TEST(TableTest, WidthCountsCharactersNotBytes) {
  Table table({{"N"}, {"X"}});
  table.AddRow({"ü", "1"});
  table.AddRow({"uu", "2"});
  EXPECT_EQ(table.ToString(), "N   X\nü   1\nuu  2\n");
}

TEST(PrintableTextTest, ControlsAndBadUtf8CannotReachTheTerminal) {
  EXPECT_EQ(PrintableText("a\x1b[31mb"), "a?[31mb");
  EXPECT_EQ(PrintableText("one\r\ntwo\tthree"), "one two three");
  EXPECT_EQ(PrintableText("\xff\xc3(\xc3\xa9"),
            "?"
            "?(\xc3\xa9");
  EXPECT_EQ(PrintableText("\xc2\x9b"), "??") << "C1 control CSI";
  EXPECT_EQ(PrintableText("\xed\xa0\x80"), "???") << "surrogate";
  EXPECT_EQ(PrintableText("\xe2\x82"), "??") << "cut short";
  EXPECT_EQ(PrintableText("\x7f"), "?");
}

TEST(FormatTest, Bytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(1536ull << 20), "1.5 GiB");
}

TEST(FormatTest, Span) {
  EXPECT_EQ(FormatSpan(45'000), "45 ms");
  EXPECT_EQ(FormatSpan(12'900'000), "12 s");
  EXPECT_EQ(FormatSpan(185'000'000), "3m05s");
  EXPECT_EQ(FormatSpan(int64_t{4 * 3600 + 12 * 60} * 1'000'000), "4h12m");
  EXPECT_EQ(FormatSpan(int64_t{2 * 86400 + 7 * 3600} * 1'000'000), "2d07h");
  EXPECT_EQ(FormatSpan(-185'000'000), "-3m05s");
  EXPECT_EQ(FormatSpan(std::numeric_limits<int64_t>::min()).front(), '-');
}

}  // namespace
}  // namespace sluice::ctl
