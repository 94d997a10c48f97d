// Proves that ids are shown whatever their length.
#include "tools/ctl/message_id_text.h"

#include "gtest/gtest.h"

namespace sluice::ctl {
namespace {

TEST(MessageIdTextTest, IdsAndOthers) {
  EXPECT_EQ(MessageIdText(std::string(16, '\0')), "00000000000000000000000000");
  EXPECT_EQ(MessageIdText(std::string(16, '\xff')), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
  EXPECT_EQ(MessageIdText("\x01\xab"), "01ab");
  EXPECT_EQ(MessageIdText(""), "");
}

}  // namespace
}  // namespace sluice::ctl
