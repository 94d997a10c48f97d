// Proves that a log of a session shows what was said, and nothing that AUTH said.
#include <gtest/gtest.h>

#include <string>

#include "services/mail/testing/smtp_server_side.h"

namespace sluice::mail {
namespace {

struct Traced : SmtpServerSide {
  explicit Traced(bool trace = true) {
    options.host_name = "mx.test";
    options.trace = trace;
    handler.mechanisms = "PLAIN LOGIN";
    session.Start(now);
    Say("HELO c.test\r\n");
    handler.trace.clear();
  }
};

TEST(SmtpServerTrace, ShowsCommandsAndReplies) {
  Traced server;
  server.Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nSubject: secret\r\n\r\n.\r\n");
  server.Say("EHLO c.test\r\n");
  EXPECT_EQ(server.handler.trace,
            "C: MAIL FROM:<a@b.test>\nS: 250 2.1.0 OK\nC: RCPT TO:<c@d.test>\nS: 250 2.1.5 OK\n"
            "C: DATA\nS: 354 go\nS: 250 2.0.0 queued\nC: EHLO c.test\n"
            "S: 250-mx.test\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250-SIZE 0\r\n"
            "250-8BITMIME\r\n250-AUTH PLAIN LOGIN\r\n250 HELP\n");
}

TEST(SmtpServerTrace, IsSilentWhereNobodyAsked) {
  Traced server(false);
  server.Say("MAIL FROM:<a@b.test>\r\nAUTH PLAIN c2VjcmV0\r\n");
  EXPECT_EQ(server.handler.trace, "");
}

TEST(SmtpServerTrace, HidesWhatAuthSays) {
  for (const size_t step : {size_t{1}, size_t{7}, SIZE_MAX}) {
    Traced server;
    int asked = 0;
    server.handler.auth = [&](std::string_view, std::optional<std::string_view> initial) {
      ++asked;
      return std::optional(initial ? ServerReply{535, {5, 7, 8}, "No"}
                                   : ServerReply{334, {}, "c2VjcmV0"});
    };
    server.Say(
        "AUTH PLAIN c2VjcmV0\r\nauth plain\r\nc2VjcmV0\r\n"
        // What a client sends that did not hear the refusal.
        "AUTH\r\nc2VjcmV0\r\n",
        step);
    EXPECT_EQ(asked, 2);
    const std::string& trace = server.handler.trace;
    EXPECT_NE(trace.find("C: AUTH PLAIN (response hidden)\nS: 535 5.7.8 No\n"), std::string::npos);
    EXPECT_NE(trace.find("C: AUTH plain\nS: 334 (challenge hidden)\nC: (response hidden)\n"),
              std::string::npos)
        << trace;
    EXPECT_NE(trace.find("C: (unknown command of 8 bytes hidden)\nS: 500 "), std::string::npos);
    EXPECT_EQ(trace.find("c2Vj"), std::string::npos) << trace;
    EXPECT_EQ(trace.find("secret"), std::string::npos) << trace;
  }
}

}  // namespace
}  // namespace sluice::mail
