// STARTTLS of the client's session: offered or not, wanted or required, and clear text that a man
// in the middle puts around it.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "services/mail/smtp_client_session.h"

namespace sluice::mail {
namespace {

constexpr std::string_view kOffer = "220 mx\r\n250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n";
constexpr std::string_view kNoOffer = "220 mx\r\n250-mx\r\n250 PIPELINING\r\n";

class Peer final : public SmtpClientHandler {
 public:
  Peer(StartTls starttls, size_t step) : step_(step) { session.emplace(*this, Options(starttls)); }

  static SmtpClientOptions Options(StartTls starttls) {
    SmtpClientOptions options;
    options.ehlo_name = "me";
    options.starttls = starttls;
    options.tls_timeout = std::chrono::seconds(7);
    return options;
  }
  // A line at a time, as answers come behind their questions.
  void Server(std::string_view text) {
    while (!text.empty()) {
      const size_t size = text.find('\n') + 1;
      Piece(text.substr(0, size));
      text.remove_prefix(size);
    }
  }
  // Together, as the network gave them, in pieces of `step`.
  void Piece(std::string_view text) {
    const size_t step = step_ == 0 ? text.size() : step_;
    for (; !text.empty(); text.remove_prefix(std::min(step, text.size()))) {
      session->OnBytes(text.substr(0, step));
    }
  }
  std::string Wrote() { return std::exchange(output, {}); }

  void OnOutput(std::string_view text) override { output += text; }
  void OnReady() override { ++ready; }
  void OnStartTls() override { ++handshakes; }
  void OnWantBody(uint64_t) override {}
  bool MayFinish(uint64_t) override { return true; }
  void OnResult(uint64_t, std::vector<RecipientVerdict>) override {}
  void OnEnd(const RecipientVerdict& last) override {
    ++ends;
    end = last;
  }

  std::string output;
  int ready = 0, handshakes = 0, ends = 0;
  RecipientVerdict end;
  std::optional<SmtpClientSession> session;

