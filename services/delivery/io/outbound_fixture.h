// Mail over loopback sockets, for tests of outbound connections: a server that answers by rule.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/base/net/listener.h"
#include "services/base/net/tcp_connection.h"
#include "services/delivery/io/outbound_connection.h"

namespace sluice::delivery::testing {

// One peer, one connection at a time. A line is answered with 250 unless `answers` has its
// beginning.
class ScriptedServer final : private TcpHandler {
 public:
  explicit ScriptedServer(EventLoop& loop) : loop_(loop) {
    ListenerOptions options;
    options.addresses = {*Endpoint::Parse("127.0.0.1:0")};
    listener_ =
        *Listener::Open(loop, options, [this](UniqueFd fd, const Endpoint&, const Endpoint& peer) {
          seen_peer = peer.ip.ToString();
          tcp_.emplace(loop_, std::move(fd));
          tcp_->Start(this);
          input_.clear();
          searched_ = 0;
          in_data_ = false;
          if (greeting.empty()) {
            tcp_->CloseAfterFlush();
          } else {
            tcp_->Write(greeting);
          }
        });
  }

  uint16_t port() const { return listener_->addresses()[0].port; }
  void Say(std::string_view text) { tcp_->Write(text); }
  bool connected() const { return tcp_.has_value(); }
  void PauseReading() { tcp_->PauseReading(); }
  void ResumeReading() { tcp_->ResumeReading(); }

  std::string greeting = "220 mx.example\r\n";
  // An empty answer: close the connection. "-": say nothing.
  std::map<std::string, std::string> answers = {
      {"EHLO", "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250 8BITMIME\r\n"},
      {"DATA", "354 go ahead\r\n"},
      {"QUIT", "221 bye\r\n"}};
  bool pause_at_data = false;
  std::vector<std::string> commands;
  std::vector<std::string> messages;  // as they came, without the final dot
  std::string seen_peer;
  bool peer_closed = false;

 private:
  void OnBytes(std::string_view bytes) override {
    input_ += bytes;
    while (tcp_->is_open()) {
      const std::string end = in_data_ ? "\r\n.\r\n" : "\r\n";
      const size_t found = input_.find(end, in_data_ ? searched_ : 0);
      if (found == std::string::npos) {
        searched_ = input_.size() < 5 ? 0 : input_.size() - 5;
        return;
      }
      std::string line = input_.substr(0, found);
      input_.erase(0, found + end.size());
      searched_ = 0;
      if (in_data_) messages.push_back(line + "\r\n");
      Answer(in_data_ ? "." : line);
    }
  }
  void Answer(const std::string& line) {
    commands.push_back(line);
    in_data_ = false;
    std::string answer = "250 2.0.0 ok\r\n";
    for (const auto& [begin, text] : answers) {
      if (line.starts_with(begin)) answer = text;
    }
    if (answer == "-") return;
    if (answer.empty()) {
      tcp_->Close();
      return;
    }
    in_data_ = line == "DATA" && answer.starts_with("354");
    tcp_->Write(answer);
    if (in_data_ && pause_at_data) tcp_->PauseReading();
  }
  void OnClosed(const absl::Status&) override { peer_closed = true; }

  EventLoop& loop_;
  std::unique_ptr<Listener> listener_;
  std::optional<TcpConnection> tcp_;
  std::string input_;
  size_t searched_ = 0;
  bool in_data_ = false;
};

class Recorder final : public ConnectionHandler {
 public:
  void OnReady() override {
    ready = true;
    if (on_ready) on_ready();
  }
  void OnResult(queue::v1::GroupResult result) override { results.push_back(std::move(result)); }
  bool MayFinish(uint64_t lease_id) override { return lease_id != denied; }
  void OnClosed(ConnectionEnd given) override {
    end = std::move(given);
    if (on_closed) on_closed();
  }
  void OnTrace(bool reply, std::string_view text) override {
    trace.append(reply ? "S: " : "C: ").append(text).append("\n");
  }

  bool ready = false;
  std::string trace;
  uint64_t denied = 0;
  std::function<void()> on_ready;
  std::function<void()> on_closed;
  std::vector<queue::v1::GroupResult> results;
  std::optional<ConnectionEnd> end;
};

class OutboundFixture : public ::testing::Test {
 protected:
  OutboundFixture() : settings_(std::make_shared<policy::v1::QueueSettings>()) {
    settings_->set_connect_timeout_us(5'000'000);
    settings_->set_smtp_greeting_timeout_us(5'000'000);
    settings_->set_smtp_command_reply_timeout_us(5'000'000);
    settings_->set_data_send_timeout_us(5'000'000);
    settings_->set_smtp_data_termination_timeout_us(5'000'000);
    recorder_.on_closed = [this] { connection_.reset(); };
  }

  void Connect(std::string source = "127.0.0.2") {
    ConnectTarget target;
    target.address = "127.0.0.1";
    target.port = server_.port();
    target.host = "mx.example";
    target.source_ip = std::move(source);
    target.ehlo_name = "out.example";
    target.settings = settings_;
    connection_ = factory_.Connect(target, &recorder_);
  }
  static Transaction Group(uint64_t id, std::string text, std::vector<std::string> recipients) {
    auto lease = std::make_shared<queue::v1::Lease>();
    lease->set_lease_id(id);
    lease->mutable_message()->set_mail_from("from@example.org");
    lease->mutable_message()->set_body_size(text.size());
    for (std::string& each : recipients) lease->add_deliveries()->set_rcpt(std::move(each));
    return {std::move(lease), Body(std::move(text)), nullptr};
  }
  // Turns of the loop until `done`; false after ten seconds.
  template <typename Predicate>
  bool Until(Predicate done) {
    const MonotonicTime limit = loop_.clock().Now() + std::chrono::seconds(10);
    while (!done() && loop_.clock().Now() < limit) loop_.RunOnce(std::chrono::milliseconds(20));
    return done();
  }
  bool UntilResults(size_t count) {
    return Until([&] { return recorder_.results.size() >= count; });
  }
  bool UntilClosed() {
    return Until([&] { return recorder_.end.has_value(); });
  }

  EventLoop loop_;
  ScriptedServer server_{loop_};
  OutboundConnections factory_{loop_};
  std::shared_ptr<policy::v1::QueueSettings> settings_;
  Recorder recorder_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace sluice::delivery::testing
