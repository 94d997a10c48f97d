// Proves that ids are read back as written, and that what is no id is refused.
#include "tools/ctl/message_id_text.h"

#include "gtest/gtest.h"

namespace sluice::ctl {
namespace {

TEST(MessageIdTextTest, KnownValues) {
  EXPECT_EQ(MessageIdText(std::string(16, '\0')), "00000000000000000000000000");
  EXPECT_EQ(MessageIdText(std::string(16, '\xff')), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
  std::string one(16, '\0');
  one[15] = 33;
  EXPECT_EQ(MessageIdText(one), "00000000000000000000000011");
  EXPECT_EQ(MessageIdText("\x01\xab"), "01ab");
}

TEST(MessageIdTextTest, ReadsBackWhatItWrote) {
  std::string bytes;
  for (int i = 0; i < 16; ++i) bytes.push_back(static_cast<char>(i * 37 + 11));
  const std::string text = MessageIdText(bytes);
  EXPECT_EQ(ParseMessageId(text), bytes);
}

TEST(MessageIdTextTest, ForgivesCaseAndLookalikes) {
  EXPECT_EQ(ParseMessageId("0000000000000000000000oilz"),
            ParseMessageId("0000000000000000000000011Z"));
}

TEST(MessageIdTextTest, RefusesWhatIsNoId) {
  for (const char* text : {"", "0", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "000000000000000000000000000",
                           "0000000000000000000000000U", "0000000000000000000000000-"}) {
    EXPECT_EQ(ParseMessageId(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace sluice::ctl
