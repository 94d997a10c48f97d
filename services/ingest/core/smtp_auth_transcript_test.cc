// Proves that each mechanism's dialogue is the one that its RFC shows, from AUTH to the final
// reply, and that it stays the same however the client's bytes are cut: at every place, byte by
// byte, and all at once.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "services/ingest/testing/ingest_fixture.h"
#include "services/mail/sasl_client.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;
using testing::IngestFixture;
using testing::SmtpClient;

struct Dialogue {
  std::string client;
  std::string server;
};

class SmtpAuthTranscriptTest : public IngestFixture {
 protected:
  // Nonces are those of a process that has just begun.
  std::unique_ptr<SmtpClient> Fresh() {
    ingest_.reset();
    shards_.clear();
    policy_ = std::make_shared<FakePolicy>();
    policy_->loopback->set_allow_unencrypted_plain_auth(true);
    auto& user = policy_->users.emplace_back();
    user.set_name("user");
    user.set_password("pencil");
    auto client = Connect();
    if (bindings_.any()) {
      client->session().ExpectTls(executor_.clock().Now());
      client->bindings = bindings_;
      client->connection().OnTlsReady({.version = "TLSv1.3", .cipher = "TLS_X"}, "", true);
    }
    return client;
  }

  // To the answer that is held back, as one to a failure is.
  std::string Wait(SmtpClient& client) {
    const auto deadline = client.session().deadline();
    if (client.session().wants_read() || !deadline) return "";
    executor_.Advance(*deadline - executor_.clock().Now());
    client.session().OnTimer(*deadline);
    return client.HearAfter(Duration::zero());
  }

  // Speaks as `sasl` does; `initial`: with the response in the command, where it has one.
  Dialogue Speak(std::string_view mechanism, bool initial, const std::string& password) {
    const auto client = Fresh();
    Dialogue dialogue;
    const auto say = [&](const std::string& line) {
      dialogue.client += line + "\r\n";
      const std::string heard = client->Say(line + "\r\n");
      dialogue.server += heard;
      return heard;
    };
    say("EHLO c.test");
    const auto sasl =
        mail::MakeSaslClient(mechanism, {"user", password}, "rOprNGfwEbeRWgbNEkqO", bindings_);
    const auto first = sasl->InitialResponse();
    std::string line = "AUTH " + std::string(mechanism);
    if (first && initial) line += " " + absl::Base64Escape(*first);
    std::string heard = say(line);
    if (first && !initial) {
      EXPECT_EQ(heard, "334 \r\n");
      heard = say(absl::Base64Escape(*first));
    }
    while (heard.starts_with("334 ")) {
      std::string challenge;
      EXPECT_TRUE(absl::Base64Unescape(heard.substr(4, heard.size() - 6), &challenge)) << heard;
      const auto response = sasl->OnChallenge(challenge);
      heard = say(response.ok() ? absl::Base64Escape(*response) : "*");
    }
    EXPECT_EQ(heard.starts_with("235 "), sasl->OnSuccess().ok() && password == "pencil");
    dialogue.server += Wait(*client);
    say("QUIT");
    return dialogue;
  }

  std::string Replay(const std::vector<std::string_view>& pieces) {
    const auto client = Fresh();
    std::string heard;
    std::string left;
    const auto give = [&](std::string_view text) {
      left += text;
      heard += client->Say(left);
      left.erase(0, left.size() - client->left_over());
    };
    for (const std::string_view piece : pieces) give(piece);
    do {
      heard += Wait(*client);
      give("");
    } while (!left.empty());
    return heard;
  }

  void CheckCuts(const Dialogue& dialogue) {
    const std::string_view all = dialogue.client;
    EXPECT_EQ(Replay({all}), dialogue.server);
    std::vector<std::string_view> bytes;
    for (size_t i = 0; i < all.size(); ++i) {
      ASSERT_EQ(Replay({all.substr(0, i), all.substr(i)}), dialogue.server) << "cut at " << i;
      bytes.push_back(all.substr(i, 1));
    }
    EXPECT_EQ(Replay(bytes), dialogue.server);
  }

  mail::SaslChannelBindings bindings_;  // of a TLS connection; none: in the clear
};

TEST_F(SmtpAuthTranscriptTest, Login) {
  const Dialogue dialogue = Speak("LOGIN", false, "pencil");
  EXPECT_EQ(dialogue.client, "EHLO c.test\r\nAUTH LOGIN\r\ndXNlcg==\r\ncGVuY2ls\r\nQUIT\r\n");
  EXPECT_TRUE(dialogue.server.ends_with(
      "334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 2.7.0 Authentication succeeded\r\n"
      "221 2.0.0 mx.test closes the connection\r\n"))
      << dialogue.server;
  CheckCuts(dialogue);
}

TEST_F(SmtpAuthTranscriptTest, Plain) {
  for (const bool initial : {true, false}) {
    const Dialogue dialogue = Speak("PLAIN", initial, "pencil");
    EXPECT_EQ(dialogue.client, std::string("EHLO c.test\r\nAUTH PLAIN") + (initial ? " " : "\r\n") +
                                   "AHVzZXIAcGVuY2ls\r\nQUIT\r\n");
    CheckCuts(dialogue);
  }
}

TEST_F(SmtpAuthTranscriptTest, CramMd5) {
  const Dialogue dialogue = Speak("CRAM-MD5", false, "pencil");
  EXPECT_NE(dialogue.server.find("235 2.7.0 "), std::string::npos);
  CheckCuts(dialogue);
}

TEST_F(SmtpAuthTranscriptTest, Scram) {
  for (const bool initial : {true, false}) {
    const Dialogue dialogue = Speak("SCRAM-SHA-256", initial, "pencil");
    EXPECT_NE(dialogue.server.find("235 2.7.0 "), std::string::npos);
    CheckCuts(dialogue);
  }
}

TEST_F(SmtpAuthTranscriptTest, ScramPlus) {
  for (const bool exporter : {true, false}) {
    bindings_ = {};
    (exporter ? bindings_.tls_exporter : bindings_.tls_server_end_point) = std::string(32, 'b');
    for (const bool initial : {true, false}) {
      const Dialogue dialogue = Speak("SCRAM-SHA-256-PLUS", initial, "pencil");
      EXPECT_NE(dialogue.server.find("250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 CRAM-MD5 PLAIN "
                                     "LOGIN\r\n"),
                std::string::npos)
          << dialogue.server;
      EXPECT_NE(dialogue.server.find("235 2.7.0 "), std::string::npos);
      if (exporter && initial) CheckCuts(dialogue);  // the others are cut where plain SCRAM is
    }
  }
}

TEST_F(SmtpAuthTranscriptTest, WrongPasswords) {
  for (const char* mechanism : {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"}) {
    const Dialogue dialogue = Speak(mechanism, true, "pen");
    EXPECT_NE(dialogue.server.find("535 5.7.8 Authentication failed\r\n"), std::string::npos)
        << mechanism << ": " << dialogue.server;
    EXPECT_EQ(dialogue.server.find("235 "), std::string::npos);
    CheckCuts(dialogue);
  }
}

}  // namespace
}  // namespace sluice::ingest
