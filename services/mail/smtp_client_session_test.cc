// Proves that a session gives one verdict for each recipient, in order, however a server
// behaves.
#include "services/mail/smtp_client_session.h"

#include <algorithm>

#include "services/mail/smtp_client_peer.h"

namespace sluice::mail {
namespace {

using enum Verdict;
using testing::Dialogue;
using testing::Peer;

constexpr std::string_view kHello = "220 mx ready\r\n250-mx\r\n250-PIPELINING\r\n250 SIZE 1000\r\n";
constexpr std::string_view kPlainHello = "220 mx ready\r\n250 mx\r\n";

constexpr std::string_view kOne = "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n";
constexpr std::string_view kTwo = "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\nDATA\r\n";
constexpr std::string_view kBody = "a\r\n..b\r\n.\r\n";

TEST(SmtpClientSession, HappyPathPipelined) {
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    EXPECT_EQ(peer.Wrote(), "EHLO localhost\r\n");
    EXPECT_EQ(peer.ready, 1);
    EXPECT_EQ(peer.session.peer().max_size, 1000u);
    peer.Begin(1, {"a@y", "b@y"});
    EXPECT_EQ(peer.Wrote(), kTwo);
    peer.Server("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.0.0 taken\r\n");
    EXPECT_EQ(peer.Wrote(), kBody);
    EXPECT_EQ(peer.Results(), "1:D/dot/250 1:D/dot/250");
    peer.session.Quit();
    EXPECT_EQ(peer.Wrote(), "QUIT\r\n");
    EXPECT_EQ(peer.ends, 0);
    peer.Server("221 bye\r\n");
    EXPECT_EQ(peer.ends, 1);
  });
}

TEST(SmtpClientSession, HappyPathStepByStep) {
  Dialogue([](Peer& peer) {
    peer.Server(kPlainHello);
    peer.Begin(1, {"a@y", "b@y"});
    EXPECT_EQ(peer.Wrote(), "EHLO localhost\r\nMAIL FROM:<s@x>\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "RCPT TO:<a@y>\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "RCPT TO:<b@y>\r\n");
    peer.Server("550 5.1.1 who\r\n");
    EXPECT_EQ(peer.Wrote(), "DATA\r\n");
    peer.Server("354 go\r\n");
    EXPECT_EQ(peer.Wrote(), kBody);
    EXPECT_EQ(peer.Results(), "");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Results(), "1:D/dot/250 1:P/rcpt/550");
  });
}

TEST(SmtpClientSession, HeloFallback) {
  Dialogue([](Peer& peer) {
    peer.Server("220 mx\r\n502 what\r\n");
    EXPECT_EQ(peer.Wrote(), "EHLO localhost\r\nHELO localhost\r\n");
    EXPECT_EQ(peer.ready, 0);
    peer.Server("250 mx\r\n");
    EXPECT_EQ(peer.ready, 1);
    EXPECT_FALSE(peer.session.peer().esmtp);
    peer.Begin(1, {"a@y"});
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\n");
  });
}

