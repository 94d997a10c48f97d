// Proves that header fields are found with their exact ranges, and that addresses are read out of
// them.
#include "services/mail/header_fields.h"

#include <vector>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

TEST(HeaderFields, RangesCoverTheSection) {
  const std::string text =
      "A: 1\r\nB :2\r\n fold\r\n\tmore\r\nnot a field\r\nC:\r\n\r\nBody: no\r\n";
  HeaderFieldReader reader(text);
  std::vector<HeaderField> fields;
  for (HeaderField f; reader.Next(f);) fields.push_back(f);
  ASSERT_EQ(fields.size(), 4u);
  size_t at = 0;
  for (const HeaderField& f : fields) {
    EXPECT_EQ(f.begin, at);
    at = f.end;
  }
  EXPECT_EQ(reader.position(), at);
  EXPECT_EQ(text.substr(at, 6), "\r\nBody");
  EXPECT_EQ(fields[0].name, "A");
  EXPECT_EQ(fields[0].value, " 1");
  EXPECT_EQ(fields[1].name, "B");
  EXPECT_EQ(UnfoldHeaderValue(fields[1].value, 100), "2 fold\tmore");
  EXPECT_EQ(UnfoldHeaderValue(fields[1].value, 3), "2 f");
  EXPECT_EQ(fields[2].name, "");
  EXPECT_EQ(fields[2].value, "not a field");
  EXPECT_EQ(fields[3].name, "C");
  EXPECT_EQ(fields[3].value, "");
}

TEST(HeaderFields, EndsOfText) {
  for (const char* text : {"", "\r\n", "\r\nbody"}) {
    HeaderFieldReader reader(text);
    HeaderField f;
    EXPECT_FALSE(reader.Next(f));
    EXPECT_EQ(reader.position(), 0u);
  }
  HeaderFieldReader reader("A: x");
  HeaderField f;
  ASSERT_TRUE(reader.Next(f));
  EXPECT_EQ(f.end, 4u);
  EXPECT_FALSE(reader.Next(f));
}

TEST(HeaderFields, NamesIgnoreCase) {
  EXPECT_TRUE(HeaderNameEquals("X-Job", "x-jOB"));
  EXPECT_FALSE(HeaderNameEquals("X-Job", "X-Jobs"));
}

TEST(HeaderFields, FirstAddress) {
  struct Case {
    const char* value;
    const char* address;
  };
  const Case kCases[] = {
      {"a@B.test", "a@b.test"},
      {"A <a@b.test>", "a@b.test"},
      {"\"x <y@z> \\\" ,\" <a@b.test>, c@d.test", "a@b.test"},
      {"(c <x@y.test>) a@b.test", ""},
      {"a@b.test (comment, <x@y>)", "a@b.test"},
      {"a@b.test, c@d.test", "a@b.test"},
      {"", ""},
      {"nobody", ""},
      {"A <a@b.test", ""},
      {"\xc3\xa4@b.test", "\xc3\xa4@b.test"},
  };
  for (const Case& c : kCases) EXPECT_EQ(FirstAddress(c.value), c.address) << c.value;
}

}  // namespace
}  // namespace sluice::mail
