// TcpConnection with TLS over a pair of real sockets: from clear to encrypted, back-pressure, ends
// in order and otherwise.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <fstream>
#include <functional>

#include "services/base/net/tcp_connection.h"
#include "services/base/net/tls_client_context.h"
#include "services/base/net/tls_self_signed.h"
#include "services/base/net/tls_server_context.h"
#include "services/base/testing/temp_folder.h"

namespace sluice {
namespace {

struct Recorder final : TcpHandler {
  void OnBytes(std::string_view bytes) override {
    received += bytes;
    ++reads;
    if (on_bytes) on_bytes();
  }
  void OnWritable() override { ++writable; }
  void OnTlsReady() override {
    ++ready;
    if (on_ready) on_ready();
  }
  bool OnPeerFinished() override {
    finished = true;
    return keep;
  }
  void OnClosed(const absl::Status& status) override {
    ++closed;
    close_status = status;
  }

  std::string received;
  std::function<void()> on_bytes;
  std::function<void()> on_ready;
  bool keep = false;
  bool finished = false;
  int reads = 0;
  int ready = 0;
  int writable = 0;
  int closed = 0;
  absl::Status close_status;
};

class TcpTlsTest : public ::testing::Test {
 protected:
  TcpTlsTest() {
    std::ofstream(path_) << ToPem(MakeCertificate({.names = {"mx.test"}}));
    server_context_ = *TlsServerContext::Load({.certificates = {{path_, ""}}}, Clock::Real());
    client_context_ = *TlsClientContext::Load({});
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    const TcpConnectionOptions options{.output_high_bytes = 64 * 1024,
                                       .output_low_bytes = 16 * 1024};
    server_ = std::make_unique<TcpConnection>(loop_, UniqueFd(fds[0]), options);
    client_ = std::make_unique<TcpConnection>(loop_, UniqueFd(fds[1]), options);
    server_->Start(&at_server_);
    client_->Start(&at_client_);
  }

  bool RunUntil(const std::function<bool()>& done) {
    const MonotonicTime end = loop_.clock().Now() + std::chrono::seconds(10);
    while (!done()) {
      if (loop_.clock().Now() > end) return false;
      loop_.RunOnce(std::chrono::milliseconds(50));
    }
    return true;
  }
  void StartBoth() {
    server_->StartTls(server_context_->NewSession());
    client_->StartTls(client_context_->NewSession({}));
  }

