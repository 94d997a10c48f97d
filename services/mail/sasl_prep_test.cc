// Proves SASLprep by the examples of RFC 4013 section 3, and that what it refuses is refused whole.
#include "services/mail/sasl_prep.h"

#include <gtest/gtest.h>

#include <string>

namespace sluice::mail {
namespace {

using std::string_literals::operator""s;

struct Case {
  std::string text;
  std::optional<std::string> prepared;
};

TEST(SaslPrep, ExamplesOfTheRfc) {
  const Case cases[] = {
      {"I\xC2\xADX", "IX"},            // a soft hyphen is mapped to nothing
      {"user", "user"},                // no change
      {"USER", "USER"},                // case is kept
      {"\xC2\xAA", "a"},               // NFKC
      {"\xE2\x85\xA8", "IX"},          // NFKC
      {"\x07", std::nullopt},          // a control character
      {"\xD8\xA7\x31", std::nullopt},  // right to left, ending in a digit
  };
  for (const Case& each : cases) {
    EXPECT_EQ(SaslPrep(each.text), each.prepared) << each.text;
  }
}

TEST(SaslPrep, OneFormOfWhatLooksAlike) {
  // "Zo" and e with diaeresis, composed and not; a no-break space is a space.
  EXPECT_EQ(SaslPrep("Zo\xC3\xAB"), "Zo\xC3\xAB");
  EXPECT_EQ(SaslPrep("Zoe\xCC\x88"), "Zo\xC3\xAB");
  EXPECT_EQ(SaslPrep("a\xC2\xA0z"), "a z");
}

TEST(SaslPrep, WhatIsNoTextIsRefused) {
  for (const std::string& text : {""s, "\0"s, "a\0b"s, "a\x7F"s, "caf\xE9"s, "\xED\xA0\x80"s,
                                  "\xC2\xAD"s, "a\xEF\xBF\xBD"s, "\xEE\x80\x80"s}) {
    EXPECT_EQ(SaslPrep(text), std::nullopt) << text;
  }
}

TEST(SaslPrep, CharactersThatCameLaterStay) {
  EXPECT_EQ(SaslPrep("\xC8\xA1"), "\xC8\xA1");  // U+0221, unassigned in Unicode 3.2
  EXPECT_EQ(SaslPrep("\xF0\x9F\x98\x80"), "\xF0\x9F\x98\x80");
}

}  // namespace
}  // namespace sluice::mail
