// Any bytes of a client: replies are well-formed lines, the handler's order of calls holds, memory
// stays bounded, and the outcome depends neither on how the bytes are cut nor on when answers come.
// Bytes 0x1D part the wire into layers. Where a handshake begins, the rest of its layer is what
// came in clear behind STARTTLS, and the next layer is what TLS brings; in any other place the
// layers follow one another.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "services/base/check.h"
#include "services/mail/smtp_server_session.h"

namespace {

using namespace sluice;        // NOLINT: a fuzzer is its own program
using namespace sluice::mail;  // NOLINT

constexpr char kLayer = '\x1d';
constexpr size_t kSmallChunk = 37;

class Handler : public SmtpServerHandler {
 public:
  explicit Handler(bool later) : later_(later) {}
  void OnHello(std::string_view name, bool) override {
    SLUICE_CHECK(state_ == State::kIdle);
    log += "hello " + std::string(name) + "\n";
  }
  std::optional<ServerReply> OnMail(const MailCommand& mail) override {
    SLUICE_CHECK(state_ == State::kIdle);
    log += "mail " + mail.from + "\n";
    state_ = State::kMail;
    if (mail.from.starts_with("r")) {
      state_ = State::kIdle;
      return Give({550, {5, 7, 1}, mail.from});
    }
    return Give({250, {2, 1, 0}, "OK " + mail.from});
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand& rcpt) override {
    SLUICE_CHECK(state_ == State::kMail || state_ == State::kRcpt);
    log += "rcpt " + rcpt.to + "\n";
    if (rcpt.merge != nullptr) {
      for (const auto& [name, value] : rcpt.merge->variables) log += name + "=" + value + "\n";
    }
    if (rcpt.to.starts_with("r")) return Give({550, {5, 1, 1}, rcpt.to});
    state_ = State::kRcpt;
    return Give({250, {2, 1, 5}, "OK " + rcpt.to});
  }
  std::optional<ServerReply> OnData() override {
    SLUICE_CHECK(state_ == State::kRcpt);
    state_ = State::kData;
    return Give({354, {}, "go"});
  }
  void OnBody(std::string_view text) override {
    SLUICE_CHECK(state_ == State::kData && !text.empty());
    body_ += text;
    // No room for more, until the next Drain.
    if (later_ && !paused) {
      paused = true;
      session->PauseBody();
    }
  }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts& facts) override {
    SLUICE_CHECK(state_ == State::kData && facts.size == body_.size());
    SLUICE_CHECK(facts.header_size <= facts.size);
    log += "message " + body_ + "\n";
    body_.clear();
    state_ = State::kIdle;
    return Give({250, {2, 0, 0}, "queued"});
  }
  void OnReset() override {
    log += "reset\n";
    state_ = State::kIdle;
    body_.clear();
    held_.reset();
  }
  bool OffersMailMerge() override { return true; }
  void OnPartEnd(uint32_t number) override {
    SLUICE_CHECK(state_ == State::kData);
    log += "part " + std::to_string(number) + "\n";
  }
  bool OffersXclient() override { return true; }
  ServerReply OnXclient(const XclientCommand& xclient) override {
    SLUICE_CHECK(state_ == State::kIdle);
    log += "xclient " + xclient.address.value_or("") + "\n";
    return {220, {}, ""};
  }
  std::string AuthMechanisms() override { return "PLAIN"; }
  std::optional<ServerReply> OnAuth(std::string_view mechanism,
                                    std::optional<std::string_view> initial) override {
    SLUICE_CHECK(state_ == State::kIdle);
    log += "auth " + std::string(mechanism) + "\n";
    state_ = State::kAuth;
    return initial ? OnAuthResponse(*initial) : Give({334, {}, "who"});
  }
  std::optional<ServerReply> OnAuthResponse(std::string_view response) override {
    SLUICE_CHECK(state_ == State::kAuth);
    log += "response " + std::string(response) + "\n";
    if (response == "m") return Give({334, {}, "more"});
    state_ = State::kIdle;
    if (response == "o") return Give({235, {2, 7, 0}, "in"});
    return Give({535, {5, 7, 8}, "no", std::chrono::seconds(2)});
  }
  void OnAuthCancel() override {
    log += "cancel\n";
    state_ = State::kIdle;
    held_.reset();
  }
  void OnTrace(SmtpTrace kind, std::string_view text) override {
    SLUICE_CHECK(kind == SmtpTrace::kReply || state_ != State::kAuth ||
                 text == "(response hidden)");
  }
  void OnStartTls(size_t) override {
    SLUICE_CHECK(state_ == State::kIdle);
    log += "starttls\n";
  }
  std::optional<ServerReply> TakeHeld() { return std::exchange(held_, std::nullopt); }

