// Proves that message ids keep their bytes through text, sort as their bytes, and never repeat.
#include "services/mail/message_id.h"

#include <set>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

std::string Bytes(std::initializer_list<int> values) {
  std::string s;
  for (int v : values) s.push_back(static_cast<char>(v));
  return s;
}

TEST(MessageId, TextOfKnownValues) {
  EXPECT_EQ(FormatMessageId(std::string(16, '\0')), "00000000000000000000000000");
  EXPECT_EQ(FormatMessageId(std::string(16, '\xff')), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
  EXPECT_EQ(FormatMessageId(Bytes({0x01, 0x56, 0x3e, 0x3a, 0xb5, 0xd3, 0xd6, 0x76, 0x4c, 0x61, 0xef,
                                   0xb9, 0x93, 0x02, 0xbd, 0x5b})),
            "01ARZ3NDEKTSV4RRFFQ69G5FAV");
}

TEST(MessageId, RoundTripAndLenientDigits) {
  MessageIdGenerator generator(0x123456789abc);
  const std::string id = generator.Next(FromUnixMicros(1'700'000'000'000'000));
  const std::string text = FormatMessageId(id);
  EXPECT_EQ(ParseMessageId(text), id);
  EXPECT_EQ(ParseMessageId("o1arz3ndektsv4rrffq69g5fav"),
            ParseMessageId("01ARZ3NDEKTSV4RRFFQ69G5FAV"));
}

TEST(MessageId, RefusesWhatIsNoId) {
  for (const char* text :
       {"", "0", "0000000000000000000000000", "000000000000000000000000000",
        "80000000000000000000000000", "0000000000000000000000000U", "0000000000000 00000000000A"}) {
    EXPECT_EQ(ParseMessageId(text), std::nullopt) << text;
  }
}

TEST(MessageId, GrowsAndNeverRepeatsWhenTheClockStepsBack) {
  MessageIdGenerator generator(7);
  std::set<std::string> seen;
  std::string previous;
  int64_t now_us = 1'700'000'000'000'000;
  for (int i = 0; i < 10'000; ++i) {
    now_us += (i % 100 == 0) ? -5'000'000 : 700;
    const std::string id = generator.Next(FromUnixMicros(now_us));
    ASSERT_EQ(id.size(), kMessageIdBytes);
    EXPECT_TRUE(seen.insert(id).second);
    EXPECT_LT(previous, id);
    previous = id;
  }
}

}  // namespace
}  // namespace sluice::mail