// Both ways: the replies to MAIL, each RCPT, DATA and the final dot, as far as they come.
TEST(SmtpClientSession, RefusedAtEachStage) {
  const struct {
    std::string_view pipelined, plain, results;
    std::string_view wrote;  // pipelined, behind the commands
  } kCases[] = {
      {"250 a\r\n450 later\r\n250 c\r\n354 go\r\n250 in\r\n",
       "250 a\r\n450 later\r\n250 c\r\n354 go\r\n250 in\r\n", "1:T/rcpt/450 1:D/dot/250", kBody},
      // All refused: the remote may want a message even so, or not.
      {"250 a\r\n550 b\r\n451 c\r\n354 go\r\n250 in\r\n", "250 a\r\n550 b\r\n451 c\r\n",
       "1:P/rcpt/550 1:T/rcpt/451", ".\r\n"},
      {"250 a\r\n550 b\r\n451 c\r\n354 go\r\n554 no\r\n", "250 a\r\n550 b\r\n451 c\r\n",
       "1:P/rcpt/550 1:T/rcpt/451", ".\r\n"},
      {"250 a\r\n550 b\r\n451 c\r\n554 none\r\n", "250 a\r\n550 b\r\n451 c\r\n",
       "1:P/rcpt/550 1:T/rcpt/451", ""},
      {"550 a\r\n503 b\r\n503 c\r\n503 d\r\n", "550 a\r\n", "1:P/mail/550 1:P/mail/550", ""},
      {"451 a\r\n503 b\r\n250 c\r\n354 d\r\n250 e\r\n", "451 a\r\n", "1:T/mail/451 1:T/mail/451",
       ".\r\n"},
      {"250 a\r\n250 b\r\n550 c\r\n451 d\r\n", "250 a\r\n250 b\r\n550 c\r\n451 d\r\n",
       "1:T/data/451 1:P/rcpt/550", ""},
      {"250 a\r\n250 b\r\n550 c\r\n250 d\r\n", "250 a\r\n250 b\r\n550 c\r\n250 d\r\n",
       "1:T/data/250 1:P/rcpt/550", ""},
      {"250 a\r\n250 b\r\n550 c\r\n354 d\r\n452 e\r\n",
       "250 a\r\n250 b\r\n550 c\r\n354 d\r\n452 e\r\n", "1:T/dot/452 1:P/rcpt/550", kBody},
      {"250 a\r\n250 b\r\n450 c\r\n354 d\r\n554-e\r\n554 f\r\n",
       "250 a\r\n250 b\r\n450 c\r\n354 d\r\n554-e\r\n554 f\r\n", "1:P/dot/554 1:T/rcpt/450", kBody},
  };
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.pipelined);
    Dialogue([&each](Peer& peer) {
      peer.Server(kHello);
      peer.Begin(1, {"a@y", "b@y"});
      peer.Wrote();
      peer.Server(each.pipelined);
      EXPECT_EQ(peer.Results(), each.results);
      EXPECT_EQ(peer.Wrote(), each.wrote);
      EXPECT_EQ(peer.ends, 0);
      // After a transaction without a message the remote may still hold its sender: RSET.
      peer.Begin(2, {"a@y"});
      EXPECT_EQ(peer.Wrote(), absl::StrCat(each.wrote.empty() ? "RSET\r\n" : "",
                                           absl::string_view(kOne.data(), kOne.size())));
      peer.Server(each.wrote.empty() ? "250 reset\r\n" : "");
      peer.Server("250 a\r\n250 b\r\n354 go\r\n250 in\r\n");
      EXPECT_EQ(peer.Results(), "2:D/dot/250");
    });
    Dialogue([&each](Peer& peer) {
      peer.Server(kPlainHello);
      peer.Begin(1, {"a@y", "b@y"});
      peer.Server(each.plain);
      EXPECT_EQ(peer.Results(), each.results);
      EXPECT_EQ(peer.ends, 0);
      const bool reset = peer.Wrote().find("a\r\n..b") == std::string::npos;
      peer.Begin(2, {"a@y"});
      peer.Begin(3, {"a@y"});  // waits for its turn, and for the answer to RSET
      if (reset) {
        EXPECT_EQ(peer.Wrote(), "RSET\r\n");
        peer.Server("250 reset\r\n");
      }
      EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\n");
      peer.Server("250 a\r\n250 b\r\n354 go\r\n250 in\r\n");
      EXPECT_EQ(peer.Results(), "2:D/dot/250");
      peer.Server("250 a\r\n250 b\r\n354 go\r\n250 in\r\n");
      EXPECT_EQ(peer.Results(), "3:D/dot/250");
    });
  }
}

