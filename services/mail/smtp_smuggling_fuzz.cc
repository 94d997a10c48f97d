// Any bytes of a client, taken by our server and sent on by our client: to a remote that believes
// in every line end there ever was, one message is still one message; and to one that takes BDAT,
// the chunks are the message, byte for byte. SMTP smuggling, end to end.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "services/base/check.h"
#include "services/mail/smtp_client_session.h"
#include "services/mail/smtp_server_session.h"

namespace {

using namespace sluice;        // NOLINT: a fuzzer is its own program
using namespace sluice::mail;  // NOLINT

struct Message {
  std::string from;
  std::string rcpt;
  std::string body;
  bool binary = false;
};

// Takes everything.
class Taker final : public SmtpServerHandler {
 public:
  void OnHello(std::string_view, bool) override {}
  std::optional<ServerReply> OnMail(const MailCommand& mail) override {
    now_ = {mail.from, "", "", mail.body == BodyParam::kBinaryMime};
    return ServerReply{250, {2, 1, 0}, "ok"};
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand& rcpt) override {
    now_.rcpt = rcpt.to;
    return ServerReply{250, {2, 1, 5}, "ok"};
  }
  std::optional<ServerReply> OnData() override { return ServerReply{354, {}, "go"}; }
  void OnBody(std::string_view text) override { now_.body += text; }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts&) override {
    taken.push_back(std::exchange(now_, {}));
    return ServerReply{250, {2, 0, 0}, "ok"};
  }
  void OnReset() override { now_ = {}; }
  std::vector<Message> taken;

 private:
  Message now_;
};

// Sends one message to a remote.
class Giver final : public SmtpClientHandler {
 public:
  Giver(const Message& message, size_t piece, bool chunking) : message_(message), piece_(piece) {
    session_.OnBytes("220 mx\r\n250-mx\r\n250-SMTPUTF8\r\n");
    session_.OnBytes(chunking ? "250-CHUNKING\r\n250-BINARYMIME\r\n" : "250-8BITMIME\r\n");
    session_.OnBytes("250 PIPELINING\r\n");
    ClientTransaction transaction;
    transaction.id = 1;
    transaction.mail_from = message.from;
    transaction.recipients = {message.rcpt};
    transaction.binary = message.binary;
    session_.Begin(std::move(transaction));
    // Until the remote has what it wants before the text.
    for (const char* reply : {"250 ok\r\n", "250 ok\r\n", "354 go\r\n"}) {
      if (!ended && text_begin == 0) session_.OnBytes(reply);
    }
  }
  void OnOutput(std::string_view text) override { wire += text; }
  void OnReady() override {}
  void OnWantBody(uint64_t) override {
    text_begin = wire.size();
    std::string_view rest = message_.body;
    while (true) {
      const std::string_view piece = rest.substr(0, piece_);
      rest.remove_prefix(piece.size());
      session_.SendBody(piece, rest.empty(), [this](std::string_view slice) { wire += slice; });
      if (rest.empty()) return;
    }
  }
  bool MayFinish(uint64_t) override { return true; }
  void OnResult(uint64_t, std::vector<RecipientVerdict> all) override {
    ended = true;
    refused = all[0].verdict == Verdict::kPermanent;
  }
  void OnEnd(const RecipientVerdict&) override { ended = true; }

  std::string wire;
  size_t text_begin = 0;
  bool ended = false;
  bool refused = false;

 private:
  const Message& message_;
  const size_t piece_;
  SmtpClientSession session_{*this, {}};
};

// What chunks carry; nothing where they are not to the byte what they say.
std::optional<std::string> Unchunk(std::string_view wire) {
  std::string body;
  for (bool last = false; !last;) {
    if (!wire.starts_with("BDAT ")) return std::nullopt;
    const size_t end = wire.find("\r\n");
    std::string_view said = wire.substr(5, end == wire.npos ? 0 : end - 5);
    last = said.ends_with(" LAST");
    if (last) said.remove_suffix(5);
    size_t size = 0;
    const auto [rest, error] = std::from_chars(said.data(), said.data() + said.size(), size);
    if (error != std::errc() || rest != said.data() + said.size()) return std::nullopt;
    wire.remove_prefix(end + 2);
    if (wire.size() < size) return std::nullopt;
    body += wire.substr(0, size);
    wire.remove_prefix(size);
  }
  return wire.empty() ? std::optional(std::move(body)) : std::nullopt;
}

// Lone dots between line ends of any kind.
size_t Ends(std::string_view text) {
  size_t ends = 0;
  bool begin = true;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_end = [&](size_t at) {
      return at < text.size() && (text[at] == '\r' || text[at] == '\n' || text[at] == '\0');
    };
    if (begin && text[i] == '.' && is_end(i + 1)) ++ends;
    begin = is_end(i);
  }
  return ends;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2 || size > 8000) return 0;
  const size_t chunk = data[0] % 61 + 1;
  const size_t piece = data[1] % 7 + 1;
  std::string_view wire(reinterpret_cast<const char*>(data) + 2, size - 2);
  SmtpServerOptions options;
  options.extensions.chunking = options.extensions.binary_mime = true;
  options.extensions.smtp_utf8 = true;
  Taker taker;
  SmtpServerSession session(taker, options);
  const MonotonicTime now{std::chrono::seconds(5)};
  session.Start(now);
  session.OnBytes(now, "EHLO c\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nRSET\r\n");
  while (!wire.empty() && session.wants_read()) {
    session.OnBytes(now, wire.substr(0, chunk));
    wire.remove_prefix(std::min(chunk, wire.size()));
    session.Sent(now, session.output().size());
  }
  for (const Message& message : taker.taken) {
    const Giver by_chunks(message, piece, true);
    if (by_chunks.text_begin != 0) {
      const auto body = Unchunk(std::string_view(by_chunks.wire).substr(by_chunks.text_begin));
      // Text whose last line does not end is given its end.
      SLUICE_CHECK(body &&
                   (*body == message.body || (!message.binary && *body == message.body + "\r\n")));
    } else {
      SLUICE_CHECK(by_chunks.refused);
    }
    const Giver giver(message, piece, false);
    SLUICE_CHECK(giver.ended == (message.binary || giver.refused));
    if (giver.ended) {
      SLUICE_CHECK(giver.text_begin == 0);
      continue;
    }
    const std::string_view text = std::string_view(giver.wire).substr(giver.text_begin);
    SLUICE_CHECK(Ends(text) == 1 && text.ends_with(".\r\n"));
    // Nor do the addresses say more than one command each.
    const std::string_view commands = std::string_view(giver.wire).substr(0, giver.text_begin);
    size_t lines = 0;
    for (size_t i = 0; i < commands.size(); ++i) {
      const bool end = commands[i] == '\n';
      lines += end;
      SLUICE_CHECK(end == (i > 0 && commands[i - 1] == '\r'));
      SLUICE_CHECK(commands[i] != '\0');
    }
    SLUICE_CHECK(lines == 4);  // EHLO, MAIL, RCPT, DATA
  }
  return 0;
}
