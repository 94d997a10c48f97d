// The client's side of CHUNKING, BINARYMIME, DSN, SMTPUTF8 and LMTP, and what breaks off within a
// message.
#include "services/mail/smtp_client_peer.h"

namespace sluice::mail {
namespace {

using testing::Dialogue;
using testing::Peer;

constexpr std::string_view kChunking =
    "220 mx ready\r\n250-mx\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING\r\n";

ClientTransaction Simple(uint64_t id) {
  ClientTransaction transaction;
  transaction.id = id;
  transaction.mail_from = "s@x";
  transaction.recipients = {"a@y"};
  return transaction;
}

// RFC 3030: no DATA, no dot-stuffing, the size before the bytes.
TEST(SmtpClientChunking, BodyGoesAsOneChunk) {
  Dialogue([](Peer& peer) {
    peer.Server(kChunking);
    peer.Wrote();
    peer.Begin(1, {"a@y", "b@y"});
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\n");
    peer.Server("250 ok\r\n250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "");
    peer.Server("550 no\r\n");
    EXPECT_EQ(peer.Wrote(), "BDAT 7 LAST\r\na\r\n.b\r\n");
    peer.Server("250 taken\r\n");
    EXPECT_EQ(peer.Results(), "1:D/dot/250 1:P/rcpt/550");
  });
}

TEST(SmtpClientChunking, StepByStepAndTextEndsWithALine) {
  Dialogue([](Peer& peer) {
    peer.Server("220 mx\r\n250-mx\r\n250-BINARYMIME\r\n250 CHUNKING\r\n");
    peer.Wrote();
    // Without PIPELINING text goes by DATA.
    peer.Begin(1, {"a@y"});
    peer.Server("250 ok\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_TRUE(peer.Wrote().ends_with("DATA\r\n"));
    peer.Server("354 go\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Results(), "1:D/dot/250");
    peer.Wrote();
    ClientTransaction binary = Simple(2);
    binary.binary = true;
    peer.body = std::string("\0\n.\n", 4);
    peer.session.Begin(std::move(binary));
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x> BODY=BINARYMIME\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "RCPT TO:<a@y>\r\n");
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "BDAT 4 LAST\r\n" + std::string("\0\n.\n", 4));
    peer.Server("250 ok\r\n");
    EXPECT_EQ(peer.Results(), "2:D/dot/250");
  });
  Dialogue([](Peer& peer) {
    peer.Server(kChunking);
    peer.Wrote();
    peer.body = "no line's end";
    peer.Begin(1, {"a@y"});
    peer.Server("250 ok\r\n250 ok\r\n");
    EXPECT_TRUE(peer.Wrote().ends_with("BDAT 15 LAST\r\nno line's end\r\n"));
  });
}

TEST(SmtpClientChunking, ManyChunks) {
  Dialogue([](Peer& peer) {
    peer.Server(kChunking);
    peer.send_body = false;
    peer.Begin(1, {"a@y"});
    peer.Wrote();
    peer.Server("250 ok\r\n250 ok\r\n");
    const auto send = [&peer](std::string_view piece, bool last) {
      return peer.session.SendBody(piece, last,
                                   [&peer](std::string_view text) { peer.output += text; });
    };
    EXPECT_TRUE(send("one\r", false));
    EXPECT_TRUE(send("\n", false));
    EXPECT_EQ(peer.Wrote(), "BDAT 4\r\none\rBDAT 1\r\n\n");
    peer.Server("250 4 bytes\r\n250 1 byte\r\n");
    EXPECT_TRUE(send("", true));
    EXPECT_EQ(peer.Wrote(), "BDAT 0 LAST\r\n");
    peer.Server("250 taken\r\n");
    EXPECT_EQ(peer.Results(), "1:D/dot/250");
  });
}

// What a refused chunk says holds for the message, and nothing else goes by that connection.
TEST(SmtpClientChunking, RefusedWithin) {
  for (const bool permanent : {true, false}) {
    Dialogue([permanent](Peer& peer) {
      peer.Server(kChunking);
      peer.send_body = false;
      peer.Begin(1, {"a@y", "b@y"});
      peer.Server("250 ok\r\n250 ok\r\n550 who\r\n");
      peer.session.SendBody("a\r\n", false, [](std::string_view) {});
      peer.Server(permanent ? "552 too much\r\n" : "452 too much\r\n");
      EXPECT_EQ(peer.Results(),
                permanent ? "1:P/body/552 1:P/rcpt/550" : "1:T/body/452 1:P/rcpt/550");
      EXPECT_EQ(peer.ends, 1);
      EXPECT_FALSE(peer.session.SendBody("b", true, [](std::string_view) {}));
    });
  }
}

// The next message follows right behind the last chunk, with a RSET that makes the state certain.
TEST(SmtpClientChunking, NextOneBehindTheLastChunk) {
  Dialogue([](Peer& peer) {
    peer.Server(kChunking);
    peer.Begin(1, {"a@y"});
    peer.Begin(2, {"b@y"});
    peer.Wrote();
    peer.Server("250 ok\r\n250 ok\r\n");
    EXPECT_EQ(peer.Wrote(),
              "BDAT 7 LAST\r\na\r\n.b\r\nRSET\r\nMAIL FROM:<s@x>\r\nRCPT TO:<b@y>\r\n");
    peer.Server("554 spam\r\n250 reset\r\n250 ok\r\n250 ok\r\n");
    EXPECT_EQ(peer.Results(), "1:P/dot/554");
    EXPECT_TRUE(peer.Wrote().starts_with("BDAT 7 LAST\r\n"));
    peer.Server("250 taken\r\n");
    EXPECT_EQ(peer.Results(), "2:D/dot/250");
  });
}

TEST(SmtpClientChunking, NobodyTakenMeansNoBody) {
  Dialogue([](Peer& peer) {
    peer.Server(kChunking);
    peer.Begin(1, {"a@y"});
    peer.Wrote();
    peer.Server("250 ok\r\n550 no\r\n");
    EXPECT_EQ(peer.Results(), "1:P/rcpt/550");
    peer.Begin(2, {"b@y"});
    EXPECT_EQ(peer.Wrote(), "RSET\r\nMAIL FROM:<s@x>\r\nRCPT TO:<b@y>\r\n");
  });
}

TEST(SmtpClientChunking, LeaseThatRanOutKeepsTheLastChunkBack) {
  Dialogue([](Peer& peer) {
    peer.Server(kChunking);
    peer.may_finish = false;
    peer.Begin(1, {"a@y"});
    peer.Wrote();
    peer.Server("250 ok\r\n250 ok\r\n");
    EXPECT_EQ(peer.Wrote(), "");
    EXPECT_EQ(peer.Results(), "1:T/body/0");
    EXPECT_EQ(peer.ends, 1);
  });
}

// RFC 3030 section 3: binary mail is never converted.
TEST(SmtpClientDowngrade, BinaryBouncesWhereItCannotGo) {
  const auto run = [](std::string_view offers, bool use_chunking) {
    std::string enhanced;
    SmtpClientOptions options;
    options.use_chunking = use_chunking;
    Dialogue(
        [&](Peer& peer) {
          peer.Server("220 mx\r\n250-mx\r\n");
          peer.Server(offers);
          peer.Wrote();
          ClientTransaction transaction = Simple(1);
          transaction.binary = true;
          peer.session.Begin(std::move(transaction));
          const std::string wrote = peer.Wrote();
          enhanced = peer.Results();
          if (!wrote.empty()) enhanced = "sent";
        },
        options);
    return enhanced;
  };
  EXPECT_EQ(run("250-CHUNKING\r\n250-PIPELINING\r\n250 BINARYMIME\r\n", true), "sent");
  EXPECT_EQ(run("250-CHUNKING\r\n250-PIPELINING\r\n250 BINARYMIME\r\n", false), "1:P/mail/0");
  EXPECT_EQ(run("250-CHUNKING\r\n250 PIPELINING\r\n", true), "1:P/mail/0");
  EXPECT_EQ(run("250-BINARYMIME\r\n250 PIPELINING\r\n", true), "1:P/mail/0");
  EXPECT_EQ(run("250 HELP\r\n", true), "1:P/mail/0");
}

// RFC 8689 4.2: a peer that offers it, and a session that was verified; else nothing is said.
TEST(SmtpClientDowngrade, MessageThatRequiresTls) {
  const auto run = [](std::string_view offers, bool encrypted, bool verified,
                      const char* sender = "s@x") {
    SmtpClientOptions options;
    options.encrypted = encrypted;
    std::string outcome;
    Dialogue(
        [&](Peer& peer) {
          peer.Server("220 mx\r\n250-mx\r\n" + std::string(offers));
          peer.Wrote();
          ClientTransaction transaction = Simple(1);
          transaction.mail_from = sender;
          transaction.require_tls = true;
          transaction.tls_verified = verified;
          peer.session.Begin(std::move(transaction));
          const std::string wrote = peer.Wrote();
          outcome = wrote.empty() ? peer.Results() : wrote.substr(0, wrote.find('\r'));
        },
        options);
    return outcome;
  };
  EXPECT_EQ(run("250 REQUIRETLS\r\n", true, true), "MAIL FROM:<s@x> REQUIRETLS");
  EXPECT_EQ(run("250 REQUIRETLS\r\n", true, false), "1:P/mail/0");
  EXPECT_EQ(run("250 REQUIRETLS\r\n", false, true), "1:P/mail/0");
  EXPECT_EQ(run("250 SIZE\r\n", true, true), "1:P/mail/0");
  // Section 5: reports ask for it, and go all the same.
  EXPECT_EQ(run("250 REQUIRETLS\r\n", true, true, ""), "MAIL FROM:<> REQUIRETLS");
  EXPECT_EQ(run("250 REQUIRETLS\r\n", true, false, ""), "MAIL FROM:<>");
  EXPECT_EQ(run("250 HELP\r\n", false, false, ""), "MAIL FROM:<>");
}

TEST(SmtpClientDowngrade, MessageThatNeedsSmtpUtf8) {
  for (const bool offered : {true, false}) {
    Dialogue([offered](Peer& peer) {
      peer.Server(offered ? "220 mx\r\n250-mx\r\n250 SMTPUTF8\r\n" : "220 mx\r\n250 mx\r\n");
      peer.Wrote();
      ClientTransaction transaction = Simple(1);
      transaction.smtputf8 = true;
      peer.session.Begin(std::move(transaction));
      EXPECT_EQ(peer.Wrote(), offered ? "MAIL FROM:<s@x> SMTPUTF8\r\n" : "");
      EXPECT_EQ(peer.Results(), offered ? "" : "1:P/mail/0");
    });
  }
}

// RFC 3461 section 5.2.1: what the sender asked for goes on to a peer that knows it, and to no
// other.
TEST(SmtpClientDsn, ParametersGoOn) {
  for (const bool offered : {true, false}) {
    for (const bool use : {true, false}) {
      SmtpClientOptions options;
      options.use_dsn = use;
      Dialogue(
          [&](Peer& peer) {
            peer.Server("220 mx\r\n250-mx\r\n250-PIPELINING\r\n");
            peer.Server(offered ? "250 DSN\r\n" : "250 HELP\r\n");
            peer.Wrote();
            ClientTransaction transaction = Simple(1);
            transaction.recipients = {"a@y", "b@y", "c@y", "d@y"};
            transaction.dsn = {{1, ""}, {2 | 8, "rfc822;b+1=x@y"}, {}, {4, "utf-8;\xc3\xa4@y"}};
            transaction.ret = ClientTransaction::Ret::kHeaders;
            transaction.envid = "QQ 314+159";
            peer.session.Begin(std::move(transaction));
            EXPECT_EQ(peer.Wrote(),
                      offered && use
                          ? "MAIL FROM:<s@x> RET=HDRS ENVID=QQ+20314+2B159\r\n"
                            "RCPT TO:<a@y> NOTIFY=NEVER\r\n"
                            "RCPT TO:<b@y> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2B1+3Dx@y\r\n"
                            "RCPT TO:<c@y>\r\nRCPT TO:<d@y> NOTIFY=FAILURE\r\nDATA\r\n"
                          : "MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nRCPT TO:<b@y>\r\n"
                            "RCPT TO:<c@y>\r\nRCPT TO:<d@y>\r\nDATA\r\n");
          },
          options);
    }
  }
}

// RFC 3461 bounds them, and a remote that holds to it would refuse the mail for what is longer.
TEST(SmtpClientDsn, WhatIsTooLongIsLeftOut) {
  Dialogue([](Peer& peer) {
    peer.Server("220 mx\r\n250-mx\r\n250-PIPELINING\r\n250 DSN\r\n");
    peer.Wrote();
    ClientTransaction transaction = Simple(1);
    transaction.recipients = {"a@y", "b@y"};
    transaction.dsn = {{0, "rfc822;" + std::string(493, 'a')},
                       {0, "rfc822;" + std::string(494, 'b')}};
    transaction.envid = std::string(34, '+');
    peer.session.Begin(std::move(transaction));
    EXPECT_EQ(peer.Wrote(), "MAIL FROM:<s@x>\r\nRCPT TO:<a@y> ORCPT=rfc822;" +
                                std::string(493, 'a') + "\r\nRCPT TO:<b@y>\r\nDATA\r\n");
  });
}

SmtpClientOptions Lmtp() {
  SmtpClientOptions options;
  options.lmtp = true;
  return options;
}

// RFC 2033: LHLO, and after the dot a reply for each recipient that was taken.
TEST(SmtpClientLmtp, OneReplyARecipient) {
  for (const bool chunking : {true, false}) {
    Dialogue(
        [chunking](Peer& peer) {
          peer.Server("220 lmtp\r\n");
          EXPECT_EQ(peer.Wrote(), "LHLO localhost\r\n");
          peer.Server(chunking ? "250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n"
                               : "250-x\r\n250 PIPELINING\r\n");
          peer.Begin(1, {"a@y", "b@y", "c@y", "d@y"});
          peer.Begin(2, {"e@y"});
          peer.Server("250 ok\r\n250 ok\r\n550 who\r\n250 ok\r\n250 ok\r\n");
          if (!chunking) peer.Server("354 go\r\n");
          peer.Server("250 a has it\r\n452 c is full\r\n");
          EXPECT_EQ(peer.Results(), "");
          peer.Server("550 d refuses\r\n");
          EXPECT_EQ(peer.Results(), "1:D/dot/250 1:P/rcpt/550 1:T/dot/452 1:P/dot/550");
          if (chunking) peer.Server("250 reset\r\n");
          peer.Server("250 ok\r\n250 ok\r\n");
          if (!chunking) peer.Server("354 go\r\n");
          peer.Server("250 e has it\r\n");
          EXPECT_EQ(peer.Results(), "2:D/dot/250");
        },
        Lmtp());
  }
}

// Who has had a reply keeps it when the connection breaks before the next one's.
TEST(SmtpClientLmtp, BreaksBetweenReplies) {
  Dialogue(
      [](Peer& peer) {
        peer.Server("220 lmtp\r\n250-x\r\n250 PIPELINING\r\n");
        peer.Begin(1, {"a@y", "b@y", "c@y"});
        peer.Server("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 a has it\r\n");
        peer.session.OnDisconnect("gone");
        EXPECT_EQ(peer.Results(), "1:D/dot/250 1:T/dot/0 1:T/dot/0");
      },
      Lmtp());
}

TEST(SmtpClientLmtp, NoHelo) {
  Dialogue(
      [](Peer& peer) {
        peer.Server("220 lmtp\r\n502 what\r\n");
        EXPECT_EQ(peer.Wrote(), "LHLO localhost\r\n");
        EXPECT_EQ(peer.ends, 1);
      },
      Lmtp());
}

// A message whose transfer broke off: deferred, or bounced where it is said so.
TEST(SmtpClientBreak, BounceUponTransferFailure) {
  const auto run = [](bool always, bool pix, bool masked, const char* step) {
    SmtpClientOptions options;
    options.bounce_upon_transfer_failure = always;
    options.bounce_upon_pix_transfer_failure = pix;
    std::string results;
    Dialogue(
        [&](Peer& peer) {
          peer.Server(masked ? "220 ****************\r\n" : "220 mx\r\n");
          peer.Server("250-mx\r\n250 PIPELINING\r\n");
          peer.send_body = std::string_view(step) != "body";
          peer.Begin(1, {"a@y"});
          peer.Server("250 ok\r\n250 ok\r\n");
          if (std::string_view(step) != "rcpt") peer.Server("354 go\r\n");
          peer.session.OnDisconnect("gone");
          results = peer.Results();
        },
        options);
    return results;
  };
  EXPECT_EQ(run(false, false, true, "dot"), "1:T/dot/0");
  EXPECT_EQ(run(true, false, false, "dot"), "1:P/dot/0");
  EXPECT_EQ(run(true, false, false, "body"), "1:P/body/0");
  EXPECT_EQ(run(true, false, false, "rcpt"), "1:T/data/0") << "no byte of it had left";
  EXPECT_EQ(run(false, true, false, "dot"), "1:T/dot/0");
  EXPECT_EQ(run(false, true, true, "dot"), "1:P/dot/0");
  // Our own doing is no failure of the transfer.
  SmtpClientOptions options;
  options.bounce_upon_transfer_failure = true;
  Peer peer(0, options);
  peer.Server("220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
  peer.send_body = false;
  peer.Begin(1, {"a@y"});
  peer.Server("250 ok\r\n250 ok\r\n354 go\r\n");
  peer.session.AbortBody("no body");
  EXPECT_EQ(peer.Results(), "1:T/body/0");
}

TEST(SmtpClientBreak, AssumeDelivery) {
  for (const bool assume : {true, false}) {
    SmtpClientOptions options;
    options.assume_delivery_upon_final_timeout = assume;
    Dialogue(
        [assume](Peer& peer) {
          peer.Server("220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
          peer.Begin(1, {"a@y", "b@y"});
          peer.Begin(2, {"c@y"});
          peer.Server("250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n");
          peer.session.OnTimeout();
          EXPECT_EQ(peer.Results(), assume ? "1:D/dot/0 1:P/rcpt/550 2:T/mail/0"
                                           : "1:T/dot/0 1:P/rcpt/550 2:T/mail/0");
          EXPECT_EQ(peer.ends, 1);
        },
        options);
  }
}

TEST(SmtpClientTimeouts, EachStageHasItsOwn) {
  using std::chrono::seconds;
  SmtpClientOptions options;
  options.greeting_timeout = seconds(1);
  options.command_timeout = seconds(2);
  options.mail_timeout = seconds(3);
  options.rcpt_timeout = seconds(4);
  options.data_initiation_timeout = seconds(5);
  options.data_timeout = seconds(6);
  options.final_timeout = seconds(7);
  Peer peer(0, options);
  peer.send_body = false;
  EXPECT_EQ(peer.session.timeout(), seconds(1));
  peer.Server("220 mx\r\n");
  EXPECT_EQ(peer.session.timeout(), seconds(2));
  peer.Server("250-mx\r\n250 PIPELINING\r\n");
  peer.Begin(1, {"a@y"});
  EXPECT_EQ(peer.session.timeout(), seconds(3));
  peer.Server("250 ok\r\n");
  EXPECT_EQ(peer.session.timeout(), seconds(4));
  peer.Server("250 ok\r\n");
  EXPECT_EQ(peer.session.timeout(), seconds(5));
  peer.Server("354 go\r\n");
  EXPECT_EQ(peer.session.timeout(), seconds(6));
  peer.SendBody();
  EXPECT_EQ(peer.session.timeout(), seconds(7));
  peer.Server("250 ok\r\n");
  peer.session.Quit();
  EXPECT_EQ(peer.session.timeout(), seconds(2));
  // 0: as any command.
  Peer plain(0);
  plain.Server("220 mx\r\n250-mx\r\n250 PIPELINING\r\n");
  plain.Begin(1, {"a@y"});
  EXPECT_EQ(plain.session.timeout(), SmtpClientOptions().command_timeout);
}

// One that comes when all is over is told so, and nothing else happens.
TEST(SmtpClientSession, BeginAfterTheEnd) {
  Peer peer(0);
  peer.Server("220 mx\r\n250 mx\r\n421 bye\r\n");
  ASSERT_EQ(peer.ends, 1);
  peer.Wrote();
  peer.Begin(7, {"a@y", "b@y"});
  EXPECT_EQ(peer.Results(), "7:N/mail/0 7:N/mail/0");
  EXPECT_EQ(peer.Wrote(), "");
  EXPECT_EQ(peer.ends, 1);
}

}  // namespace
}  // namespace sluice::mail
