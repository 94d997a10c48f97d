// The remote and the owner of an SMTP client session, for its tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::mail::testing {

// The remote, and the owner of the session: sends the body when it is wanted.
class Peer : public SmtpClientHandler {
 public:
  // The server's bytes are cut after each `step`; 0: not at all.
  explicit Peer(size_t step, SmtpClientOptions options = {})
      : session(*this, options), step_(step) {}

  void Server(std::string_view text) {
    const size_t step = step_ == 0 ? text.size() : step_;
    for (; !text.empty(); text.remove_prefix(std::min(step, text.size()))) {
      session.OnBytes(text.substr(0, step));
    }
  }
  void Begin(uint64_t id, std::vector<std::string> recipients) {
    ClientTransaction transaction;
    transaction.id = id;
    transaction.mail_from = "s@x";
    transaction.recipients = std::move(recipients);
    session.Begin(std::move(transaction));
  }
  // What the session wrote since the last call.
  std::string Wrote() { return std::exchange(output, {}); }
  // "1:D/dot/250 1:P/rcpt/550" and so on, since the last call.
  std::string Results() { return std::exchange(results, {}); }

  void OnOutput(std::string_view text) override { output += text; }
  void OnReady() override { ++ready; }
  void OnWantBody(uint64_t id) override {
    wanted = id;
    if (send_body) SendBody();
  }
  bool SendBody() {
    return session.SendBody(body, true, [this](std::string_view text) { output += text; });
  }
  bool MayFinish(uint64_t) override { return may_finish; }
  void OnResult(uint64_t id, std::vector<RecipientVerdict> recipients) override {
    static constexpr const char* kStages[] = {"hi",   "ehlo", "mail", "rcpt", "data",
                                              "body", "dot",  "auth", "tls"};
    for (const RecipientVerdict& each : recipients) {
      absl::StrAppend(&results, results.empty() ? "" : " ", id, ":",
                      std::string(1, "DTPN"[static_cast<size_t>(each.verdict)]), "/",
                      kStages[static_cast<size_t>(each.stage)], "/", each.reply.code);
      last_text = each.reply.text;
    }
  }
  void OnEnd(const RecipientVerdict& last) override {
    ++ends;
    end = last;
  }

  std::string body = "a\r\n.b\r\n";
  std::string output, results, last_text;
  int ready = 0, ends = 0;
  uint64_t wanted = 0;
  bool send_body = true, may_finish = true;
  RecipientVerdict end;
  SmtpClientSession session;

 private:
  const size_t step_;
};

// Every dialogue with the server's bytes all at once, byte by byte, and in other small pieces.
inline void Dialogue(const std::function<void(Peer&)>& run, const SmtpClientOptions& options = {}) {
  for (size_t step : {0, 1, 2, 3, 5, 7}) {
    SCOPED_TRACE(::testing::Message() << "pieces of " << step);
    Peer peer(step, options);
    run(peer);
    EXPECT_LE(peer.ends, 1);
  }
}

}  // namespace sluice::mail::testing
