// Proves that reports say what happened (RFC 3464), and that no byte from outside breaks them.
#include "services/mail/dsn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace sluice::mail {
namespace {

constexpr std::string_view kOriginal = "From: a@from.example\r\nSubject: hello\r\n\r\nthe text\r\n";

DsnInput Failure() {
  DsnInput in;
  in.reporting_mta = "mx.sluice.example";
  in.sender = "a@from.example";
  in.recipient = "b@to.example";
  in.original_recipient = "rfc822;B@to.example";
  in.original_envid = "QQ314159";
  in.status = "5.1.1";
  in.diagnostic = "550 5.1.1 no such user";
  in.diagnostic_code = 550;
  in.remote_mta = "mx.to.example";
  in.arrived_unix_us = 1'700'000'000'000'000;
  in.last_attempt_unix_us = 1'700'000'060'000'000;
  in.now_unix_us = 1'700'000'061'000'000;
  in.message_id = "01HF5";
  in.original = kOriginal;
  return in;
}

TEST(Dsn, AFailureIsAMultipartReportWithTheHeadersOfTheOriginal) {
  EXPECT_EQ(BuildDsn(Failure()),
            "From: Mail Delivery System <postmaster@mx.sluice.example>\r\n"
            "To: <a@from.example>\r\n"
            "Subject: Undelivered mail returned to sender\r\n"
            "Date: Tue, 14 Nov 2023 22:14:21 +0000\r\n"
            "Message-ID: <01HF5@mx.sluice.example>\r\n"
            "Auto-Submitted: auto-replied\r\n"
            "MIME-Version: 1.0\r\n"
            "Content-Type: multipart/report; report-type=delivery-status;\r\n"
            "\tboundary=\"=_sluice_01HF5\"\r\n"
            "\r\n"
            "--=_sluice_01HF5\r\n"
            "Content-Type: text/plain; charset=us-ascii\r\n"
            "\r\n"
            "This is the mail system at mx.sluice.example.\r\n"
            "\r\n"
            "Your message could not be delivered to this recipient:\r\n"
            "\r\n"
            "    <b@to.example>\r\n"
            "    550 5.1.1 no such user\r\n"
            "\r\n"
            "--=_sluice_01HF5\r\n"
            "Content-Type: message/delivery-status\r\n"
            "\r\n"
            "Reporting-MTA: dns; mx.sluice.example\r\n"
            "Original-Envelope-Id: QQ314159\r\n"
            "Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
            "\r\n"
            "Original-Recipient: rfc822;B@to.example\r\n"
            "Final-Recipient: rfc822; b@to.example\r\n"
            "Action: failed\r\n"
            "Status: 5.1.1\r\n"
            "Remote-MTA: dns; mx.to.example\r\n"
            "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"
            "Last-Attempt-Date: Tue, 14 Nov 2023 22:14:20 +0000\r\n"
            "\r\n"
            "--=_sluice_01HF5\r\n"
            "Content-Type: text/rfc822-headers\r\n"
            "\r\n"
            "From: a@from.example\r\nSubject: hello\r\n"
            "\r\n"
            "--=_sluice_01HF5--\r\n");
}

TEST(Dsn, RetFullIncludesTheTextAsItWas) {
  DsnInput in = Failure();
  in.full = true;
  const std::string dsn = BuildDsn(in);
  EXPECT_NE(dsn.find("Content-Type: message/rfc822\r\n\r\n" + std::string(kOriginal)),
            std::string::npos);
}

TEST(Dsn, TheOtherKindsSayWhatHappened) {
  DsnInput in = Failure();
  in.kind = DsnKind::kDelayed;
  in.retry_until_unix_us = 1'700'432'000'000'000;
  in.status = "4.4.1";
  const std::string delayed = BuildDsn(in);
  EXPECT_NE(delayed.find("Subject: Delayed mail (still trying)\r\n"), std::string::npos);
  EXPECT_NE(delayed.find("Action: delayed\r\nStatus: 4.4.1\r\n"), std::string::npos);
  EXPECT_NE(delayed.find("Will-Retry-Until: Sun, 19 Nov 2023 22:13:20 +0000\r\n"),
            std::string::npos);
  in.kind = DsnKind::kDelivered;
  const std::string delivered = BuildDsn(in);
  EXPECT_NE(delivered.find("Action: delivered\r\n"), std::string::npos);
  EXPECT_EQ(delivered.find("Will-Retry-Until"), std::string::npos);
}

TEST(Dsn, EightBitTextIsDeclaredByThePartAndByTheWhole) {
  DsnInput in = Failure();
  in.original = "Subject: gr\xc3\xbc\xc3\x9f\x65\r\n\r\ntext\r\n";
  const std::string dsn = BuildDsn(in);
  const size_t whole = dsn.find("Content-Transfer-Encoding: 8bit\r\n");
  ASSERT_NE(whole, std::string::npos);
  EXPECT_LT(whole, dsn.find("\r\n\r\n"));
  EXPECT_NE(dsn.find("Content-Transfer-Encoding: 8bit\r\n", whole + 1), std::string::npos);
  EXPECT_NE(dsn.find("Subject: gr\xc3\xbc\xc3\x9f\x65\r\n"), std::string::npos);
}

// What the remote says must not become a header or a part of ours.
TEST(Dsn, HostileWordsStayInTheirField) {
  DsnInput in = Failure();
  in.diagnostic = "550 no\r\n\r\n--=_sluice_01HF5\r\nX-Injected: 1\xff\x01";
  in.recipient = "b\r\nBcc: c@d";
  in.sender = "a\nBcc: e@f";
  const std::string dsn = BuildDsn(in);
  EXPECT_EQ(dsn.find("\r\nX-Injected"), std::string::npos);
  EXPECT_EQ(dsn.find("\nBcc"), std::string::npos);
  size_t boundaries = 0;
  for (size_t at = 0; (at = dsn.find("\r\n--=_sluice_01HF5", at)) != std::string::npos; ++at) {
    ++boundaries;
  }
  EXPECT_EQ(boundaries, 4U);
}

// The same text in every field: no line more or less, and printable ASCII throughout.
TEST(Dsn, NoByteFromOutsideBreaksAnyField) {
  std::string bytes;
  for (int c = 0; c < 256; ++c) bytes.push_back(static_cast<char>(c));
  const std::string evil[] = {
      "x\r\nBcc: <v@z>\r\n\r\nbody", "x\nBcc: v", "x\rBcc: v",
      "\r\n--=_sluice_01HF5--\r\n",  bytes,       std::string(100'000, '\n'),
      std::string(100'000, '\xff')};
  const auto lines = [](std::string_view text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  for (const DsnKind kind :
       {DsnKind::kFailed, DsnKind::kDelayed, DsnKind::kDelivered, DsnKind::kRelayed}) {
    for (const std::string& each : evil) {
      SCOPED_TRACE(each.substr(0, 40));
      DsnInput in = Failure();
      in.kind = kind;
      const auto usual = lines(BuildDsn(in));
      in.reporting_mta = in.postmaster = in.sender = in.recipient = in.original_recipient = each;
      in.original_envid = in.status = in.diagnostic = in.remote_mta = each;
      const std::string dsn = BuildDsn(in);
      EXPECT_EQ(lines(dsn), usual);
      EXPECT_LT(dsn.size(), kOriginal.size() + 16 * 1024);
      for (size_t begin = 0; begin < dsn.size();) {
        const size_t end = dsn.find("\r\n", begin);
        ASSERT_NE(end, std::string::npos);
        const std::string line = dsn.substr(begin, end - begin);
        EXPECT_FALSE(line.starts_with("Bcc:"));
        for (char c : line) ASSERT_TRUE((c >= 32 && c < 127) || c == '\t') << line;
        begin = end + 2;
      }
    }
  }
}

TEST(Dsn, PlainTextIsOnePartThatSaysTheSame) {
  DsnInput in = Failure();
  in.plain_text = true;
  EXPECT_EQ(BuildDsn(in),
            "From: Mail Delivery System <postmaster@mx.sluice.example>\r\n"
            "To: <a@from.example>\r\n"
            "Subject: Undelivered mail returned to sender\r\n"
            "Date: Tue, 14 Nov 2023 22:14:21 +0000\r\n"
            "Message-ID: <01HF5@mx.sluice.example>\r\n"
            "Auto-Submitted: auto-replied\r\n"
            "MIME-Version: 1.0\r\n"
            "Content-Type: text/plain; charset=us-ascii\r\n"
            "\r\n"
            "This is the mail system at mx.sluice.example.\r\n"
            "\r\n"
            "Your message could not be delivered to this recipient:\r\n"
            "\r\n"
            "    <b@to.example>\r\n"
            "    550 5.1.1 no such user\r\n"
            "\r\n"
            "Action: failed\r\n"
            "Status: 5.1.1\r\n"
            "\r\n"
            "----- The header of your message -----\r\n"
            "\r\n"
            "From: a@from.example\r\nSubject: hello\r\n");
}

TEST(Dsn, OperatorsWordsTakeThePlaceOfOurs) {
  DsnInput in = Failure();
  in.from = "Bounces of ${host} <bounce@from.example>";
  in.subject = "${subject} did not reach ${recipient}";
  in.text = "Gr\xc3\xbc\xc3\x9f\x65,\n${remote} said ${diagnostic} (${status}).\n";
  const std::string dsn = BuildDsn(in);
  EXPECT_TRUE(dsn.starts_with("From: Bounces of mx.sluice.example <bounce@from.example>\r\n"));
  EXPECT_NE(dsn.find("\r\nSubject: hello did not reach b@to.example\r\n"), std::string::npos);
  EXPECT_NE(dsn.find("Content-Type: text/plain; charset=utf-8\r\n"
                     "Content-Transfer-Encoding: 8bit\r\n\r\n"
                     "Gr\xc3\xbc\xc3\x9f\x65,\r\n"
                     "mx.to.example said 550 5.1.1 no such user (5.1.1).\r\n"),
            std::string::npos);
  EXPECT_NE(dsn.find("Final-Recipient: rfc822; b@to.example\r\n"), std::string::npos);
  EXPECT_EQ(dsn.find("This is the mail system"), std::string::npos);
}

// A template cannot grow without bounds, nor what stands in it break out of its place.
TEST(Dsn, OperatorsWordsAreBoundedAndTheirVariablesCleaned) {
  DsnInput in = Failure();
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "${diagnostic}";
  in.diagnostic = "no\r\nX-Injected: 1";
  in.from = in.subject = in.text = text;
  const std::string dsn = BuildDsn(in);
  EXPECT_LT(dsn.size(), kOriginal.size() + kMaxDsnTextBytes + 16 * 1024);
  EXPECT_EQ(dsn.find("\nX-Injected"), std::string::npos);
  for (size_t begin = 0; begin < dsn.size();) {
    const size_t end = dsn.find("\r\n", begin);
    ASSERT_NE(end, std::string::npos);
    EXPECT_LE(end - begin, 998U);
    begin = end + 2;
  }
}

TEST(Dsn, ItIsBoundedAndItsLinesAreToo) {
  const std::string huge(100'000, 'x');
  DsnInput in = Failure();
  in.sender = in.recipient = in.original_recipient = in.original_envid = in.status = huge;
  in.diagnostic = in.remote_mta = in.reporting_mta = huge;
  const std::string dsn = BuildDsn(in);
  EXPECT_LT(dsn.size(), kOriginal.size() + 16 * 1024);
  for (size_t begin = 0; begin < dsn.size();) {
    const size_t end = dsn.find("\r\n", begin);
    ASSERT_NE(end, std::string::npos);
    EXPECT_LE(end - begin, 998U) << dsn.substr(begin, 60);
    begin = end + 2;
  }
}

TEST(Dsn, TheHeaderSectionEndsAtTheEmptyLineOrTheLimit) {
  EXPECT_EQ(HeaderSection(kOriginal, 1000), "From: a@from.example\r\nSubject: hello\r\n");
  EXPECT_EQ(HeaderSection(kOriginal, 25), "From: a@from.example\r\n");
  EXPECT_EQ(HeaderSection("no line end", 1000), "no line end");
  EXPECT_EQ(HeaderSection("\r\nonly text\r\n", 1000), "");
  EXPECT_EQ(HeaderSection("", 1000), "");
}

// RFC 6533: programs and people can tell who it was.
TEST(Dsn, AddressesBeyondAscii) {
  DsnInput in = Failure();
  in.sender = "a@b\u00fccher.example";
  in.recipient = "u@b\u00fccher.example";
  in.original_recipient = "utf-8;\u00fc+\\@b\u00fccher.example";
  std::string dsn = BuildDsn(in);
  const auto has = [&](const std::string& text) { return dsn.find(text) != std::string::npos; };
  EXPECT_TRUE(has("\r\nTo: <a@xn--bcher-kva.example>\r\n"));
  EXPECT_TRUE(has("\r\nFinal-Recipient: rfc822; u@xn--bcher-kva.example\r\n"));
  EXPECT_TRUE(has("\r\nOriginal-Recipient: utf-8; \\x{FC}\\x{2B}\\x{5C}@b\\x{FC}cher.example\r\n"));
  EXPECT_TRUE(
      has("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"));
  EXPECT_TRUE(has("\r\n    <u@b\u00fccher.example>\r\n"));

  in.sender = "\u00e4@b\u00fccher.example";
  in.recipient = "\u4f60@to.example";
  in.original_recipient = "";
  dsn = BuildDsn(in);
  EXPECT_TRUE(has("\r\nTo: <\u00e4@b\u00fccher.example>\r\n"));
  EXPECT_TRUE(has("\r\nFinal-Recipient: utf-8; \\x{4F60}@to.example\r\n"));
  // What is no UTF-8, or a control character, comes out as neither.
  in.recipient = "\xff\xc2\x85\x01\r\n@to.example";
  dsn = BuildDsn(in);
  EXPECT_TRUE(has("\r\nFinal-Recipient: utf-8; ?\\x{85}???@to.example\r\n")) << dsn;
}

}  // namespace
}  // namespace sluice::mail
