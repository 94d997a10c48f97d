// What may stand in a string of a protobuf message.
#include "services/base/utf8.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(Utf8, WhatIsNoCharacterBecomesAQuestionMark) {
  const std::pair<std::string_view, std::string_view> kCases[] = {
      {"", ""},
      {"plain", "plain"},
      {"caf\xc3\xa9", "caf\xc3\xa9"},
      {"caf\xe9", "caf?"},
      {"\xff\xfe", "??"},
      {"\xc0\xaf", "??"},            // overlong
      {"\xe0\x80\xaf", "???"},       // overlong
      {"\xed\xa0\x80", "???"},       // a surrogate
      {"\xf4\x90\x80\x80", "????"},  // beyond Unicode
      {"\xf0\x9f\x93\xa8 x", "\xf0\x9f\x93\xa8 x"},
      {"x\xf0\x9f\x93", "x???"},  // cut
      {"\xe2\x82z", "??z"},
  };
  for (const auto& [text, shown] : kCases) {
    EXPECT_EQ(ToUtf8(text), shown);
    EXPECT_TRUE(IsUtf8(shown));
    EXPECT_EQ(IsUtf8(text), text == shown);
  }
}

}  // namespace
}  // namespace sluice