  EventLoop loop_;
  const testing::TempFolder temp_{"tcp-tls"};
  const std::string path_ = temp_.File("server.pem");
  std::unique_ptr<TlsServerContext> server_context_;
  std::unique_ptr<TlsClientContext> client_context_;
  Recorder at_server_;
  Recorder at_client_;
  std::unique_ptr<TcpConnection> server_;
  std::unique_ptr<TcpConnection> client_;
};

TEST_F(TcpTlsTest, WhatWasWrittenBeforeLeavesInClear) {
  at_client_.on_bytes = [&] {
    if (at_client_.received == "220 go\r\n") {
      client_->StartTls(client_context_->NewSession({}));
      client_->Write("EHLO x\r\n");  // waits for the handshake
    }
  };
  server_->Write("220 go\r\n");
  server_->StartTls(server_context_->NewSession());
  server_->Write("250 secret\r\n");
  ASSERT_TRUE(RunUntil([&] { return !at_server_.received.empty(); }));
  ASSERT_TRUE(RunUntil([&] { return at_client_.received.size() > 8; }));
  EXPECT_EQ(at_server_.received, "EHLO x\r\n");
  EXPECT_EQ(at_client_.received, "220 go\r\n250 secret\r\n");
  EXPECT_EQ(at_server_.ready, 1);
  EXPECT_EQ(at_client_.ready, 1);
  EXPECT_EQ(client_->tls()->facts().version, "TLSv1.3");
}

TEST_F(TcpTlsTest, BodiesAndTextKeepTheirOrderUnderBackPressure) {
  StartBoth();
  server_->PauseReading();
  server_->ResumeReading();
  ASSERT_TRUE(RunUntil([&] { return at_server_.ready == 1 && at_client_.ready == 1; }));
  std::string expected;
  server_->PauseReading();
  for (int i = 0; i < 200; ++i) {
    const std::string text = "MAIL " + std::to_string(i) + "\r\n";
    const std::string body(static_cast<size_t>(1 + i * 197), static_cast<char>('a' + i % 26));
    client_->Write(text);
    client_->Write(Body(std::string(body)));
    expected += text + body;
  }
  EXPECT_TRUE(client_->congested());
  for (int i = 0; i < 10; ++i) loop_.RunOnce(Duration(0));
  EXPECT_EQ(at_server_.received, "");
  EXPECT_EQ(at_client_.writable, 0);
  server_->ResumeReading();
  ASSERT_TRUE(RunUntil([&] { return at_server_.received.size() == expected.size(); }));
  EXPECT_EQ(at_server_.received, expected);
  ASSERT_TRUE(RunUntil([&] { return at_client_.writable == 1; }));
  EXPECT_EQ(client_->unsent_bytes(), 0u);
}

TEST_F(TcpTlsTest, ClosesInOrder) {
  StartBoth();
  client_->Write("QUIT\r\n");
  ASSERT_TRUE(RunUntil([&] { return !at_server_.received.empty(); }));
  server_->Write("221 bye\r\n");
  server_->CloseAfterFlush();
  ASSERT_TRUE(RunUntil([&] { return at_client_.closed == 1 && at_server_.closed == 1; }));
  EXPECT_EQ(at_client_.received, "221 bye\r\n");
  EXPECT_TRUE(at_client_.close_status.ok());
  EXPECT_TRUE(at_server_.close_status.ok());
}

TEST_F(TcpTlsTest, APeerThatHasClosedItsHalfStillGetsAnswers) {
  StartBoth();
  at_server_.keep = true;
  at_client_.keep = true;
  client_->Write("DATA");
  client_->ShutdownWrite();
  ASSERT_TRUE(RunUntil([&] { return at_server_.finished; }));
  EXPECT_EQ(at_server_.received, "DATA");
  server_->Write("250 kept\r\n");
  server_->CloseAfterFlush();
  ASSERT_TRUE(RunUntil([&] { return at_client_.finished; }));
  EXPECT_EQ(at_client_.received, "250 kept\r\n");
}

TEST_F(TcpTlsTest, ARefusedHandshakeTellsBothWhy) {
  server_->StartTls(server_context_->NewSession());
  client_->StartTls(
      client_context_->NewSession({.verify = TlsSession::Verify::kRequired, .names = {"mx.test"}}));
  client_->Write("secret");
  ASSERT_TRUE(RunUntil([&] { return at_client_.closed == 1 && at_server_.closed == 1; }));
  EXPECT_EQ(at_client_.close_status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(at_server_.close_status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(at_server_.received, "");
  EXPECT_EQ(at_client_.ready, 0);
}

TEST_F(TcpTlsTest, PlainTextInsteadOfAHandshakeEndsIt) {
  server_->StartTls(server_context_->NewSession());
  client_->Write("EHLO x\r\nMAIL FROM:<a@b.test>\r\n");
  ASSERT_TRUE(RunUntil([&] { return at_server_.closed == 1; }));
  EXPECT_EQ(at_server_.close_status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(at_server_.received, "");
}

TEST_F(TcpTlsTest, APeerThatLeavesInTheHandshake) {
  server_->StartTls(server_context_->NewSession());
  client_->Close();
  ASSERT_TRUE(RunUntil([&] { return at_server_.closed == 1; }));
  EXPECT_EQ(at_server_.close_status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(TcpTlsTest, ClosingInTheHandshakeDropsWhatWaits) {
  server_->StartTls(server_context_->NewSession());
  server_->Write("250 never\r\n");
  server_->CloseAfterFlush();
  ASSERT_TRUE(RunUntil([&] { return at_server_.closed == 1; }));
  ASSERT_TRUE(RunUntil([&] { return at_client_.closed == 1; }));
  EXPECT_EQ(at_client_.received, "");
}

TEST_F(TcpTlsTest, MayBeDestroyedInItsCallbacks) {
  at_server_.on_ready = [&] { server_.reset(); };
  at_client_.on_bytes = [&] { client_.reset(); };
  StartBoth();
  ASSERT_TRUE(RunUntil([&] { return server_ == nullptr; }));
  ASSERT_TRUE(RunUntil([&] { return at_client_.closed == 1; }));
}

}  // namespace
}  // namespace sluice
