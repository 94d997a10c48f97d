// Proves by golden transcripts that the session answers as RFC 5321 and its extensions say, and
// that the outcome depends neither on how the bytes arrive (split at every place, byte by byte, all
// at once) nor on when the handler answers. A file holds one session:
//   C: a line of the client, CR LF added ("\r", "\n", "\0", "\xHH" and "\\" are escapes)
//   C+ the same without CR LF
//   S: a line that the server must send
//   H: what the handler must see
//   T: the handshake that STARTTLS asked for is done
//   O: option value        before everything else
#include "services/mail/smtp_server_session.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

using std::chrono::seconds;

struct Transcript {
  SmtpServerOptions options;
  std::string mechanisms;
  bool xclient = false;
  bool merge = false;
  std::vector<size_t> handshakes;  // places in `client`
  std::string client;
  std::string server;
  std::string handler;
};

std::string Unescape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out.push_back(text[i]);
      continue;
    }
    switch (text[++i]) {
      case 'r':
        out.push_back('\r');
        break;
      case 'n':
        out.push_back('\n');
        break;
      case '0':
        out.push_back('\0');
        break;
      case 'x':
        out.push_back(static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16)));
        i += 2;
        break;
      default:
        out.push_back(text[i]);
    }
  }
  return out;
}

void SetOption(const std::string& name, const std::string& value, SmtpServerOptions& options) {
  const auto number = static_cast<uint32_t>(std::atoi(value.c_str()));
  if (name == "max_message_bytes") {
    options.max_message_bytes = number;
  } else if (name == "max_header_bytes") {
    options.max_header_bytes = number;
  } else if (name == "max_hops") {
    options.max_hops = number;
  } else if (name == "max_recipients") {
    options.max_recipients = number;
  } else if (name == "max_errors") {
    options.max_errors = number;
  } else if (name == "max_rejections") {
    options.max_rejections = number;
  } else if (name == "max_idle_commands") {
    options.max_idle_commands = number;
  } else if (name == "chunking") {
    options.extensions.chunking = true;
    options.extensions.binary_mime = true;
  } else if (name == "dsn") {
    options.extensions.dsn = true;
  } else if (name == "mt_priority") {
    options.extensions.mt_priority = true;
  } else if (name == "qualify_with") {
    options.extensions.qualify_with = value;
  } else if (name == "require_tls") {
    options.extensions.require_tls = true;
  } else if (name == "starttls") {
    options.offer_starttls = true;
  } else if (name == "smtp_utf8") {
    options.extensions.smtp_utf8 = true;
  } else {
    FAIL() << "unknown option " << name;
  }
}

Transcript ReadTranscript(const std::string& path) {
  Transcript t;
  t.options.host_name = "mx.test";
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const std::string kind = line.substr(0, 2);
    const std::string rest = line.size() > 3 ? line.substr(3) : "";
    if (kind == "C:") {
      t.client += Unescape(rest) + "\r\n";
    } else if (kind == "C+") {
      t.client += Unescape(rest);
    } else if (kind == "S:") {
      t.server += rest + "\r\n";
    } else if (kind == "T:") {
      t.handshakes.push_back(t.client.size());
    } else if (kind == "H:") {
      t.handler += rest + "\n";
    } else if (kind == "O:") {
      const size_t blank = rest.find(' ');
      const std::string value = blank == std::string::npos ? "" : rest.substr(blank + 1);
      if (rest.starts_with("auth ")) {
        t.mechanisms = value;
        t.options.extensions.auth = true;
      } else if (rest == "xclient") {
        t.xclient = true;
      } else if (rest == "merge") {
        t.merge = true;
      } else {
        SetOption(rest.substr(0, blank), value, t.options);
      }
    } else {
      ADD_FAILURE() << path << ": " << line;
    }
  }
  return t;
}

// Writes down what it is asked, and refuses what is called "refuse-…", "later-…".
class ScriptedHandler : public SmtpServerHandler {
 public:
  enum class Mode { kAtOnce, kLater };
  ScriptedHandler(Mode mode, const Transcript& transcript) : mode_(mode), transcript_(transcript) {}