TEST(SmtpClientSession, SecondTransactionRightBehindTheFinalDot) {
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    peer.Begin(1, {"a@y"});
    peer.Begin(2, {"a@y", "b@y"});
    EXPECT_EQ(peer.Wrote(), absl::StrCat("EHLO localhost\r\n", std::string(kOne)));
    peer.Server("250 a\r\n250 b\r\n354 c\r\n");
    EXPECT_EQ(peer.Wrote(), absl::StrCat(std::string(kBody), std::string(kTwo)));
    peer.Server("452 full\r\n250 a\r\n550 b\r\n250 c\r\n354 d\r\n");
    EXPECT_EQ(peer.Results(), "1:T/dot/452");
    EXPECT_EQ(peer.Wrote(), kBody);
    peer.session.Quit();
    EXPECT_EQ(peer.Wrote(), "");
    peer.Server("250 e\r\n221 bye\r\n");
    EXPECT_EQ(peer.Results(), "2:P/rcpt/550 2:D/dot/250");
    EXPECT_EQ(peer.Wrote(), "QUIT\r\n");
    EXPECT_EQ(peer.ends, 1);
  });
}

// What the remote said until the connection ended, for a transaction to a@y and b@y, pipelined.
struct BreakCase {
  std::string_view said;
  std::string_view stage;
  std::string_view results;  // with CODE for the code that ended it: 421, or 0 without a reply
};

constexpr BreakCase kBreaks[] = {
    {"", "MAIL", "1:T/mail/CODE 1:T/mail/CODE"},
    {"250 a\r\n", "RCPT", "1:T/rcpt/CODE 1:T/rcpt/CODE"},
    {"250 a\r\n550 b\r\n", "RCPT", "1:P/rcpt/550 1:T/rcpt/CODE"},
    {"550 a\r\n", "RCPT", "1:P/mail/550 1:P/mail/550"},
    {"250 a\r\n550 b\r\n250 c\r\n", "DATA", "1:P/rcpt/550 1:T/data/CODE"},
    {"250 a\r\n550 b\r\n250 c\r\n354 d\r\n", "the final dot", "1:P/rcpt/550 1:T/dot/CODE"},
    {"250 a\r\n550 b\r\n451 c\r\n354 d\r\n", "the final dot", "1:P/rcpt/550 1:T/rcpt/451"},
};

std::string WithCode(std::string_view results, std::string_view code) {
  std::string text(results);
  for (size_t at; (at = text.find("CODE")) != std::string::npos;) text.replace(at, 4, code);
  return text;
}

TEST(SmtpClientSession, EndsAtEachStage) {
  for (const BreakCase& each : kBreaks) {
    SCOPED_TRACE(each.said);
    const auto start = [&each](Peer& peer) {
      peer.Server(kHello);
      peer.Begin(1, {"a@y", "b@y"});
      peer.Server(each.said);
      EXPECT_EQ(peer.ends, 0);
    };
    Dialogue([&](Peer& peer) {
      start(peer);
      peer.Server("421-4.3.2 going\r\n421 4.3.2 down\r\n250 and more\r\n");
      EXPECT_EQ(peer.Results(), WithCode(each.results, "421"));
      EXPECT_EQ(peer.ends, 1);
      EXPECT_EQ(peer.end.verdict, kTransient);
      EXPECT_FALSE(peer.end.local);
      peer.session.OnDisconnect("closed");
      peer.session.OnTimeout();
      EXPECT_EQ(peer.Results(), "");
    });
    Dialogue([&](Peer& peer) {
      start(peer);
      peer.Server("250 half a rep");
      peer.session.OnDisconnect("reset by peer");
      EXPECT_EQ(peer.Results(), WithCode(each.results, "0"));
      EXPECT_EQ(peer.ends, 1);
      EXPECT_TRUE(peer.end.local);
      EXPECT_EQ(peer.end.reply.text, "reset by peer");
      EXPECT_EQ(peer.end.reply.enhanced, "4.4.2");
    });
    Dialogue([&](Peer& peer) {
      start(peer);
      const int seconds = each.stage == "the final dot" ? 600 : 300;
      EXPECT_EQ(peer.session.timeout(), std::chrono::seconds(seconds));
      peer.session.OnTimeout();
      EXPECT_EQ(peer.Results(), WithCode(each.results, "0"));
      EXPECT_EQ(peer.end.reply.text, absl::StrCat("timeout: no answer to ", std::string(each.stage),
                                                  " within ", seconds, " s"));
    });
    Dialogue([&](Peer& peer) {
      start(peer);
      peer.Server("what is this\r\n");
      EXPECT_EQ(peer.Results(), WithCode(each.results, "0"));
      EXPECT_EQ(peer.ends, 1);
    });
  }
}