  std::string log;
  SmtpServerSession* session = nullptr;
  bool paused = false;

 private:
  enum class State { kIdle, kMail, kRcpt, kData, kAuth };
  std::optional<ServerReply> Give(ServerReply reply) {
    if (!later_) return reply;
    SLUICE_CHECK(!held_);
    held_ = std::move(reply);
    return std::nullopt;
  }
  bool later_;
  State state_ = State::kIdle;
  std::string body_;
  std::optional<ServerReply> held_;
};

std::pair<std::string, std::string> Run(std::string_view wire, size_t chunk, bool later,
                                        bool lenient) {
  SmtpServerOptions options;
  options.host_name = "h";
  options.max_message_bytes = 2000;
  options.max_header_bytes = 500;
  options.max_hops = 3;
  options.max_recipients = 3;
  options.max_errors = 5;
  options.max_idle_commands = 30;
  options.max_line_bytes = 300;
  options.extensions.dsn = true;
  options.extensions.auth = true;
  options.extensions.chunking = true;
  options.extensions.binary_mime = true;
  options.extensions.smtp_utf8 = true;
  options.extensions.require_tls = true;
  options.offer_starttls = true;
  options.trace = lenient;
  options.extensions.invalid_recipients = lenient;
  if (lenient) options.extensions.qualify_with = "q.test";
  Handler handler(later);
  SmtpServerSession session(handler, options);
  session.set_tls_available();
  handler.session = &session;
  MonotonicTime now{std::chrono::seconds(5)};
  std::string output;
  auto drain = [&] {
    while (true) {
      output += session.output();
      session.Sent(now, session.output().size());
      if (std::exchange(handler.paused, false)) {
        session.ResumeBody(now);
        continue;
      }
      std::optional<ServerReply> held = handler.TakeHeld();
      if (held) {
        session.OnVerdict(now, *held);
      } else if (!session.closing() && !session.wants_read() && session.deadline()) {
        now = *session.deadline();  // an answer is held back
        session.OnTimer(now);
      } else {
        break;
      }
    }
  };
  session.Start(now);
  drain();
  while (!wire.empty() && session.wants_read()) {
    const size_t end = std::min(wire.find(kLayer), wire.size());
    std::string_view layer = wire.substr(0, end);
    wire.remove_prefix(std::min(end + 1, wire.size()));
    while (!layer.empty() && session.wants_read() && !session.tls_handshake()) {
      session.OnBytes(now, layer.substr(0, chunk));
      layer.remove_prefix(std::min(chunk, layer.size()));
      drain();
      // What comes at once may be answered at once, up to the bound; a string doubles.
      const size_t answers = chunk > kSmallChunk ? 2 * kOutputHighWaterBytes : 0;
      SLUICE_CHECK(session.buffered_bytes() <= 4096 + 2 * chunk + answers);
    }
    if (!session.tls_handshake()) continue;
    SLUICE_CHECK(!session.secured());
    if (wire.empty()) break;
    session.OnTlsReady(now);
    SLUICE_CHECK(session.secured() && session.output().empty());
  }
  if (!session.closing()) session.OnEof(now);
  drain();
  SLUICE_CHECK(session.closing());
  return {std::move(output), std::move(handler.log)};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 8000) return 0;
  const size_t chunk = data[0] % kSmallChunk + 1;
  const bool lenient = data[0] >= 128;
  const std::string_view wire(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto whole = Run(wire, wire.size() + 1, false, lenient);
  // One of the other ways: together they would cost three times as many inputs.
  const bool later = size % 3 != 0;
  SLUICE_CHECK(whole == Run(wire, size % 3 == 2 ? wire.size() + 1 : chunk, later, lenient));
  const std::string& output = whole.first;
  for (size_t at = 0; at < output.size();) {
    const size_t end = output.find("\r\n", at);
    SLUICE_CHECK(end != std::string::npos && end - at <= 510);
    for (size_t i = at; i < end; ++i) SLUICE_CHECK(output[i] >= ' ' && output[i] <= '~');
    SLUICE_CHECK(output[at] >= '2' && output[at] <= '5');
    SLUICE_CHECK(output[at + 3] == ' ' || output[at + 3] == '-');
    at = end + 2;
  }
  return 0;
}
