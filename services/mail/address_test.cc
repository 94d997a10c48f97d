// Proves the grammar of mailboxes and paths (RFC 5321 4.1.2, RFC 6531 3.3), and xtext.
#include "services/mail/address.h"

#include <string>

#include "gtest/gtest.h"
#include "services/mail/xtext.h"

namespace sluice::mail {
namespace {

using enum AddressError;

AddressError Parse(std::string_view text, bool utf8 = false,
                   DomainRule rule = DomainRule::kRequired) {
  MailboxView out;
  return ParseMailbox(text, utf8, rule, out);
}

TEST(Address, Mailboxes) {
  struct Case {
    std::string text;
    AddressError error;
  };
  const Case kCases[] = {
      {"a@b", kNone},
      {"first.last+tag@sub.example.org", kNone},
      {"!#$%&'*+-/=?^_`{|}~@b.test", kNone},
      {"\"\"@b.test", kNone},
      {"\"a b@c\"@b.test", kNone},
      {"\"a\\\"b\\\\\"@b.test", kNone},
      {"a@[127.0.0.1]", kNone},
      {"a@[IPv6:2001:db8::1]", kNone},
      {"a@[ipv6:::ffff:1.2.3.4]", kNone},
      {"a@[x-tag:anything]", kNone},
      {"a@1.2.3.4", kNone},
      {"", kSyntax},
      {"a", kSyntax},
      {"@b.test", kSyntax},
      {"a@", kSyntax},
      {"a@b@c", kSyntax},
      {".a@b.test", kSyntax},
      {"a.@b.test", kSyntax},
      {"a..b@b.test", kSyntax},
      {"a b@b.test", kSyntax},
      {"a@b..test", kSyntax},
      {"a@b.test.", kSyntax},
      {"a@-b.test", kSyntax},
      {"a@b-.test", kSyntax},
      {"a@b_c.test", kSyntax},
      {"a@b test", kSyntax},
      {"a(c)@b.test", kSyntax},
      {"\"a@b.test", kSyntax},
      {"\"a\"b@b.test", kSyntax},
      {"\"a\\\"@b.test", kSyntax},
      {std::string("a\0b@c.test", 10), kSyntax},
      {"a\r\nb@c.test", kSyntax},
      {"\"a\nb\"@c.test", kSyntax},
      {"a@[127.0.0.256]", kSyntax},
      {"a@[127.0.0.1", kSyntax},
      {"a@[IPv6:xyz]", kSyntax},
      {"a@[tag:a]b]", kSyntax},
      {"a@[tag:a>b]", kSyntax},
      {"a@[tag:;b]", kSyntax},
      {"a@[tag:(b]", kSyntax},
      {"a@[]", kSyntax},
      {std::string(64, 'x') + "@b.test", kNone},
      {std::string(65, 'x') + "@b.test", kLocalPartTooLong},
      {"a@" + std::string(63, 'x') + ".test", kNone},
      {"a@" + std::string(64, 'x') + ".test", kSyntax},
      {"a@" + std::string(256, 'x'), kDomainTooLong},
      {"\xc3\xa4@b.test", kNeedsSmtpUtf8},
      {"a@\xc3\xa4.test", kNeedsSmtpUtf8},
      {"\xc3@b.test", kSyntax},
  };
  for (const Case& c : kCases) EXPECT_EQ(Parse(c.text), c.error) << c.text;
}

TEST(Address, Utf8WhereAllowed) {
  EXPECT_EQ(Parse("\xc3\xa4@\xe4\xb8\xad.test", true), kNone);
  EXPECT_EQ(Parse("\"\xc3\xa4 x\"@b.test", true), kNone);
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
                          "\xe4\xb8", "\x80", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf"}) {
    EXPECT_EQ(Parse(std::string(bad) + "@b.test", true), kSyntax);
    EXPECT_FALSE(IsValidUtf8(bad));
  }
}

TEST(Address, CanonicalLowersTheDomainOnly) {
  MailboxView out;
  ASSERT_EQ(ParseMailbox("\"A b\"@EXAMPLE.Org", false, DomainRule::kRequired, out), kNone);
  EXPECT_EQ(out.local_part, "\"A b\"");
  EXPECT_EQ(out.domain, "EXAMPLE.Org");
  EXPECT_EQ(out.Canonical(), "\"A b\"@example.org");
  ASSERT_EQ(ParseMailbox("Postmaster", false, DomainRule::kOptional, out), kNone);
  EXPECT_EQ(out.Canonical(), "Postmaster");
}

TEST(Address, Paths) {
  struct Case {
    const char* text;
    AddressError error;
    const char* mailbox;
    const char* rest;
  };
  const Case kCases[] = {
      {"<>", kNone, "", ""},
      {"<> SIZE=1", kNone, "", " SIZE=1"},
      {"<a@b.test>", kNone, "a@b.test", ""},
      {"<\"x>y\"@b.test> Z", kNone, "\"x>y\"@b.test", " Z"},
      {"<@a.test:c@d.test>", kNone, "c@d.test", ""},
      {"<@a.test,@b.test:c@d.test>", kNone, "c@d.test", ""},
      {"<@a.test,b.test:c@d.test>", kSyntax, "", ""},
      {"<@a.test,:c@d.test>", kSyntax, "", ""},
      {"<@:c@d.test>", kSyntax, "", ""},
      {"<@a.test c@d.test>", kSyntax, "", ""},
      {"<@a.test:>", kSyntax, "", ""},
      {"<", kSyntax, "", ""},
      {"<a@b.test", kSyntax, "", ""},
      {"a@b.test>", kSyntax, "", ""},
      {"<<a@b.test>>", kSyntax, "", ""},
  };
  for (const Case& c : kCases) {
    std::string_view text = c.text;
    MailboxView out;
    ASSERT_EQ(ConsumePath(text, false, DomainRule::kRequired, out), c.error) << c.text;
    if (c.error != kNone) continue;
    EXPECT_EQ(out.Canonical(), c.mailbox) << c.text;
    EXPECT_EQ(text, c.rest) << c.text;
  }
}

TEST(Address, PathIsBounded) {
  const std::string domain =
      std::string(63, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + ".d";
  ASSERT_EQ(domain.size(), 193u);
  for (const auto& [local, error] : {std::pair{60, kNone}, std::pair{61, kDomainTooLong}}) {
    const std::string path = "<" + std::string(local, 'x') + "@" + domain + ">";
    std::string_view text = path;
    MailboxView out;
    EXPECT_EQ(ConsumePath(text, false, DomainRule::kRequired, out), error) << path.size();
  }
}

TEST(Xtext, RoundTripsEveryByte) {
  std::string all;
  for (int i = 0; i < 256; ++i) all.push_back(static_cast<char>(i));
  EXPECT_EQ(DecodeXtext(EncodeXtext(all)), all);
  EXPECT_EQ(EncodeXtext("a+b=c d"), "a+2Bb+3Dc+20d");
}

TEST(Xtext, RefusesWhatIsNotXtext) {
  for (const char* text : {"+", "+2", "+2b", "+GG", "a b", "a=b", "\x7f", "\xc3\xa4"}) {
    EXPECT_EQ(DecodeXtext(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace sluice::mail
