// The owner's side of an SmtpServerSession for tests: a handler that takes everything, counts what
// it is asked and answers otherwise where the test says so, and a client's way to speak to it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {

// Thread-safety: none.
class FakeServerHandler : public SmtpServerHandler {
 public:
  void OnHello(std::string_view name, bool) override { hello = name; }
  std::optional<ServerReply> OnMail(const MailCommand& mail) override {
    ++mails;
    last_mail = mail;
    return ServerReply{250, {2, 1, 0}, "OK"};
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand& rcpt) override {
    ++rcpts;
    last_rcpt = rcpt.to;
    return ServerReply{250, {2, 1, 5}, "OK"};
  }
  std::optional<ServerReply> OnData() override { return ServerReply{354, {}, "go"}; }
  void OnBody(std::string_view text) override {
    body += text;
    if (pauses != nullptr) pauses->PauseBody();
  }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts&) override {
    ++messages;
    return end;
  }
  void OnReset() override { ++resets; }
  std::string AuthMechanisms() override { return mechanisms; }
  std::optional<ServerReply> OnAuth(std::string_view mechanism,
                                    std::optional<std::string_view> initial) override {
    ++auths;
    if (auth) return auth(mechanism, initial);
    return ServerReply{235, {2, 7, 0}, "in"};
  }
  void OnAuthCancel() override { ++cancels; }
  void OnFault(ClientFault fault) override { faults.push_back(fault); }
  bool OffersMailMerge() override { return merges; }
  void OnTrace(SmtpTrace kind, std::string_view text) override {
    trace += (kind == SmtpTrace::kCommand ? "C: " : "S: ") + std::string(text) + "\n";
  }
  void OnStartTls(size_t bytes) override {
    ++starttls;
    discarded += bytes;
  }

  // ---- What it does
  std::optional<ServerReply> end = ServerReply{250, {2, 0, 0}, "queued"};  // none: OnVerdict's
  SmtpServerSession* pauses = nullptr;                                     // after each slice
  std::string mechanisms;
  absl::AnyInvocable<std::optional<ServerReply>(std::string_view, std::optional<std::string_view>)>
      auth;
  bool merges = false;

  // ---- What it saw
  std::string hello;
  MailCommand last_mail;
  std::string last_rcpt;
  std::string body;
  std::string trace;
  int mails = 0, rcpts = 0, messages = 0, resets = 0;
  int auths = 0, cancels = 0;
  std::vector<ClientFault> faults;
  int starttls = 0;
  size_t discarded = 0;
};

// A session whose client reads at once, and its clock. Thread-safety: none.
struct SmtpServerSide {
  // All that waits for the client.
  std::string Take() {
    std::string text(session.output());
    session.Sent(now, text.size());
    return text;
  }
  // In pieces of `step`, as long as the session reads and is in no handshake: the answers.
  std::string Say(std::string_view text, size_t step = SIZE_MAX) {
    while (!text.empty() && session.wants_read() && !session.tls_handshake()) {
      const std::string_view piece = text.substr(0, step);
      text.remove_prefix(piece.size());
      session.OnBytes(now, piece);
    }
    return Take();
  }

  MonotonicTime now{std::chrono::seconds(1000)};
  SmtpServerOptions options;
  FakeServerHandler handler;
  SmtpServerSession session{handler, options};
};

}  // namespace sluice::mail
