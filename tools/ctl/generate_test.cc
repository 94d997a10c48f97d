// Proves that messages made up have the size asked for, whole lines, and a header section.
#include "tools/ctl/generate.h"

#include "gtest/gtest.h"

namespace sluice::ctl {
namespace {

TEST(FillInTest, NumbersAndPercentSigns) {
  EXPECT_EQ(FillIn("u%n@d%n.test", 7), "u7@d7.test");
  EXPECT_EQ(FillIn("100%%n", 7), "100%n");
  EXPECT_EQ(FillIn("a%b%", 7), "a%b%");
  EXPECT_EQ(FillIn("", 7), "");
}

TEST(GenerateMessageTest, EverySizeIsExactAndEndsInALine) {
  const size_t headers = GenerateMessage("a@x", "b@y", 1, 1'000'000, 0).size();
  for (size_t size = headers + 2; size < headers + 400; ++size) {
    const std::string text = GenerateMessage("a@x", "b@y", 1, 1'000'000, size);
    ASSERT_EQ(text.size(), size);
    ASSERT_TRUE(text.ends_with("\r\n"));
    ASSERT_NE(text.find("\r\n\r\n"), std::string::npos);
  }
}

TEST(GenerateMessageTest, SmallerThanItsHeaders) {
  const std::string text = GenerateMessage("a@x", "b@y", 3, 1'000'000, 10);
  EXPECT_TRUE(text.starts_with("From: <a@x>\r\nTo: <b@y>\r\nSubject: Test message 3\r\n"));
  EXPECT_TRUE(text.ends_with("\r\n\r\n"));
}

}  // namespace
}  // namespace sluice::ctl
