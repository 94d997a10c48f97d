// Proves by golden transcripts that the client session says what RFC 5321 and its extensions want,
// and gives the verdicts that the remote's words mean, wherever the network cuts those words: each
// file runs whole, byte by byte, and once for each place where a block of the remote's can be
// split.
//   S: a line of the remote, CR LF added     T: the TLS handshake is done
//   C: a line that the session must write, between the remote's blocks
//   M: sender recipient[,recipient...] [word...]   a message, from here on; words below
//   B: a line of the bodies of all messages        Q: quit
//   R: a verdict that the owner must get           X: the connection breaks; X: timeout
//   E: what the session's end must say             O: option [value], before everything else
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/mail/smtp_client_peer.h"

namespace sluice::mail {
namespace {

struct Step {
  char kind = 'S';
  std::string text;  // S: a block; C, R, E: what must have come since the last step
};

struct Transcript {
  SmtpClientOptions options;
  std::string body;
  std::vector<Step> steps;
  size_t server_bytes = 0;
};

void SetOption(std::istringstream& words, SmtpClientOptions& options) {
  std::string name, value, second;
  words >> name >> value >> second;
  if (name == "lmtp") {
    options.lmtp = true;
  } else if (name == "starttls") {
    options.starttls = value == "required" ? StartTls::kRequired : StartTls::kOpportunistic;
  } else if (name == "auth") {
    options.auth = SaslCredentials{value, second};
    options.auth_nonce = "rOprNGfwEbeRWgbNEkqO";
  } else if (name == "auth_in_clear") {
    options.auth_in_clear = true;
  } else if (name == "encrypted") {
    options.encrypted = true;
  } else if (name == "no_pipelining") {
    options.use_pipelining = false;
  } else if (name == "no_chunking") {
    options.use_chunking = false;
  } else {
    FAIL() << "unknown option " << name;
  }
}

Transcript ReadTranscript(const std::string& path) {
  Transcript t;
  t.options.ehlo_name = "out.test";
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const char kind = line[0];
    const std::string rest = line.size() > 3 ? line.substr(3) : "";
    std::istringstream words(rest);
    if (kind == 'O') {
      SetOption(words, t.options);
    } else if (kind == 'B') {
      t.body += rest + "\r\n";
    } else if (std::string_view("SCRE").find(kind) != std::string_view::npos) {
      if (kind == 'S') t.server_bytes += rest.size() + 2;
      const char* const end = kind == 'S' || kind == 'C' ? "\r\n" : "\n";
      if (t.steps.empty() || t.steps.back().kind != kind) t.steps.push_back({kind, ""});
      t.steps.back().text += rest + end;
    } else {
      EXPECT_NE(std::string_view("MTQX").find(kind), std::string_view::npos) << path << line;
      t.steps.push_back({kind, rest});
    }
  }
  return t;
}

ClientTransaction MakeTransaction(uint64_t id, const std::string& text) {
  ClientTransaction made;
  made.id = id;
  std::istringstream words(text);
  std::string recipients, word;
  words >> made.mail_from >> recipients;
  if (made.mail_from == "<>") made.mail_from.clear();
  std::istringstream list(recipients);
  while (std::getline(list, word, ',')) made.recipients.push_back(word);
  while (words >> word) {
    if (word == "8bit") made.eight_bit = true;
    if (word == "binary") made.binary = true;
    if (word == "utf8") made.smtputf8 = true;
    if (word == "requiretls") made.require_tls = true;
    if (word == "verified") made.tls_verified = true;
    if (word == "ret=full") made.ret = ClientTransaction::Ret::kFull;
    if (word == "ret=hdrs") made.ret = ClientTransaction::Ret::kHeaders;
    if (word.starts_with("envid=")) made.envid = word.substr(6);
    if (word.starts_with("size=")) made.size = std::stoull(word.substr(5));
    if (word.starts_with("notify=")) {
      made.dsn.push_back({static_cast<uint32_t>(std::stoul(word.substr(7))), "rfc822;o+r@y.test"});
    }
  }
  if (!made.dsn.empty()) made.dsn.resize(made.recipients.size());
  return made;
}

// "exporter=... end-point=...", neither with blanks.
SaslChannelBindings ReadBindings(const std::string& text) {
  SaslChannelBindings bindings;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (word.starts_with("exporter=")) bindings.tls_exporter = word.substr(9);
    if (word.starts_with("end-point=")) bindings.tls_server_end_point = word.substr(10);
  }
  return bindings;
}

// `cuts`: places in all of the remote's bytes; after each of them the session gets what is there.
void RunCut(const Transcript& t, const std::vector<size_t>& cuts) {
  testing::Peer peer(0, t.options);
  peer.body = t.body;
  uint64_t messages = 0;
  size_t at = 0;
  for (const Step& step : t.steps) {
    switch (step.kind) {
      case 'S':
        for (size_t from = 0; from < step.text.size();) {
          const auto cut = std::upper_bound(cuts.begin(), cuts.end(), at + from);
          const size_t to =
              cut == cuts.end() ? step.text.size() : std::min(step.text.size(), *cut - at);
          peer.session.OnBytes(std::string_view(step.text).substr(from, to - from));
          from = to;
        }
        at += step.text.size();
        break;
      case 'C':
        ASSERT_EQ(peer.Wrote(), step.text);
        break;
      case 'R': {
        std::string results = peer.Results();
        std::replace(results.begin(), results.end(), ' ', '\n');
        ASSERT_EQ(results + "\n", step.text);
        break;
      }
      case 'E':
        ASSERT_EQ(peer.ends, 1);
        ASSERT_EQ(peer.end.reply.text + "\n", step.text);
        break;
      case 'M':
        peer.session.Begin(MakeTransaction(++messages, step.text));
        break;
      case 'T':
        ASSERT_TRUE(peer.session.in_tls_handshake());
        peer.session.OnTlsReady(ReadBindings(step.text));
        break;
      case 'Q':
        peer.session.Quit();
        break;
      default:
        if (step.text == "timeout") {
          peer.session.OnTimeout();
        } else {
          peer.session.OnDisconnect("gone");
        }
    }
  }
  EXPECT_EQ(peer.Wrote(), "");
  EXPECT_EQ(peer.Results(), "");
  EXPECT_EQ(peer.session.under_way(), 0u);
}

class ClientTranscriptTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ClientTranscriptTest, EverySplit) {
  const Transcript t = ReadTranscript(GetParam());
  RunCut(t, {});
  std::vector<size_t> all;
  for (size_t i = 1; i < t.server_bytes; ++i) all.push_back(i);
  RunCut(t, all);
  for (const size_t cut : all) {
    RunCut(t, {cut});
    ASSERT_FALSE(HasFailure()) << "cut at " << cut;
  }
}

std::vector<std::string> Transcripts() {
  std::vector<std::string> paths;
  for (const auto& entry :
       std::filesystem::directory_iterator("services/mail/smtp_client_transcripts")) {
    paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string NameOf(const ::testing::TestParamInfo<std::string>& info) {
  const std::string name = info.param.substr(info.param.rfind('/') + 1);
  return name.substr(0, name.find('.'));
}

INSTANTIATE_TEST_SUITE_P(Golden, ClientTranscriptTest, ::testing::ValuesIn(Transcripts()), NameOf);

}  // namespace
}  // namespace sluice::mail
