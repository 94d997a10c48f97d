// Proves that MTA-STS records and policies are read as RFC 8461 has them.
#include "services/delivery/tls_policy/mta_sts_record.h"

#include <gtest/gtest.h>

namespace sluice::delivery {
namespace {

TEST(MtaStsRecord, TxtStringsAreJoined) {
  EXPECT_EQ(JoinTxt(std::string_view("\x03v=S\x04TSv1", 9)), "v=STSv1");
  EXPECT_EQ(JoinTxt(""), "");
  EXPECT_EQ(JoinTxt(std::string_view("\x09short", 6)), std::nullopt);
}

struct RecordCase {
  std::vector<std::string> records;
  std::optional<std::string> id;
};

// RFC 8461 section 3.1: which sets of TXT records announce a policy.
TEST(MtaStsRecord, FindsTheId) {
  const std::vector<RecordCase> cases = {
      {{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
      {{"v=STSv1;id=a"}, "a"},
      {{"v=STSv1 ; id=a ; ext=b"}, "a"},
      {{"v=STSv1; ext=x; id=a"}, "a"},
      {{"v=STSv1; id=a; id=b"}, "a"},
      {{"v=spf1 -all", "v=STSv1; id=a"}, "a"},
      {{"v=STSv10; id=x", "v=STSv1; id=a"}, "a"},
      {{}, std::nullopt},
      {{"v=STSv1"}, std::nullopt},
      {{"v=STSv1;"}, std::nullopt},
      {{"v=stsv1; id=a"}, std::nullopt},
      {{" v=STSv1; id=a"}, std::nullopt},
      {{"v=STSv1; id="}, std::nullopt},
      {{"v=STSv1; id=a-b"}, std::nullopt},
      {{"v=STSv1; id=a;; x=y"}, std::nullopt},
      {{"v=STSv1; id=123456789012345678901234567890123"}, std::nullopt},
      {{"v=STSv1; id=a; nonsense"}, std::nullopt},
      {{"v=STSv1; id=a", "v=STSv1; id=a"}, std::nullopt},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(FindMtaStsId(each.records), each.id)
        << (each.records.empty() ? "none" : each.records[0]);
  }
}

TEST(MtaStsPolicy, ReadsTheExampleOfTheRfc) {
  const auto policy = ParseMtaStsPolicy(
      "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.Example.net\r\n"
      "mx: backupmx.example.com\r\nmax_age: 604800\r\n");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->mode, MtaStsMode::kEnforce);
  EXPECT_EQ(policy->max_age_s, 604800u);
  EXPECT_EQ(policy->mx, (std::vector<std::string>{"mail.example.com", "*.example.net",
                                                  "backupmx.example.com"}));
}

TEST(MtaStsPolicy, AcceptsWhatTheRfcAllows) {
  // LF alone, blanks, unknown fields, a repeated field (the first counts), a huge age (cut).
  const auto policy = ParseMtaStsPolicy(
      "version:STSv1\nmode:\ttesting \nmode: enforce\nx-new: a:b\n\nmax_age: 9999999999\nmx: a.b");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(policy->mode, MtaStsMode::kTesting);
  EXPECT_EQ(policy->max_age_s, kMaxMtaStsAgeSeconds);
  EXPECT_TRUE(ParseMtaStsPolicy("version: STSv1\nmode: none\nmax_age: 86400\n").ok());
}

TEST(MtaStsPolicy, RefusesWhatIsNone) {
  std::string many = "version: STSv1\nmode: enforce\nmax_age: 1\n";
  for (int i = 0; i < 257; ++i) many += "mx: a.example\n";
  for (const std::string& text : std::vector<std::string>{
           "", "<html>", "version: STSv1\nmode: enforce\nmax_age: 1\n",
           "mode: enforce\nmx: a.b\nmax_age: 1\n", "version: STSv2\nmode: none\nmax_age: 1\n",
           "version: STSv1\nmode: strict\nmx: a.b\nmax_age: 1\n",
           "version: STSv1\nmode: enforce\nmx: a.b\n",
           "version: STSv1\nmode: enforce\nmx: a.b\nmax_age: -1\n",
           "version: STSv1\nmode: enforce\nmx: a.b\nmax_age: 10000000000\n",
           "version: STSv1\nmode: enforce\nmx: a.b\nmax_age: 1d\n",
           "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1\n",
           "version: STSv1\nmode: enforce\nmx: a.*.b\nmax_age: 1\n",
           "version: STSv1\nmode: enforce\nmx: a..b\nmax_age: 1\n",
           "version: STSv1\nmode: enforce\nmx: \nmax_age: 1\n", many,
           std::string(kMaxMtaStsPolicyBytes + 1, '\n')}) {
    EXPECT_FALSE(ParseMtaStsPolicy(text).ok()) << text.substr(0, 100);
  }
}

TEST(MtaStsPolicy, AWildcardIsOneLabel) {
  MtaStsPolicy policy;
  policy.mx = {"*.example.net", "mail.example.com"};
  EXPECT_TRUE(MtaStsAllows(policy, "mail.example.com"));
  EXPECT_TRUE(MtaStsAllows(policy, "MAIL.example.com."));
  EXPECT_TRUE(MtaStsAllows(policy, "mx1.example.net"));
  EXPECT_FALSE(MtaStsAllows(policy, "a.mx1.example.net"));
  EXPECT_FALSE(MtaStsAllows(policy, "example.net"));
  EXPECT_FALSE(MtaStsAllows(policy, ".example.net"));
  EXPECT_FALSE(MtaStsAllows(policy, "mx1.example.net.evil.example"));
  EXPECT_FALSE(MtaStsAllows(policy, "notmail.example.com"));
  EXPECT_FALSE(MtaStsAllows(policy, ""));
}

}  // namespace
}  // namespace sluice::delivery