TEST(SmtpClientSession, EndsBeforeItIsReady) {
  for (std::string_view said : {"", "220 mx\r\n", "220 mx\r\n500 no\r\n"}) {
    for (std::string_view last : {"421 busy\r\n", "450 no\r\n", ""}) {
      Dialogue([&](Peer& peer) {
        peer.Server(said);
        if (last.empty()) {
          const std::string_view what = said.empty() ? "the greeting" : "EHLO";
          peer.session.OnTimeout();
          EXPECT_EQ(peer.end.reply.text,
                    absl::StrCat("timeout: no answer to ", std::string(what), " within 300 s"));
        } else {
          peer.Server(last);
        }
        EXPECT_EQ(peer.ends, 1);
        EXPECT_EQ(peer.ready, 0);
        EXPECT_EQ(peer.end.stage, said.empty() ? SmtpStage::kGreeting : SmtpStage::kEhlo);
        EXPECT_EQ(peer.end.verdict, kTransient);
      });
    }
  }
  Dialogue([](Peer& peer) {
    peer.Server("554 5.7.1 go away\r\n");
    EXPECT_EQ(peer.end.verdict, kPermanent);
    EXPECT_EQ(peer.Wrote(), "");
  });
}

TEST(SmtpClientSession, TheSecondOneFallsWithTheFirst) {
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    peer.Begin(1, {"a@y"});
    peer.Begin(2, {"a@y"});
    peer.Server("250 a\r\n250 b\r\n354 c\r\n");
    peer.session.OnDisconnect("gone");
    EXPECT_EQ(peer.Results(), "1:T/dot/0 2:T/mail/0");
  });
  Dialogue([](Peer& peer) {
    peer.Server(kPlainHello);
    peer.Begin(1, {"a@y"});
    peer.Begin(2, {"a@y"});
    peer.Server("250 a\r\n250 b\r\n354 c\r\n");
    peer.session.OnDisconnect("gone");
    EXPECT_EQ(peer.Results(), "1:T/dot/0 2:N/mail/0");
  });
}

TEST(SmtpClientSession, MayFinishFalseKeepsTheFinalDotBack) {
  Dialogue([](Peer& peer) {
    peer.may_finish = false;
    peer.send_body = false;
    peer.Server(kHello);
    peer.Begin(1, {"a@y", "b@y"});
    peer.Server("250 a\r\n250 b\r\n550 c\r\n354 d\r\n");
    peer.Wrote();
    EXPECT_EQ(peer.wanted, 1u);
    EXPECT_EQ(peer.session.stage(), SmtpStage::kBody);
    EXPECT_EQ(peer.session.timeout(), std::chrono::minutes(3));
    EXPECT_FALSE(peer.SendBody());
    EXPECT_EQ(peer.Wrote(), "a\r\n..b\r\n");
    EXPECT_EQ(peer.Results(), "1:T/body/0 1:P/rcpt/550");
    EXPECT_EQ(peer.ends, 1);
    EXPECT_FALSE(peer.SendBody());
    EXPECT_EQ(peer.Wrote(), "");
  });
}

