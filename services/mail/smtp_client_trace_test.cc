// What the log may show of a session with a remote host: commands and replies, and neither what
// AUTH says nor the text of a message, however the remote's bytes are cut.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "services/mail/smtp_client_peer.h"

namespace sluice::mail {
namespace {

class Traced final : public testing::Peer {
 public:
  using Peer::Peer;
  void OnTrace(bool reply, std::string_view text) override {
    trace.append(reply ? "S: " : "C: ").append(text).append("\n");
  }
  std::string trace;
};

SmtpClientOptions Options() {
  SmtpClientOptions options;
  options.trace = true;
  options.auth_nonce = "rOprNGfwEbeRWgbNEkqO";
  return options;
}

constexpr size_t kSteps[] = {0, 1, 7};

TEST(SmtpClientTrace, ShowsCommandsAndRepliesAndNoText) {
  for (const size_t step : kSteps) {
    Traced peer(step, Options());
    peer.body = "Subject: secret\r\n\r\n.dot\r\n";
    peer.Server("220 mx ready\r\n250-mx\r\n250 PIPELINING\r\n");
    peer.Begin(1, {"a@b", "c@d"});
    peer.Server("250 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no\r\n354 go\r\n");
    peer.Server("250 2.0.0 taken\r\n");
    peer.session.Quit();
    peer.Server("221 bye\r\n");
    EXPECT_EQ(peer.trace,
              "S: 220 mx ready\nC: EHLO localhost\nS: 250 mx\nPIPELINING\n"
              "C: MAIL FROM:<s@x>\nC: RCPT TO:<a@b>\nC: RCPT TO:<c@d>\nC: DATA\n"
              "S: 250 ok\nS: 250 2.1.5 ok\nS: 550 5.1.1 no\nS: 354 go\nC: .\n"
              "S: 250 2.0.0 taken\nC: QUIT\nS: 221 bye\n");
  }
}

TEST(SmtpClientTrace, OfChunksTheirSizes) {
  Traced peer(0, Options());
  peer.body = "Subject: secret\r\n\r\nno end";
  peer.Server("220 mx\r\n250-mx\r\n250-CHUNKING\r\n250 PIPELINING\r\n");
  peer.trace.clear();
  peer.Begin(1, {"a@b"});
  peer.Server("250 ok\r\n250 ok\r\n250 taken\r\n");
  EXPECT_EQ(peer.trace,
            "C: MAIL FROM:<s@x>\nC: RCPT TO:<a@b>\nS: 250 ok\nS: 250 ok\nC: BDAT 27 LAST\n"
            "S: 250 taken\n");
}

TEST(SmtpClientTrace, WithoutPipeliningAndEhlo) {
  SmtpClientOptions options = Options();
  options.starttls = StartTls::kOpportunistic;
  Traced peer(1, options);
  peer.Server("220 mx\r\n502 what\r\n250 mx\r\n");
  peer.Begin(1, {"a@b"});
  peer.Server("250 ok\r\n550 no\r\n");
  peer.Begin(2, {"a@b"});
  peer.Server("250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n");
  EXPECT_EQ(peer.trace,
            "S: 220 mx\nC: EHLO localhost\nS: 502 what\nC: HELO localhost\nS: 250 mx\n"
            "C: MAIL FROM:<s@x>\nS: 250 ok\nC: RCPT TO:<a@b>\nS: 550 no\nC: RSET\nS: 250 reset\n"
            "C: MAIL FROM:<s@x>\nS: 250 ok\nC: RCPT TO:<a@b>\nS: 250 ok\nC: DATA\nS: 354 go\n"
            "C: .\nS: 250 taken\n");
}

// Also where the remote says again what it was told, or asks for what nobody offered.
TEST(SmtpClientTrace, HidesWhatAuthSays) {
  const std::string scram = "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
  for (const std::string mechanism : {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"}) {
    for (const char* last : {"235 2.7.0 well done, tim", "535 5.7.8 no such user: tim/hunter2"}) {
      for (const size_t step : kSteps) {
        SmtpClientOptions options = Options();
        options.encrypted = true;
        options.auth = SaslCredentials{"tim", "hunter2"};
        Traced peer(step, options);
        peer.Server("220 mx\r\n250-mx\r\n250 AUTH " + mechanism + "\r\n");
        std::vector<std::string> challenges = {"PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2U+"};
        if (mechanism == "PLAIN") challenges.clear();
        if (mechanism == "LOGIN") challenges = {"VXNlcm5hbWU6", "UGFzc3dvcmQ6"};
        if (mechanism == "SCRAM-SHA-256") {
          challenges = {absl::Base64Escape(scram)};
        }
        for (const std::string& challenge : challenges) peer.Server("334 " + challenge + "\r\n");
        std::string all = peer.Wrote();
        peer.Server(std::string(last) + "\r\n");
        all += peer.Wrote();
        EXPECT_NE(all.find("AUTH " + mechanism), std::string::npos) << all;
        EXPECT_NE(peer.trace.find("C: AUTH " + mechanism + " (response hidden)\n"),
                  std::string::npos)
            << peer.trace;
        for (const std::string hidden : {"tim", "hunter2", "dGlt", "aHVudGVyMg", "AHRpbQ", "PDE4",
                                         "VXNlcm5", "UGFzc3", "bj10", "cj1y", "biws"}) {
          EXPECT_EQ(peer.trace.find(hidden), std::string::npos) << hidden << " in\n" << peer.trace;
        }
        const std::string code(last, 9);
        EXPECT_TRUE(peer.trace.ends_with("S: " + code + " (text hidden)\n")) << peer.trace;
      }
    }
  }
}

// A remote that takes the text for commands says of each line that it does not know it.
TEST(SmtpClientTrace, HidesRepliesThatNobodyAskedFor) {
  Traced peer(0, Options());
  peer.Server("220 mx\r\n250 mx\r\n");
  peer.trace.clear();
  peer.Server("500 unknown: Subject: secret\r\n");
  EXPECT_EQ(peer.trace, "S: 500 (text hidden)\n");
  Traced left(0, Options());
  left.Server("220 mx\r\n250 mx\r\n");
  left.trace.clear();
  left.Server("421 4.4.2 too long idle\r\n");
  EXPECT_EQ(left.trace, "S: 421 4.4.2 too long idle\n");
}

TEST(SmtpClientTrace, IsSilentWhereNobodyAsked) {
  Traced peer(0);
  peer.Server("220 mx\r\n250 mx\r\n");
  peer.Begin(1, {"a@b"});
  EXPECT_EQ(peer.trace, "");
}

}  // namespace
}  // namespace sluice::mail
