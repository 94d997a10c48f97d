// Proves that a mailed report is what RFC 8460 wants.
#include "services/delivery/tls_policy/tls_report_mail.h"

#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "services/delivery/tls_policy/gunzip.h"

namespace sluice::delivery {
namespace {

TlsReport Report() {
  TlsReport report;
  report.domain = "wants.example";
  report.uris = {"mailto:tls@wants.example", "https://wants.example/tls",
                 "mailto:second%2Breports@other.example?subject=x"};
  report.head = {"out.example",
                 "postmaster@out.example",
                 "w-1",
                 "1459468800.w-1.wants.example@out.example",
                 FromUnixMicros(1'459'468'800'000'000),
                 FromUnixMicros(1'459'555'199'000'000)};
  for (int i = 0; i < 2000; ++i) report.json += std::to_string(i * i) + ",";
  return report;
}

// RFC 8460 section 5.3 and its example.
TEST(TlsReportMail, IsWhatTheRfcWants) {
  const TlsReport report = Report();
  const auto mail = MakeTlsReportMail(report, FromUnixMicros(1'459'555'300'000'000));
  ASSERT_TRUE(mail.has_value());
  EXPECT_EQ(mail->domain, "wants.example");
  EXPECT_EQ(mail->recipients,
            (std::vector<std::string>{"tls@wants.example", "second+reports@other.example"}));
  const std::string& text = mail->content;
  for (const char* line :
       {"From: <postmaster@out.example>\r\n",
        "To: <tls@wants.example>,\r\n\t<second+reports@other.example>\r\n",
        "Date: Sat, 02 Apr 2016 00:01:40 +0000\r\n",
        "Subject: Report Domain: wants.example\r\n\tSubmitter: out.example\r\n\tReport-ID: "
        "<1459468800.w-1.wants.example@out.example>\r\n",
        "Message-ID: <tlsrpt.1459468800.w-1.wants.example@out.example>\r\n", "TLS-Required: No\r\n",
        "TLS-Report-Domain: wants.example\r\n", "TLS-Report-Submitter: out.example\r\n",
        "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n",
        "Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n",
        "\tfilename=\"out.example!wants.example!1459468800!1459555199!w-1.json.gz\"\r\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
  // The parts, by the boundary that the header names.
  const size_t named = text.find("boundary=\"") + 10;
  const std::string boundary = "--" + text.substr(named, text.find('"', named) - named);
  const size_t second = text.find("\r\n" + boundary, text.find("\r\n" + boundary) + 1);
  const size_t body = text.find("\r\n\r\n", second) + 4;
  const size_t end = text.find("\r\n" + boundary + "--\r\n", body);
  ASSERT_NE(end, std::string::npos);
  std::string base64;
  size_t line_bytes = 0;
  for (const char c : text.substr(body, end - body)) {
    if (c == '\r' || c == '\n') {
      line_bytes = 0;
      continue;
    }
    EXPECT_LE(++line_bytes, 76u);
    base64.push_back(c);
  }
  std::string gzip;
  ASSERT_TRUE(absl::Base64Unescape(base64, &gzip));
  EXPECT_EQ(testing::Gunzip(gzip), report.json);
}

TEST(TlsReportMail, OnlyForThoseWhoWantMail) {
  TlsReport report = Report();
  report.uris = {"https://wants.example/tls"};
  EXPECT_FALSE(MakeTlsReportMail(report, {}).has_value());
  report.uris = {"mailto:", "mailto:nobody"};
  EXPECT_FALSE(MakeTlsReportMail(report, {}).has_value());
}

TEST(TlsReportMail, MailtoAddresses) {
  EXPECT_EQ(MailtoAddress("mailto:a@b.example"), "a@b.example");
  EXPECT_EQ(MailtoAddress("mailto:a%40c@b.example"), std::nullopt);
  EXPECT_EQ(MailtoAddress("mailto:%22a%40c%22@b.example"), "\"a@c\"@b.example");
  for (const char* none :
       {"https://b.example", "mailto:", "mailto:a", "mailto:a@b.example%0d%0aBcc:%20c@d.example",
        "mailto:a%4", "mailto:a%zz@b.example", "mailto:a@b.example,c@d.example",
        "mailto:a@b.example%3e", "mailto:\xc3\xa4@b.example", "mailto:a@"}) {
    EXPECT_EQ(MailtoAddress(none), std::nullopt) << none;
  }
}

}  // namespace
}  // namespace sluice::delivery