TEST(SmtpClientSession, BreaksOffWithinTheBody) {
  const std::function<void(Peer&)> kWays[] = {
      [](Peer& peer) { peer.session.OnDisconnect("gone"); },
      [](Peer& peer) { peer.session.OnTimeout(); },
      [](Peer& peer) { peer.session.AbortBody("no body"); },
      [](Peer& peer) { peer.Server("421 down\r\n"); },
      // Said before the final dot: about the connection, never the end of the message.
      [](Peer& peer) { peer.Server("250 taken\r\n"); },
      [](Peer& peer) { peer.Server("552 too much\r\n"); },
  };
  const int kCodes[] = {0, 0, 0, 421, 250, 552};
  for (size_t way = 0; way < std::size(kWays); ++way) {
    SCOPED_TRACE(way);
    Dialogue([&](Peer& peer) {
      peer.send_body = false;
      peer.Server(kHello);
      peer.Begin(1, {"a@y"});
      peer.Server("250 a\r\n250 b\r\n354 d\r\n");
      EXPECT_TRUE(peer.session.SendBody("x", false, [](std::string_view) {}));
      kWays[way](peer);
      EXPECT_EQ(peer.Results(), absl::StrCat("1:T/body/", kCodes[way]));
      EXPECT_EQ(peer.ends, 1);
    });
  }
}

TEST(SmtpClientSession, MailParametersOnlyWhereOffered) {
  const auto mail = [](std::string_view offers, const SmtpClientOptions& options = {}) {
    std::string wrote;
    Dialogue(
        [&](Peer& peer) {
          peer.Server("220 mx\r\n250-mx\r\n");
          peer.Server(offers);
          peer.Wrote();
          ClientTransaction transaction;
          transaction.recipients = {"a@y"};
          transaction.size = 77;
          transaction.eight_bit = true;
          transaction.smtputf8 = offers.find("SMTPUTF8") != offers.npos;
          peer.session.Begin(std::move(transaction));
          wrote = peer.Wrote();
        },
        options);
    return wrote.substr(0, wrote.find("\r\n"));
  };
  EXPECT_EQ(mail("250 HELP\r\n"), "MAIL FROM:<>");
  EXPECT_EQ(mail("250 size\r\n"), "MAIL FROM:<> SIZE=77");
  EXPECT_EQ(mail("250-SIZE 5\r\n250 PIPELINING\r\n"), "MAIL FROM:<> SIZE=77");
  EXPECT_EQ(mail("250 8BITMIME\r\n"), "MAIL FROM:<> BODY=8BITMIME");
  EXPECT_EQ(mail("250 8BITMIMEX\r\n"), "MAIL FROM:<>");
  EXPECT_EQ(mail("250 SMTPUTF8\r\n"), "MAIL FROM:<> SMTPUTF8");
  SmtpClientOptions seven_bit;
  seven_bit.use_8bitmime = false;
  EXPECT_EQ(mail("250 8BITMIME\r\n", seven_bit), "MAIL FROM:<>");
  // The first line is the remote's name, whatever it is.
  Dialogue([](Peer& peer) {
    peer.Server("220 mx\r\n250 PIPELINING\r\n");
    EXPECT_FALSE(peer.session.peer().pipelining);
  });
}

TEST(SmtpClientSession, AddressesThatCannotBeSent) {
  // Without SMTPUTF8 those beyond ASCII are refused here, the others go on.
  for (const bool pipelining : {true, false}) {
    Dialogue([&](Peer& peer) {
      peer.Server(pipelining ? kHello : kPlainHello);
      peer.Wrote();
      peer.Begin(1, {"\xc3\xa4@y", "a@y", "b@y\r\nRSET"});
      peer.Server("250 ok\r\n");
      peer.Server("250 ok\r\n");
      peer.Server("354 go\r\n");
      EXPECT_EQ(peer.Wrote(), absl::StrCat("MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n",
                                           absl::string_view(kBody.data(), kBody.size())));
      peer.Server("250 ok\r\n");
      EXPECT_EQ(peer.Results(), "1:P/rcpt/0 1:D/dot/250 1:P/rcpt/0");
      EXPECT_EQ(peer.last_text, "the address has a control character");
    });
  }
  // A domain has its A-labels, but none of which full-width forms make a parameter of RCPT.
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    peer.Wrote();
    peer.Begin(1, {"a@b\xc3\xbc",
                   "a@\xef\xbc\x9e\xe3\x80\x80NOTIFY\xef\xbc\x9d"
                   "NEVER.b\xc3\xbc"});
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\nRCPT TO:<a@xn--b-eha>\r\nDATA\r\n");
  });
  // Nothing is left to send; the next transaction is not held up, and results stay in order.
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    peer.Wrote();
    peer.Begin(1, {"a@y"});
    peer.Server("250 ok\r\n250 ok\r\n354 go\r\n");
    peer.Begin(2, {"\xc3\xa4@y"});
    EXPECT_EQ(peer.Wrote(), absl::StrCat(absl::string_view(kOne.data(), kOne.size()),
                                         absl::string_view(kBody.data(), kBody.size())));
    EXPECT_EQ(peer.Results(), "");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Results(), "1:D/dot/250 2:P/rcpt/0");
    peer.Begin(3, {"a@y"});
    EXPECT_EQ(peer.Wrote(), kOne);
  });
  // The peer offers it: it is used where an address needs it.
  Dialogue([](Peer& peer) {
    peer.Server("220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 SMTPUTF8\r\n");
    peer.Wrote();
    peer.Begin(1, {"\xc3\xa4@y"});
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x> SMTPUTF8\r\nRCPT TO:<\xc3\xa4@y>\r\nDATA\r\n");
  });
}

