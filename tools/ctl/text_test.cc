// Proves that text from the network cannot drive the terminal, and that spans are read and written
// as people mean them.
#include "tools/ctl/text.h"

#include <limits>

#include "gtest/gtest.h"

namespace sluice::ctl {
namespace {

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

TEST(FormatTest, Time) {
  EXPECT_EQ(FormatTime(0), "-");
  EXPECT_EQ(FormatTime(int64_t{1'795'235'638} * 1'000'000 + 999'999), "2026-11-21 04:33:58");
}

TEST(ParseSpanTest, Accepts) {
  EXPECT_EQ(ParseSpanUs("90s"), 90'000'000);
  EXPECT_EQ(ParseSpanUs("90"), 90'000'000);
  EXPECT_EQ(ParseSpanUs("250ms"), 250'000);
  EXPECT_EQ(ParseSpanUs("4d12h"), int64_t{108} * 3'600'000'000);
  EXPECT_EQ(ParseSpanUs(" 1h 30m "), int64_t{5'400'000'000});
  EXPECT_EQ(ParseSpanUs("0s"), 0);
}

TEST(ParseSpanTest, Refuses) {
  for (const char* text : {"", " ", "h", "-1s", "1x", "1h30", "1 2", "99999999999999999999s",
                           "9223372036854775807d", "1.5h"}) {
    EXPECT_EQ(ParseSpanUs(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace sluice::ctl
