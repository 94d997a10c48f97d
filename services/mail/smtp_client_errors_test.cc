// Proves that ClientTransaction::most_errors is never passed, however many recipients a group has
// and whatever travels together, and that who has no room is not attempted.
#include <deque>
#include <random>

#include "services/mail/smtp_client_peer.h"

namespace sluice::mail {
namespace {

using testing::Dialogue;
using testing::Peer;

constexpr std::string_view kPipelining = "220 mx ready\r\n250-mx\r\n250 PIPELINING\r\n";

ClientTransaction Limited(uint64_t id, size_t recipients, uint32_t most_errors) {
  ClientTransaction transaction;
  transaction.id = id;
  transaction.mail_from = "s@x";
  for (size_t i = 0; i < recipients; ++i) {
    transaction.recipients.push_back(absl::StrCat("r", i, "@y"));
  }
  transaction.most_errors = most_errors;
  return transaction;
}

TEST(SmtpClientErrors, NoMoreUnderWayThanMayBeRefused) {
  Dialogue([](Peer& peer) {
    peer.Server(kPipelining);
    peer.Wrote();
    peer.session.Begin(Limited(1, 5, 2));
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\nRCPT TO:<r0@y>\r\nRCPT TO:<r1@y>\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "");
    // Who was taken may still be refused with the text, so there is room for one less beside it.
    peer.Server("550 no\r\n");
    EXPECT_EQ(peer.Wrote(), "");
    peer.Server("550 no\r\n");
    EXPECT_EQ(peer.Results(), "1:P/rcpt/550 1:P/rcpt/550 1:N/rcpt/0 1:N/rcpt/0 1:N/rcpt/0");
    // Nothing follows but the end.
    peer.session.Begin(Limited(2, 1, 2));
    EXPECT_EQ(peer.Results(), "2:N/mail/0");
    EXPECT_EQ(peer.Wrote(), "QUIT\r\n");
  });
}

TEST(SmtpClientErrors, WhoWasTakenGetsTheMessage) {
  Dialogue([](Peer& peer) {
    peer.Server(kPipelining);
    peer.Wrote();
    peer.session.Begin(Limited(1, 4, 2));
    peer.Wrote();
    peer.Server("250 ok\r\n250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "");  // one is taken, one is asked about
    peer.Server("550 no\r\n");
    // One more refusal is left, and the text may have it.
    EXPECT_EQ(peer.Wrote(), "DATA\r\n");
    peer.Server("354 go\r\n");
    peer.Wrote();
    peer.Server("554 not this text\r\n");
    EXPECT_EQ(peer.Results(), "1:P/dot/554 1:P/rcpt/550 1:N/rcpt/0 1:N/rcpt/0");
  });
}

TEST(SmtpClientErrors, TheNextOnesCommandsWaitWhereTheTextMayBeTheLastError) {
  Dialogue([](Peer& peer) {
    peer.Server(kPipelining);
    peer.Wrote();
    peer.session.Begin(Limited(1, 1, 1));
    peer.session.Begin(Limited(2, 1, 1));
    peer.Server("250 ok\r\n250 ok\r\n354 go\r\n");
    EXPECT_TRUE(peer.Wrote().ends_with("\r\n.\r\n"));
    peer.Server("250 taken\r\n");
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\nRCPT TO:<r0@y>\r\nDATA\r\n");
  });
}

// A remote that answers at random, and counts its refusals.
class Remote {
 public:
  Remote(Peer& peer, std::mt19937& random, int refuses_percent)
      : peer_(peer), random_(random), refuses_percent_(refuses_percent) {}

  // Reads what the session wrote and answers all of it in pieces. False: there was nothing.
  bool Turn(bool lmtp) {
    input_ += peer_.Wrote();
    std::string replies;
    while (!input_.empty()) {
      if (in_text_) {
        const size_t dot = input_.starts_with(".\r\n") ? 0 : input_.find("\r\n.\r\n");
        if (dot == input_.npos) break;
        input_.erase(0, dot == 0 ? 3 : dot + 5);
        in_text_ = false;
        for (int i = 0; i < (lmtp ? std::max(1, taken_) : 1); ++i) {
          Answer(taken_ > 0, "250 taken", replies);
        }
        taken_ = 0;
        continue;
      }
      const size_t end = input_.find("\r\n");
      if (end == input_.npos) break;
      const std::string line = input_.substr(0, end);
      size_t used = end + 2;
      if (line.starts_with("MAIL")) {
        taken_ = 0;
        mail_ = Answer(true, "250 ok", replies);
      } else if (line.starts_with("RCPT")) {
        ++asked;
        if (Answer(mail_, "250 ok", replies)) ++taken_;
      } else if (line == "DATA") {
        in_text_ = Answer(taken_ > 0, "354 go", replies);
      } else if (line.starts_with("BDAT")) {
        const size_t size = std::stoul(line.substr(5));
        if (input_.size() < used + size) break;
        used += size;
        for (int i = 0; i < (lmtp ? std::max(1, taken_) : 1); ++i) {
          Answer(taken_ > 0, "250 taken", replies);
        }
        taken_ = 0;
      } else {
        quit |= line == "QUIT";
        replies += quit ? "221 bye\r\n" : "250 ok\r\n";
      }
      input_.erase(0, used);
    }
    if (replies.empty()) return false;
    peer_.Server(replies);
    return true;
  }

  int refusals = 0;
  int asked = 0;
  bool quit = false;

 private:
  // Refuses what makes no sense by now, which is an echo and no error of its own.
  bool Answer(bool sense, std::string_view yes, std::string& replies) {
    const bool refuse = !sense || static_cast<int>(random_() % 100) < refuses_percent_;
    if (refuse && sense) ++refusals;
    absl::StrAppend(&replies, refuse ? "550 no" : absl::string_view(yes.data(), yes.size()),
                    "\r\n");
    return !refuse;
  }

  Peer& peer_;
  std::mt19937& random_;
  const int refuses_percent_;
  std::string input_;
  bool mail_ = false;
  bool in_text_ = false;
  int taken_ = 0;
};

TEST(SmtpClientErrors, NeverPassedWhateverIsRefused) {
  int cut = 0;
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    SmtpClientOptions options;
    options.lmtp = random() % 3 == 0;
    options.use_pipelining = random() % 4 != 0;
    options.use_chunking = random() % 2 == 0;
    Peer peer(seed % 5, options);
    Remote remote(peer, random, static_cast<int>(random() % 100));
    peer.Server("220 mx\r\n");
    peer.Wrote();
    peer.Server("250-mx\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    const auto most = static_cast<uint32_t>(1 + random() % 6);
    std::string results;
    size_t recipients = 0;
    for (uint64_t id = 1; id <= 6; ++id) {
      const size_t count = 1 + random() % 12;
      recipients += count;
      peer.session.Begin(Limited(id, count, most));
      if (random() % 2 == 0 && peer.session.under_way() < 2) continue;
      while (remote.Turn(options.lmtp) && peer.session.under_way() == 2) {
      }
      ASSERT_LT(peer.session.under_way(), 2u);
    }
    while (remote.Turn(options.lmtp)) {
    }
    absl::StrAppend(&results, peer.Results());
    EXPECT_EQ(peer.session.under_way(), 0u);
    EXPECT_LE(static_cast<uint32_t>(remote.refusals), most);
    const auto of = [&results](std::string_view what) {
      size_t count = 0;
      for (size_t at = 0; (at = results.find(what, at)) != results.npos; ++at) ++count;
      return count;
    };
    EXPECT_EQ(of(":D/") + of(":P/") + of(":N/"), recipients);
    // Mail is put off only where another refusal would be one too many. By LMTP each recipient that
    // was taken may be refused with the text.
    if (of(":N/") > 0 && !options.lmtp) {
      ++cut;
      EXPECT_GE(static_cast<uint32_t>(remote.refusals) + 1, most) << results;
    }
  }
  EXPECT_GT(cut, 300);
}

}  // namespace
}  // namespace sluice::mail