// Remotes limit the messages of a connection: what they have not looked at goes back as it was.
TEST(SmtpClientSession, RemoteLeavesBetweenMessages) {
  const auto run = [](bool first_delivered, const std::function<void(Peer&)>& leave) {
    std::string results;
    Dialogue([&](Peer& peer) {
      peer.Server(kHello);
      peer.Begin(1, {"a@y"});
      peer.Server("250 ok\r\n250 ok\r\n354 go\r\n");
      peer.Begin(2, {"b@y"});
      peer.Server(first_delivered ? "250 ok\r\n" : "452 full\r\n");
      peer.Results();
      leave(peer);
      results = peer.Results();
    });
    return results;
  };
  const auto by_421 = [](Peer& peer) { peer.Server("421 enough\r\n"); };
  const auto by_closing = [](Peer& peer) { peer.session.OnDisconnect("gone"); };
  const auto later = [](Peer& peer) { peer.Server("250 ok\r\n421 enough\r\n"); };
  const auto by_silence = [](Peer& peer) { peer.session.OnTimeout(); };
  EXPECT_EQ(run(true, by_421), "2:N/mail/421");
  EXPECT_EQ(run(true, by_closing), "2:N/mail/0");
  EXPECT_EQ(run(true, later), "2:T/rcpt/421");
  EXPECT_EQ(run(true, by_silence), "2:T/mail/0");
  // Else a remote that takes nothing would be tried without end.
  EXPECT_EQ(run(false, by_421), "2:T/mail/421");
  EXPECT_EQ(run(false, by_closing), "2:T/mail/0");
}

TEST(SmtpClientSession, PipeliningCanBeTurnedOff) {
  SmtpClientOptions options;
  options.use_pipelining = false;
  Dialogue(
      [](Peer& peer) {
        peer.Server(kHello);
        peer.Wrote();
        peer.Begin(1, {"a@y"});
        EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\n");
      },
      options);
}

TEST(SmtpClientSession, QuitAndGoodbyes) {
  Dialogue([](Peer& peer) {
    peer.session.Quit();
    EXPECT_EQ(peer.ends, 1);
    EXPECT_EQ(peer.Wrote(), "");
  });
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    peer.Wrote();
    peer.session.Quit();
    peer.session.Quit();
    EXPECT_EQ(peer.Wrote(), "QUIT\r\n");
    peer.session.OnDisconnect("closed");
    EXPECT_EQ(peer.ends, 1);
  });
  // 421 on an idle connection.
  Dialogue([](Peer& peer) {
    peer.Server(kHello);
    peer.Server("421 idle\r\n");
    EXPECT_EQ(peer.ends, 1);
    EXPECT_EQ(peer.end.reply.code, 421);
    EXPECT_EQ(peer.Results(), "");
  });
}

}  // namespace
}  // namespace sluice::mail
