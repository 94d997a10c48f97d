// Proves that columns line up whatever their content is.
#include "tools/ctl/table.h"

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

}  // namespace
}  // namespace sluice::ctl