  void OnHello(std::string_view name, bool extended) override {
    log_ << (extended ? "ehlo " : "helo ") << name << "\n";
  }
  std::optional<ServerReply> OnMail(const MailCommand& mail) override {
    log_ << "mail <" << mail.from << ">";
    if (mail.size != 0) log_ << " size=" << mail.size;
    if (mail.body == BodyParam::k8BitMime) log_ << " 8bit";
    if (mail.body == BodyParam::kBinaryMime) log_ << " binary";
    if (mail.ret == RetParam::kFull) log_ << " ret=full";
    if (!mail.envid.empty()) log_ << " envid=" << mail.envid;
    if (mail.smtp_utf8) log_ << " smtputf8";
    if (mail.mt_priority) log_ << " priority=" << *mail.mt_priority;
    if (mail.merge) log_ << " merge";
    if (mail.verp) log_ << " verp";
    if (mail.require_tls) log_ << " requiretls";
    if (mail.auth) log_ << " auth=<" << *mail.auth << ">";
    log_ << "\n";
    if (mail.from.starts_with("later")) return Give({451, {4, 3, 2}, "No queue takes mail"});
    if (mail.from.starts_with("refuse")) return Give({550, {5, 7, 1}, "Not from you"});
    if (mail.from.starts_with("busy")) return Give({421, {4, 3, 2}, "Busy"});
    return Give({250, {2, 1, 0}, "Sender OK"});
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand& rcpt) override {
    log_ << "rcpt <" << rcpt.to << "> " << rcpt.domain();
    if (rcpt.notify != 0) log_ << " notify=" << rcpt.notify;
    if (!rcpt.orcpt.empty()) log_ << " orcpt=" << rcpt.orcpt;
    if (rcpt.merge != nullptr) {
      for (const auto& [name, value] : rcpt.merge->variables) {
        log_ << " " << name << "=[" << value << "]";
      }
      for (const uint32_t part : rcpt.merge->parts) log_ << " part" << part;
    }
    log_ << "\n";
    if (rcpt.to.starts_with("refuse")) return Give({550, {5, 1, 1}, "No such\nuser"});
    refuse_data_ = rcpt.to.starts_with("no-data");
    return Give({250, {2, 1, 5}, "Recipient OK"});
  }
  std::optional<ServerReply> OnData() override {
    log_ << "data\n";
    if (std::exchange(refuse_data_, false)) return Give({451, {4, 3, 1}, "Not now"});
    return Give({354, {}, "End with a dot"});
  }
  void OnBody(std::string_view text) override { body_ += text; }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts& facts) override {
    EXPECT_EQ(facts.size, body_.size());
    log_ << "end size=" << facts.size << " header=" << facts.header_size << " hops=" << facts.hops
         << " ";
    for (char c : body_) {
      if (c == '\r') {
        log_ << "\\r";
      } else if (c == '\n') {
        log_ << "\\n";
      } else if (c == '\0') {
        log_ << "\\0";
      } else {
        log_ << c;
      }
    }
    log_ << "\n";
    const bool refuse = body_.starts_with("Refuse:");
    body_.clear();
    if (refuse) return Give({554, {5, 7, 1}, "Not wanted"});
    return Give({250, {2, 0, 0}, "Queued as 7"});
  }
  void OnReset() override {
    log_ << "reset\n";
    body_.clear();
    held_.reset();
  }

  std::string AuthMechanisms() override { return transcript_.mechanisms; }
  // Lets in who answers "open", makes others wait, and hangs up on "go".
  std::optional<ServerReply> OnAuth(std::string_view mechanism,
                                    std::optional<std::string_view> initial) override {
    log_ << "auth " << mechanism;
    if (initial) log_ << " [" << *initial << "]";
    log_ << "\n";
    if (initial) return Give(Judge(*initial));
    return Give({334, {}, "who?"});
  }
  std::optional<ServerReply> OnAuthResponse(std::string_view response) override {
    log_ << "response [" << response << "]\n";
    return Give(Judge(response));
  }
  void OnAuthCancel() override {
    log_ << "auth cancelled\n";
    held_.reset();
  }

  bool OffersMailMerge() override { return transcript_.merge; }
  void OnPartEnd(uint32_t number) override { log_ << "part " << number << "\n"; }
  bool OffersXclient() override { return transcript_.xclient; }
  ServerReply OnXclient(const XclientCommand& xclient) override {
    log_ << "xclient";
    const auto say = [&](const char* name, const std::optional<std::string>& value) {
      if (value) log_ << ' ' << name << '=' << *value;
    };
    say("name", xclient.name);
    say("addr", xclient.address);
    say("helo", xclient.helo);
    say("login", xclient.login);
    say("proto", xclient.protocol);
    say("destaddr", xclient.dest_address);
    if (xclient.port) log_ << " port=" << *xclient.port;
    if (xclient.dest_port) log_ << " destport=" << *xclient.dest_port;
    log_ << "\n";
    if (xclient.address == "bad") return {501, {5, 5, 4}, "No address"};
    if (xclient.address == "192.0.2.66") return {421, {4, 7, 0}, "Not this one"};
    return {220, {}, ""};
  }

  void OnStartTls(size_t) override { log_ << "starttls\n"; }
  void OnRefusal(ClientRefusal refusal) override {
    static constexpr const char* kNames[] = {"recipients", "size", "injection", "xclient"};
    log_ << "refusal " << kNames[static_cast<size_t>(refusal)] << "\n";
  }

  std::string log() const { return log_.str(); }
  std::optional<ServerReply> TakeHeld() { return std::exchange(held_, std::nullopt); }

 private:
  std::optional<ServerReply> Give(ServerReply reply) {
    if (mode_ == Mode::kAtOnce) return reply;
    EXPECT_FALSE(held_) << "asked before the last question was answered";
    held_ = std::move(reply);
    return std::nullopt;
  }

  static ServerReply Judge(std::string_view response) {
    if (response == "open") return {235, {2, 7, 0}, "Welcome"};
    if (response == "more") return {334, {}, "more?"};
    if (response == "go") return {421, {4, 7, 0}, "Too many failures"};
    return {535, {5, 7, 8}, "Authentication failed", seconds(3)};
  }

  Mode mode_;
  const Transcript& transcript_;
  std::ostringstream log_;
  std::string body_;
  bool refuse_data_ = false;
  std::optional<ServerReply> held_;
};