 private:
  const size_t step_;
};

void Dialogue(StartTls starttls, const std::function<void(Peer&)>& run) {
  for (const size_t step : {0, 1, 2, 3, 5}) {
    SCOPED_TRACE(testing::Message() << "pieces of " << step);
    Peer peer(starttls, step);
    run(peer);
    EXPECT_LE(peer.ends, 1);
  }
}

TEST(SmtpClientStartTls, BeginsAnewBehindTheHandshake) {
  for (const StartTls each : {StartTls::kOpportunistic, StartTls::kRequired}) {
    Dialogue(each, [](Peer& peer) {
      peer.Server(kOffer);
      EXPECT_EQ(peer.Wrote(), "EHLO me\r\nSTARTTLS\r\n");
      EXPECT_EQ(peer.ready, 0);
      peer.Server("220 go\r\n");
      EXPECT_EQ(peer.handshakes, 1);
      EXPECT_TRUE(peer.session->in_tls_handshake());
      EXPECT_EQ(peer.session->stage(), SmtpStage::kStartTls);
      EXPECT_EQ(peer.session->timeout(), std::chrono::seconds(7));
      EXPECT_EQ(peer.Wrote(), "");
      peer.session->OnTlsReady();
      EXPECT_TRUE(peer.session->secured());
      EXPECT_EQ(peer.Wrote(), "EHLO me\r\n");
      // What was said in clear counts no more, and STARTTLS is not asked for again.
      peer.Server("250-mx\r\n250-STARTTLS\r\n250 SIZE 1\r\n");
      EXPECT_EQ(peer.Wrote(), "");
      EXPECT_EQ(peer.ready, 1);
      EXPECT_FALSE(peer.session->peer().pipelining);
      EXPECT_EQ(peer.session->peer().max_size, 1u);
      EXPECT_EQ(peer.ends, 0);
    });
  }
}

TEST(SmtpClientStartTls, NotWantedNotOfferedOrRefused) {
  Dialogue(StartTls::kNever, [](Peer& peer) {
    peer.Server(kOffer);
    EXPECT_EQ(peer.Wrote(), "EHLO me\r\n");
    EXPECT_EQ(peer.ready, 1);
  });
  Dialogue(StartTls::kOpportunistic, [](Peer& peer) {
    peer.Server(kNoOffer);
    EXPECT_EQ(peer.Wrote(), "EHLO me\r\n");
    EXPECT_EQ(peer.ready, 1);
  });
  Dialogue(StartTls::kOpportunistic, [](Peer& peer) {
    peer.Server(kOffer);
    peer.Server("454 not now\r\n");
    EXPECT_EQ(peer.ready, 1);
    EXPECT_FALSE(peer.session->secured());
    EXPECT_TRUE(peer.session->peer().pipelining);
  });
}

TEST(SmtpClientStartTls, RequiredIsNeverLeftOut) {
  Dialogue(StartTls::kRequired, [](Peer& peer) {
    peer.Server(kNoOffer);
    EXPECT_EQ(peer.ends, 1);
    EXPECT_EQ(peer.end.reply.enhanced, "4.7.4");
    EXPECT_EQ(peer.end.verdict, Verdict::kTransient);
  });
  Dialogue(StartTls::kRequired, [](Peer& peer) {
    peer.Server("220 mx\r\n500 what\r\n250 mx\r\n");  // an old server: HELO
    EXPECT_EQ(peer.ends, 1);
    EXPECT_EQ(peer.end.reply.enhanced, "4.7.4");
  });
  Dialogue(StartTls::kRequired, [](Peer& peer) {
    peer.Server(kOffer);
    peer.Server("554 5.7.0 no\r\n");
    EXPECT_EQ(peer.ends, 1);
    EXPECT_EQ(peer.end.verdict, Verdict::kTransient);
    EXPECT_EQ(peer.end.reply.code, 554);
  });
  for (const std::string_view hello : {kOffer, kNoOffer}) {
    Dialogue(StartTls::kRequired, [&](Peer& peer) {
      peer.Server(hello);
      peer.session->OnDisconnect("gone");
      EXPECT_EQ(peer.ready, 0);
    });
  }
}

TEST(SmtpClientStartTls, ClearTextBehindTheReplyEndsIt) {
  for (const StartTls each : {StartTls::kOpportunistic, StartTls::kRequired}) {
    for (const std::string_view injected :
         {"220 go\r\n250 mx\r\n", "220 go\r\n250-mx\r\n250 SIZE\r\n", "220 go\r\n\x16\x03\x01",
          "220 go\r\n2", "220-go\r\n220 on\r\n250 "}) {
      Peer peer(each, 0);
      peer.Server(kOffer);
      peer.Piece(injected);
      EXPECT_EQ(peer.ends, 1) << injected;
      EXPECT_EQ(peer.ready, 0);
      EXPECT_EQ(peer.end.stage, SmtpStage::kStartTls);
      EXPECT_EQ(peer.end.reply.enhanced, "4.7.0");
      peer.session->OnBytes("250 mx\r\n");
      EXPECT_EQ(peer.ready, 0);
    }
    // An answer to a question that had not left yet.
    Peer peer(each, 0);
    peer.Server("220 mx\r\n");
    peer.Piece("250-mx\r\n250 STARTTLS\r\n220 go\r\n");
    EXPECT_EQ(peer.ends, 1);
    EXPECT_EQ(peer.handshakes, 0);
  }
}

TEST(SmtpClientStartTls, BeginsAgainInClear) {
  Dialogue(StartTls::kOpportunistic, [](Peer& peer) {
    peer.Server(kOffer);
    peer.Server("220 go\r\n");
    peer.Wrote();
    peer.session->Restart(StartTls::kNever);
    EXPECT_EQ(peer.session->stage(), SmtpStage::kGreeting);
    peer.Server(kOffer);
    EXPECT_EQ(peer.Wrote(), "EHLO me\r\n");
    EXPECT_EQ(peer.ready, 1);
    EXPECT_EQ(peer.ends, 0);
  });
}

// RFC 8314: the handshake, the greeting, and no STARTTLS, whatever is offered and wanted.
TEST(SmtpClientStartTls, ImplicitTlsComesBeforeTheGreeting) {
  for (const StartTls each : {StartTls::kNever, StartTls::kOpportunistic, StartTls::kRequired}) {
    Dialogue(each, [each](Peer& peer) {
      SmtpClientOptions options = Peer::Options(each);
      options.implicit_tls = true;
      SmtpClientSession& session = peer.session.emplace(peer, options);
      EXPECT_TRUE(session.in_tls_handshake());
      EXPECT_EQ(session.stage(), SmtpStage::kStartTls);
      EXPECT_EQ(session.timeout(), std::chrono::seconds(7));
      session.OnTlsReady();
      EXPECT_TRUE(session.secured());
      EXPECT_EQ(session.stage(), SmtpStage::kGreeting);
      EXPECT_EQ(peer.Wrote(), "");
      peer.Server(kOffer);
      EXPECT_EQ(peer.Wrote(), "EHLO me\r\n");
      EXPECT_EQ(peer.ready, 1);
      EXPECT_EQ(peer.handshakes, 0);
    });
    Dialogue(each, [each](Peer& peer) {
      SmtpClientOptions options = Peer::Options(each);
      options.implicit_tls = true;
      peer.session.emplace(peer, options).OnTimeout();
      EXPECT_EQ(peer.ends, 1);
      EXPECT_EQ(peer.end.stage, SmtpStage::kStartTls);
    });
  }
}

TEST(SmtpClientStartTls, SlowHandshakesAndSlowAnswersEnd) {
  for (const bool answered : {false, true}) {
    Dialogue(StartTls::kOpportunistic, [&](Peer& peer) {
      peer.Server(kOffer);
      if (answered) peer.Server("220 go\r\n");
      peer.session->OnTimeout();
      EXPECT_EQ(peer.ends, 1);
      EXPECT_EQ(peer.end.stage, SmtpStage::kStartTls);
      EXPECT_NE(peer.end.reply.text.find("STARTTLS"), std::string::npos);
    });
  }
}

}  // namespace
}  // namespace sluice::mail
