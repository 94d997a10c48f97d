// The generator sends exactly what it was asked for, in every mode, and accounts for each message
// whatever the receiver does. The receiver is the sink.
#include "tests/bench/loadgen/smtp_load.h"

#include <gtest/gtest.h>

#include <map>

#include "tools/sink/sink.h"

namespace sluice::bench {
namespace {

struct Harness {
  explicit Harness(bool tls = false) : state(loop.clock(), 5) {
    sink::SinkOptions options;
    if (tls) {
      options.tls_certificate = "self-signed";
      options.listen_tls = {*Endpoint::Parse("127.0.0.1:0")};
    }
    options.listen = {*Endpoint::Parse("127.0.0.1:0"), *Endpoint::Parse("127.0.0.2:0")};
    auto opened = sink::Sink::Open(loop, state, options);
    EXPECT_TRUE(opened.ok());
    sink = std::move(*opened);
    smtp.targets = sink->smtp_addresses();
    smtp.sessions = 7;
    load.messages = 500;
    load.size_bytes = 2000;
  }

  LoadResult Run() {
    SmtpLoad run(loop, load, smtp, [this] { loop.Stop(); });
    TimerId limit = loop.After(std::chrono::seconds(20), [this] {
      ADD_FAILURE() << "the load did not end";
      loop.Stop();
    });
    run.Start();
    loop.Run();
    loop.Cancel(limit);
    return run.result();
  }

  EventLoop loop;
  sink::SinkState state;
  std::unique_ptr<sink::Sink> sink;
  LoadOptions load;
  SmtpLoadOptions smtp;
};

TEST(SmtpLoad, EveryModeSendsEveryMessageInItsSize) {
  for (bool pipelining : {false, true}) {
    for (uint64_t per_connection : {0, 1, 3}) {
      Harness h;
      h.smtp.pipelining = pipelining;
      h.smtp.messages_per_connection = per_connection;
      h.load.recipients = 3;
      LoadResult result = h.Run();
      EXPECT_EQ(result.accepted, 500u);
      EXPECT_EQ(result.latency.count(), 500u);
      const sink::Counters& counters = h.state.counters();
      EXPECT_EQ(counters.messages, 500u);
      EXPECT_EQ(counters.recipients, 1500u);
      EXPECT_EQ(counters.bytes, 500u * 2000u);
      EXPECT_EQ(counters.latency.count(), 500u);
      EXPECT_EQ(counters.protocol_errors, 0u);
      uint64_t least = per_connection == 0 ? 7 : 500 / per_connection;
      EXPECT_GE(counters.connections, least);
      EXPECT_LE(counters.connections, least + 7);
    }
  }
}

TEST(SmtpLoad, EncryptsByStartTlsAndFromTheFirstByteWithAndWithoutResumption) {
  using Tls = SmtpLoadOptions::Tls;
  for (const Tls tls : {Tls::kStartTls, Tls::kImmediate}) {
    for (const bool resumption : {false, true}) {
      Harness h(true);
      h.smtp.tls = tls;
      h.smtp.tls_resumption = resumption;
      h.smtp.messages_per_connection = 10;
      if (tls == Tls::kImmediate) h.smtp.targets = h.sink->tls_addresses();
      const LoadResult result = h.Run();
      EXPECT_EQ(result.accepted, 500u);
      EXPECT_GE(result.tls_handshakes, 50u);
      EXPECT_EQ(result.tls_resumed > 0, resumption);
      EXPECT_EQ(h.state.counters().tls_resumed, result.tls_resumed);
      EXPECT_EQ(h.state.counters().tls_failed, 0u);
      EXPECT_EQ(h.state.counters().protocol_errors, 0u);
    }
  }
}

TEST(SmtpLoad, MessagesBeginBehindTheIdleSessions) {
  for (const bool tls : {false, true}) {
    Harness h(tls);
    if (tls) h.smtp.tls = SmtpLoadOptions::Tls::kStartTls;
    h.smtp.idle_sessions = 250;
    const LoadResult result = h.Run();
    EXPECT_EQ(result.accepted, 500u);
    EXPECT_EQ(result.connections, 257u);
    EXPECT_EQ(h.state.counters().open_peak, 257u);
  }
}

TEST(SmtpLoad, FailuresOfAllKindsHaveTheirCount) {
  for (bool pipelining : {false, true}) {
    Harness h;
    h.smtp.pipelining = pipelining;
    ASSERT_TRUE(h.state.rules()
                    .AddAll("d1.test defer=1\nd2.test reject=1 fail-at=dot\nd3.test close=dot\n"
                            "d4.test reject=1 fail-at=data\n")
                    .ok());
    h.load.domains = 5;
    LoadResult result = h.Run();
    EXPECT_EQ(result.finished(), 500u);
    EXPECT_EQ(result.accepted, h.state.counters().messages);
    EXPECT_EQ(result.deferred, h.state.Domain("d1.test")->deferred);
    EXPECT_GE(result.deferred, 50u);
    EXPECT_GE(result.rejected, 100u);
    EXPECT_GE(result.lost, 50u);
    EXPECT_GE(result.accepted, 50u);
    EXPECT_EQ(h.state.counters().protocol_errors, 0u);
  }
}

TEST(SmtpLoad, ARateIsNotExceeded) {
  Harness h;
  h.load.messages = 100;
  h.load.rate = 1000;
  LoadResult result = h.Run();
  EXPECT_EQ(result.accepted, 100u);
  EXPECT_GE(result.elapsed, std::chrono::milliseconds(98));
}

TEST(SmtpLoad, NobodyThereEndsInAnError) {
  Harness h;
  h.sink.reset();
  h.smtp.connect_errors_max = 20;
  LoadResult result = h.Run();
  EXPECT_EQ(result.accepted, 0u);
  EXPECT_EQ(result.connect_errors, 21u);
}

TEST(DomainPicker, ZipfFavoursTheFirst) {
  LoadOptions options;
  options.domains = 1000;
  options.zipf = 1;
  DomainPicker picker(options);
  std::map<std::string, int> seen;
  for (int i = 0; i < 100'000; ++i) ++seen[picker.Next()];
  // The harmonic number of 1000 is 7.485.
  EXPECT_NEAR(seen["d1.test"], 100'000 / 7.485, 600);
  EXPECT_NEAR(seen["d10.test"], 10'000 / 7.485, 200);
  EXPECT_GT(seen.size(), 900u);
}

TEST(MessageMaker, MessagesHaveTheSizeAskedForAndNoLineStartsWithADot) {
  for (size_t size : {1024, 10'240, 102'400, 1'000'003}) {
    LoadOptions options;
    options.size_bytes = size;
    options.headers = {"X-Job: j1"};
    MessageMaker maker(options);
    std::string text = maker.Header(123, WallTime(Duration(1'700'000'000'000'000))) +
                       std::string(maker.body().view());
    EXPECT_EQ(text.size(), size);
    EXPECT_NE(text.find("\r\nX-Job: j1\r\n"), text.npos);
    EXPECT_EQ(text.find("\n."), text.npos);
    EXPECT_TRUE(text.ends_with("\r\n"));
  }
}

}  // namespace
}  // namespace sluice::bench
