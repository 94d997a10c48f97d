// STARTTLS of the server's session: when it is offered, what is forgotten, and clear text that a
// man in the middle sends behind it.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "services/mail/testing/smtp_server_side.h"

namespace sluice::mail {
namespace {

using std::chrono::seconds;

struct Client : SmtpServerSide {
  explicit Client(bool offer = true, bool available = true) {
    options.host_name = "mx.test";
    options.offer_starttls = offer;
    options.tls_timeout = seconds(9);
    options.max_errors = 100;
    if (available) session.set_tls_available();
    session.Start(now);
    Take();
  }
};

TEST(SmtpServerStartTls, OfferedOnlyWhereItCanBeHad) {
  for (const bool offer : {false, true}) {
    for (const bool available : {false, true}) {
      Client client(offer, available);
      const bool offered = client.Say("EHLO c.test\r\n").find("STARTTLS") != std::string::npos;
      EXPECT_EQ(offered, offer && available);
      EXPECT_EQ(client.Say("STARTTLS\r\n").substr(0, 3), offered ? "220" : "502");
      EXPECT_EQ(client.session.tls_handshake(), offered);
      EXPECT_EQ(client.handler.starttls, offered ? 1 : 0);
    }
  }
}

TEST(SmtpServerStartTls, ForgetsWhatWasSaidInClear) {
  Client client;
  client.Say("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n");
  EXPECT_EQ(client.Say("STARTTLS now\r\n").substr(0, 3), "501");
  EXPECT_EQ(client.Say("STARTTLS\r\n"), "220 2.0.0 Ready to start TLS\r\n");
  EXPECT_EQ(client.handler.resets, 1);
  EXPECT_TRUE(client.session.wants_read());
  EXPECT_FALSE(client.session.secured());
  client.session.OnTlsReady(client.now);
  EXPECT_TRUE(client.session.secured());
  EXPECT_EQ(client.Take(), "");  // no second greeting
  EXPECT_EQ(client.Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "503");
  const std::string hello = client.Say("EHLO c.test\r\n");
  EXPECT_EQ(hello.substr(0, 3), "250");
  EXPECT_EQ(hello.find("STARTTLS"), std::string::npos);
  EXPECT_EQ(client.Say("STARTTLS\r\n").substr(0, 3), "503");
  EXPECT_EQ(client.Say("RCPT TO:<c@d.test>\r\n").substr(0, 3), "503");
  EXPECT_EQ(client.Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "250");
}

TEST(SmtpServerStartTls, WhoAuthenticatedInClearIsNobody) {
  Client client;
  client.handler.mechanisms = "PLAIN";
  EXPECT_NE(client.Say("EHLO c.test\r\nAUTH PLAIN AAAA\r\n").find("235"), std::string::npos);
  EXPECT_NE(client.Say("AUTH PLAIN AAAA\r\n").find("503"), std::string::npos);
  client.Say("STARTTLS\r\n");
  client.session.OnTlsReady(client.now);
  EXPECT_NE(client.Say("EHLO c.test\r\nAUTH PLAIN AAAA\r\n").find("235"), std::string::npos);
}

// RFC 8689 4.1.
TEST(SmtpServerStartTls, RequireTlsIsForSessionsThatHaveIt) {
  Client client;
  client.options.extensions.require_tls = true;
  EXPECT_EQ(client.Say("EHLO c.test\r\n").find("REQUIRETLS"), std::string::npos);
  EXPECT_EQ(client.Say("MAIL FROM:<a@b.test> REQUIRETLS\r\n").substr(0, 3), "555");
  client.Say("STARTTLS\r\n");
  client.session.OnTlsReady(client.now);
  EXPECT_NE(client.Say("EHLO c.test\r\n").find("250-REQUIRETLS\r\n"), std::string::npos);
  EXPECT_EQ(client.Say("MAIL FROM:<a@b.test> REQUIRETLS=x\r\n").substr(0, 3), "501");
  EXPECT_EQ(client.Say("MAIL FROM:<a@b.test> REQUIRETLS\r\n").substr(0, 3), "250");
  EXPECT_TRUE(client.handler.last_mail.require_tls);
}

TEST(SmtpServerStartTls, ClearTextBehindItIsDropped) {
  const std::string_view injected =
      "EHLO c.test\r\nSTARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@e.test>\r\nRCPT "
      "TO:<v@v.test>\r\n";
  for (size_t step = 1; step <= injected.size(); ++step) {
    Client client;
    client.Say(injected, step);
    EXPECT_TRUE(client.session.tls_handshake());
    // What stood in later reads was never given to the session: the owner has begun TLS by then.
    client.session.OnBytes(client.now, "NOOP\r\nMAIL FROM:<evil@e.test>\r\n");
    client.session.OnTlsReady(client.now);
    EXPECT_EQ(client.Take(), "") << step;
    EXPECT_EQ(client.handler.mails, 0) << step;
    EXPECT_EQ(client.handler.hello, "c.test") << step;
    EXPECT_EQ(client.Say("NOOP\r\n"), "250 2.0.0 OK\r\n") << step;
  }
  Client client;
  client.Say(injected);
  EXPECT_EQ(client.handler.discarded,
            injected.size() - std::string_view("EHLO c.test\r\nSTARTTLS\r\n").size());
}

TEST(SmtpServerStartTls, AHandshakeThatTakesTooLongEndsWithoutAWord) {
  Client client;
  client.Say("EHLO c.test\r\nSTARTTLS\r\n");
  const MonotonicTime began = client.now;
  EXPECT_EQ(client.session.deadline(), began + seconds(9));
  client.now += seconds(8);
  client.session.OnTimer(client.now);
  EXPECT_TRUE(client.session.tls_handshake());
  EXPECT_EQ(client.session.deadline(), began + seconds(9));  // bytes do not move it
  client.now += seconds(1);
  client.session.OnTimer(client.now);
  EXPECT_TRUE(client.session.closing());
  EXPECT_EQ(client.Take(), "");
}

TEST(SmtpServerStartTls, AClientThatLeavesInTheHandshake) {
  Client client;
  client.Say("EHLO c.test\r\nSTARTTLS\r\n");
  client.session.OnEof(client.now);
  EXPECT_TRUE(client.session.closing());
}

TEST(SmtpServerStartTls, ListenersThatBeginWithTlsGreetBehindTheHandshake) {
  Client outer;  // only for its handler
  SmtpServerSession session(outer.handler, outer.options);
  session.set_tls_available();
  session.ExpectTls(outer.now);
  EXPECT_TRUE(session.tls_handshake());
  EXPECT_TRUE(session.wants_read());
  EXPECT_EQ(session.output(), "");
  EXPECT_EQ(session.deadline(), outer.now + seconds(9));
  session.OnTlsReady(outer.now);
  session.Start(outer.now);
  EXPECT_EQ(session.output().substr(0, 11), "220 mx.test");
  session.Sent(outer.now, session.output().size());
  session.OnBytes(outer.now, "EHLO c.test\r\n");
  EXPECT_EQ(session.output().find("STARTTLS"), std::string::npos);
}

}  // namespace
}  // namespace sluice::mail
