// Any bytes of a server: every transaction gets one verdict for each recipient, in order; mail
// counts as delivered only by a 2xx to its final dot; nothing is written after the end; and none of
// it depends on how the bytes are cut, on when the body comes or on whether it is traced; and no
// command that is traced has a line end or what AUTH says.
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "services/base/check.h"
#include "services/mail/smtp_client_session.h"

namespace {

using namespace sluice;        // NOLINT: a fuzzer is its own program
using namespace sluice::mail;  // NOLINT

constexpr uint64_t kTransactions = 5;

class Handler : public SmtpClientHandler {
 public:
  void OnOutput(std::string_view text) override {
    SLUICE_CHECK(!ended);
    SLUICE_CHECK(text.find('\x01') == text.npos);
    SLUICE_CHECK(!tls_required || secured || !text.starts_with("MAIL"));
    wrote += text;
  }
  void OnTrace(bool reply, std::string_view text) override {
    SLUICE_CHECK(!ended);
    if (reply) return;
    SLUICE_CHECK(!text.empty() && text.find_first_of("\r\n") == text.npos);
    for (const std::string_view secret : {"cGVuY2ls", "dXNlc", "AHVzZXI", "bj11c2Vy", "biws"}) {
      SLUICE_CHECK(text.find(secret) == text.npos);
    }
  }
  void OnReady() override { SLUICE_CHECK(!std::exchange(ready, true)); }
  void OnStartTls() override { SLUICE_CHECK(!std::exchange(handshake, true) && !ready); }
  void OnWantBody(uint64_t id) override {
    SLUICE_CHECK(wants == 0 && id == next_result);
    wants = id;
  }
  bool MayFinish(uint64_t id) override {
    dots = id;
    return id != denied;
  }
  void OnResult(uint64_t id, std::vector<RecipientVerdict> recipients) override {
    SLUICE_CHECK(id == next_result++ && recipients.size() == id % 3 + 1);
    verdicts += "result\n";
    for (const RecipientVerdict& each : recipients) {
      if (each.verdict == Verdict::kDelivered) {
        SLUICE_CHECK(dots == id && id != denied && each.stage == SmtpStage::kFinalDot);
        SLUICE_CHECK(each.reply.code / 100 == 2 && !each.local);
      }
      verdicts += std::to_string(static_cast<int>(each.verdict)) +
                  std::to_string(static_cast<int>(each.stage)) + each.reply.text + "\n";
      SLUICE_CHECK(each.reply.text.size() <= kMaxReplyTextBytes);
    }
    wants = 0;
  }
  void OnEnd(const RecipientVerdict& last) override {
    SLUICE_CHECK(!std::exchange(ended, true));
    verdicts += "end " + last.reply.text;
  }

  std::string wrote;
  std::string verdicts;
  bool tls_required = false;
  bool handshake = false;
  bool secured = false;
  bool ready = false;
  bool ended = false;
  uint64_t wants = 0;
  uint64_t dots = 0;
  uint64_t denied = 0;
  uint64_t next_result = 1;
};

std::pair<std::string, std::string> Run(std::string_view wire, uint8_t flags, size_t chunk,
                                        bool trace) {
  SmtpClientOptions options;
  options.trace = trace;
  options.use_pipelining = (flags & 1) != 0;
  if ((flags & 64) != 0) {
    options.auth = SaslCredentials{"user", "pencil"};
    options.auth_in_clear = (flags & 1) != 0;
    options.auth_nonce = "rOprNGfwEbeRWgbNEkqO";
  }
  options.lmtp = (flags & 8) != 0;
  Handler handler;
  if ((flags & 32) != 0) options.starttls = StartTls::kOpportunistic;
  if ((flags & 128) != 0) options.starttls = StartTls::kRequired;
  handler.tls_required = (flags & 128) != 0;
  handler.denied = (flags & 2) != 0 ? 3 : 0;
  SmtpClientSession session(handler, options);
  uint64_t begun = 0;
  const auto act = [&] {
    if (session.in_tls_handshake() && !session.ended()) {
      SLUICE_CHECK(handler.handshake && !handler.secured);
      handler.secured = true;
      session.OnTlsReady();
    }
    while (handler.wants != 0 && !session.ended()) {
      handler.wants = 0;
      const auto slice = [&](std::string_view text) { handler.wrote += text; };
      if (session.SendBody("a\r", false, slice)) session.SendBody("\n.b\r\n", true, slice);
    }
    while (handler.ready && !session.ended() && session.under_way() < 2 && begun < kTransactions) {
      const uint64_t id = ++begun;
      ClientTransaction transaction;
      transaction.id = id;
      transaction.mail_from = id == 2 ? "" : "f@e.org";
      transaction.recipients.assign(id % 3 + 1, "t@e.net");
      transaction.size = 10;
      transaction.eight_bit = true;
      transaction.binary = id == 4 && (flags & 16) != 0;
      if (id == 3) transaction.dsn = {{6, "rfc822;t@e.net"}};
      if (id == 4) {
        transaction.ret = ClientTransaction::Ret::kHeaders;
        transaction.envid = "an id+";
      }
      if (id == 5) transaction.recipients[0] = "t\xc3\xbc@e.net";
      session.Begin(std::move(transaction));
    }
    if (begun == kTransactions && !session.ended() && session.under_way() == 0) session.Quit();
  };
  while (!wire.empty() && !session.ended()) {
    const size_t line = std::min(wire.find('\n'), wire.size() - 1) + 1;
    const size_t size = std::min(line, chunk);
    session.OnBytes(wire.substr(0, size));
    wire.remove_prefix(size);
    act();
    SLUICE_CHECK(session.timeout() > Duration::zero());
  }
  if (!session.ended()) {
    if ((flags & 4) != 0) {
      session.OnTimeout();
    } else {
      session.OnDisconnect("gone");
    }
  }
  SLUICE_CHECK(handler.ended && session.under_way() == 0 && handler.next_result == begun + 1);
  return {std::move(handler.wrote), std::move(handler.verdicts)};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0 || size > 8000) return 0;
  const uint8_t flags = data[0];
  const std::string_view wire(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto by_line = Run(wire, flags, wire.size() + 1, false);
  SLUICE_CHECK(by_line == Run(wire, flags, size % 4 == 0 ? 1 : flags % 29 + 2, true));
  return 0;
}
