// Proves that keys sort as their fields do, and are read as they were made.
#include "services/queue/core/key_codec.h"

#include <gtest/gtest.h>

namespace sluice::queue {
namespace {

TEST(KeyCodec, DeliveryKeysSortAsTheirFields) {
  const DeliveryKey base{7, 3, 1'000'000, 42, 5};
  EXPECT_EQ(DeliveryKey::Decode(base.Encode()), base);
  EXPECT_EQ(base.Encode().size(), DeliveryKey::kBytes);
  for (const DeliveryKey& later :
       {DeliveryKey{8, 0, 0, 0, 0}, DeliveryKey{7, 4, 0, 0, 0}, DeliveryKey{7, 3, 1'000'256, 0, 0},
        DeliveryKey{7, 3, 1'000'000, 43, 0}, DeliveryKey{7, 3, 1'000'000, 42, 6}}) {
    EXPECT_LT(base.Encode(), later.Encode());
  }
  EXPECT_FALSE(DeliveryKey::Decode("short"));
}

// As a damaged disk may give it back.
TEST(KeyCodec, WhatAKeyLacksIsZero) {
  const std::string_view key = std::string_view("\x01\x02\x03\x04\x05\x06\x07\x08\x09");
  EXPECT_EQ(ReadU64(key, 1), 0x0203040506070809U);
  EXPECT_EQ(ReadU64(key, 2), 0x0304050607080900U);
  EXPECT_EQ(ReadU64(key.substr(0, 3), 0), 0x0102030000000000U);
  EXPECT_EQ(ReadU64("", 0), 0U);
  EXPECT_EQ(ReadU64(key, 100), 0U);
  EXPECT_EQ(ReadU32(key, 5), 0x06070809U);
  EXPECT_EQ(ReadU32(key, 7), 0x08090000U);
}

TEST(KeyCodec, PrefixEndIsTheFirstKeyBehind) {
  EXPECT_EQ(PrefixEnd("ab"), "ac");
  EXPECT_EQ(PrefixEnd("a\xff\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff"), "");
}

TEST(KeyCodec, TheDefaultLaneIsZeroAndJobsHaveTheirOwn) {
  EXPECT_EQ(LaneOf("", 0), 0U);
  EXPECT_EQ(LaneOf("", kDefaultPriority), 0U);
  EXPECT_NE(LaneOf("job", 0), 0U);
  EXPECT_NE(LaneOf("job", 0), LaneOf("job2", 0));
  EXPECT_NE(LaneOf("", 90), 0U);
}

}  // namespace
}  // namespace sluice::queue