struct Outcome {
  std::string server;
  std::string handler;
};

Outcome Run(const Transcript& t, const std::vector<std::string_view>& chunks,
            ScriptedHandler::Mode mode) {
  ScriptedHandler handler(mode, t);
  SmtpServerSession session(handler, t.options);
  MonotonicTime now{seconds(1000)};
  Outcome outcome;
  auto drain = [&] {
    while (true) {
      outcome.server += session.output();
      session.Sent(now, session.output().size());
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
  if (t.options.offer_starttls) session.set_tls_available();
  session.Start(now);
  drain();
  size_t at = 0;
  auto handshake = t.handshakes.begin();
  for (std::string_view chunk : chunks) {
    // What is encrypted never comes with what is not.
    while (!chunk.empty() && !session.closing()) {
      if (handshake != t.handshakes.end() && *handshake == at) {
        ++handshake;
        EXPECT_TRUE(session.tls_handshake());
        if (session.tls_handshake()) session.OnTlsReady(now);
      }
      const size_t until = handshake == t.handshakes.end() ? t.client.size() : *handshake;
      const std::string_view piece = chunk.substr(0, until - at);
      chunk.remove_prefix(piece.size());
      at += piece.size();
      now += Duration(1);
      EXPECT_TRUE(session.wants_read());
      session.OnBytes(now, piece);
      drain();
    }
  }
  if (!session.closing()) {
    session.OnEof(now);
    drain();
  }
  EXPECT_TRUE(session.closing());
  EXPECT_FALSE(session.wants_read());
  outcome.handler = handler.log();
  return outcome;
}

void Check(const Transcript& t, const std::vector<std::string_view>& chunks, const char* how) {
  for (auto mode : {ScriptedHandler::Mode::kAtOnce, ScriptedHandler::Mode::kLater}) {
    const Outcome outcome = Run(t, chunks, mode);
    ASSERT_EQ(outcome.server, t.server) << how;
    ASSERT_EQ(outcome.handler, t.handler) << how;
  }
}

class TranscriptTest : public testing::TestWithParam<std::string> {};

TEST_P(TranscriptTest, EverySplit) {
  const Transcript t = ReadTranscript(GetParam());
  const std::string_view all = t.client;
  Check(t, {all}, "all at once");
  std::vector<std::string_view> lines;
  for (size_t start = 0; start < all.size();) {
    const size_t end = std::min(all.find('\n', start), all.size() - 1) + 1;
    lines.push_back(all.substr(start, end - start));
    start = end;
  }
  Check(t, lines, "line by line");
  std::vector<std::string_view> bytes;
  for (size_t i = 0; i < all.size(); ++i) bytes.push_back(all.substr(i, 1));
  Check(t, bytes, "byte by byte");
  for (size_t i = 1; i < all.size(); ++i) {
    Check(t, {all.substr(0, i), all.substr(i)}, ("split at " + std::to_string(i)).c_str());
    if (testing::Test::HasFatalFailure()) return;
  }
}

std::vector<std::string> Transcripts() {
  std::vector<std::string> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator("services/mail/smtp_server_transcripts")) {
    paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string NameOf(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(info.param.rfind('/') + 1);
  name = name.substr(0, name.find('.'));
  return name;
}

INSTANTIATE_TEST_SUITE_P(Golden, TranscriptTest, testing::ValuesIn(Transcripts()), NameOf);

}  // namespace
}  // namespace sluice::mail
