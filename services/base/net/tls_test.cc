// TLS engines and contexts against each other in memory: certificates by name, resumption,
// verification, reload, and what a hostile peer may try.
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include <filesystem>
#include <fstream>

#include "services/base/net/tls_client_context.h"
#include "services/base/net/tls_self_signed.h"
#include "services/base/net/tls_server_context.h"
#include "services/base/testing/temp_folder.h"

namespace sluice {
namespace {

using State = TlsSession::State;
using Verify = TlsSession::Verify;

struct FakeClock final : Clock {
  MonotonicTime Now() const override { return now; }
  WallTime WallNow() const override { return WallTime(now.time_since_epoch()); }
  MonotonicTime now{std::chrono::hours(1)};
};

// One end with what it has received.
struct End {
  std::unique_ptr<TlsSession> tls;
  std::string received;

  // Gives it `bytes` in pieces of at most `step`.
  void Take(std::string_view bytes, size_t step) {
    std::vector<char> plain(step + TlsSession::kCarryBytes);
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, step);
      bytes.remove_prefix(piece.size());
      received.append(plain.data(), tls->Receive(piece, plain));
    }
  }
};

// Moves what both ends have to say until both are silent.
void Pump(End& a, End& b, size_t step = 64 * 1024) {
  while (!a.tls->output().empty() || !b.tls->output().empty()) {
    const std::string from_a(a.tls->output());
    a.tls->Sent(from_a.size());
    b.Take(from_a, step);
    const std::string from_b(b.tls->output());
    b.tls->Sent(from_b.size());
    a.Take(from_b, step);
  }
}

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    authority_ = MakeCertificate({.common_name = "Root", .authority = true});
    ca_ = Write("ca.pem", CertificatePem(authority_.certificate.get()));
  }

  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = directory_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  // A certificate of our authority's, in a file.
  TlsCertificateFile Issue(const std::string& file, const NewCertificate& wanted) {
    return {Write(file, ToPem(MakeCertificate(wanted, &authority_))), ""};
  }
  std::unique_ptr<TlsServerContext> Server(const TlsServerOptions& options) {
    auto made = TlsServerContext::Load(options, clock_);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  std::unique_ptr<TlsServerContext> Server(const NewCertificate& wanted) {
    return Server(TlsServerOptions{.certificates = {Issue("server.pem", wanted)}});
  }
  std::unique_ptr<TlsClientContext> Client(TlsClientOptions options = {}) {
    if (options.ca_file.empty()) options.ca_file = ca_;
    auto made = TlsClientContext::Load(options);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  // The handshake, whole.
  void Connect(TlsServerContext& server, TlsClientContext& client, const TlsClientTarget& target,
               size_t step = 64 * 1024) {
    server_ = {server.NewSession(), ""};
    client_ = {client.NewSession(target), ""};
    server_.tls->Start();
    client_.tls->Start();
    Pump(client_, server_, step);
  }
  bool open() const {
    return client_.tls->state() == State::kOpen && server_.tls->state() == State::kOpen;
  }

  FakeClock clock_;
  const testing::TempFolder temp_{"tls"};
  const std::filesystem::path directory_ = temp_.path();
  KeyAndChain authority_;
  std::string ca_;
  End server_;
  End client_;
};

TEST_F(TlsTest, CarriesBytesBothWaysHoweverTheyAreSplit) {
  auto server = Server(NewCertificate{.names = {"mx.test"}});
  auto client = Client();
  const std::string large(300'000, 'm');
  for (const size_t step : {1UL, 7UL, 65536UL}) {
    Connect(*server, *client, {}, step);
    ASSERT_TRUE(open());
    client_.tls->Send("EHLO client.test\r\n");
    client_.tls->Send(large);
    server_.tls->Send("250 mx.test\r\n");
    Pump(client_, server_, step);
    EXPECT_EQ(server_.received, "EHLO client.test\r\n" + large);
    EXPECT_EQ(client_.received, "250 mx.test\r\n");
    client_.tls->Close();
    Pump(client_, server_, step);
    EXPECT_EQ(server_.tls->state(), State::kPeerClosed);
    EXPECT_EQ(client_.tls->state(), State::kOpen);
    server_.tls->Send("221 bye\r\n");  // the peer has closed its half only
    Pump(client_, server_, step);
    EXPECT_TRUE(client_.received.ends_with("221 bye\r\n"));
  }
}

TEST_F(TlsTest, NamesTheVersionAndTheCipher) {
  auto server = Server(NewCertificate{});
  auto client = Client();
  Connect(*server, *client, {.server_name = "mx.test"});
  EXPECT_EQ(server_.tls->facts().version, "TLSv1.3");
  EXPECT_TRUE(server_.tls->facts().cipher.starts_with("TLS_")) << server_.tls->facts().cipher;
  EXPECT_EQ(server_.tls->facts().server_name, "mx.test");
  EXPECT_EQ(client_.tls->facts().version, "TLSv1.3");
  EXPECT_FALSE(client_.tls->facts().verified);  // nobody asked
  EXPECT_EQ(client_.tls->facts().problem, "");
  EXPECT_EQ(client_.tls->facts().peer_subject, "CN=localhost");
}

TEST_F(TlsTest, ChoosesTheCertificateByName) {
  auto server = Server(TlsServerOptions{
      .certificates = {
          Issue("a.pem", {.common_name = "a", .names = {"a.test"}}),
          Issue("b.pem", {.common_name = "b", .names = {"b.test", "*.b.test"}}),
          Issue("b-rsa.pem", {.common_name = "b", .names = {"b.test", "*.b.test"}, .rsa = true}),
      }});
  auto client = Client();
  const std::pair<const char*, const char*> cases[] = {
      {"a.test", "CN=a"},     {"B.Test.", "CN=b"},    {"x.b.test", "CN=b"},
      {"x.y.b.test", "CN=a"}, {"other.test", "CN=a"}, {"", "CN=a"},
  };
  for (const auto& [name, subject] : cases) {
    Connect(*server, *client, {.server_name = name});
    ASSERT_TRUE(open()) << name;
    EXPECT_EQ(client_.tls->facts().peer_subject, subject) << name;
  }
  // The same names with two kinds of key: each client gets the one that it can use.
  auto rsa_only =
      Client({.protocols = {.tls1_3 = false, .ciphers = "ECDHE-RSA-AES128-GCM-SHA256"}});
  Connect(*server, *rsa_only, {.server_name = "b.test"});
  ASSERT_TRUE(open());
  EXPECT_EQ(client_.tls->facts().cipher, "ECDHE-RSA-AES128-GCM-SHA256");
}

TEST_F(TlsTest, VersionsAndCiphersHold) {
  const TlsCertificateFile file = Issue("server.pem", {});
  auto only_1_2 = Server({.certificates = {file}, .protocols = {.tls1_3 = false}});
  auto only_1_3 = Server({.certificates = {file}, .protocols = {.tls1_2 = false}});
  auto client = Client();
  Connect(*only_1_2, *client, {});
  EXPECT_EQ(client_.tls->facts().version, "TLSv1.2");
  auto old_client = Client({.protocols = {.tls1_3 = false}});
  Connect(*only_1_3, *old_client, {});
  EXPECT_EQ(server_.tls->state(), State::kFailed);
  EXPECT_EQ(client_.tls->state(), State::kFailed);
  EXPECT_EQ(client_.tls->failure().code(), absl::StatusCode::kUnavailable);

  auto ancient =
      Server({.certificates = {file},
              .protocols = {.tls1_0 = true, .tls1_1 = true, .tls1_2 = false, .tls1_3 = false}});
  auto ancient_client = Client({.protocols = {.tls1_0 = true}});
  Connect(*ancient, *ancient_client, {});
  EXPECT_EQ(client_.tls->facts().version, "TLSv1");

  auto chosen = Server(
      {.certificates = {file}, .protocols = {.ciphersuites = "TLS_CHACHA20_POLY1305_SHA256"}});
  Connect(*chosen, *client, {});
  EXPECT_EQ(client_.tls->facts().cipher, "TLS_CHACHA20_POLY1305_SHA256");
  EXPECT_FALSE(
      TlsServerContext::Load({.certificates = {file}, .protocols = {.ciphers = "NO-SUCH"}}, clock_)
          .ok());
  EXPECT_FALSE(
      TlsServerContext::Load(
          {.certificates = {file}, .protocols = {.tls1_2 = false, .tls1_3 = false}}, clock_)
          .ok());
}

TEST_F(TlsTest, ResumesBothVersionsAndForgetsWithItsBound) {
  const TlsCertificateFile file = Issue("server.pem", {.names = {"mx.test"}});
  for (const bool tls1_3 : {false, true}) {
    auto server = Server({.certificates = {file}, .protocols = {.tls1_3 = tls1_3}});
    auto client = Client({.max_cached_sessions = 2});
    const TlsClientTarget target{.server_name = "mx.test", .session_key = "mx.test 25"};
    Connect(*server, *client, target);
    EXPECT_FALSE(client_.tls->facts().resumed);
    Connect(*server, *client, target);
    EXPECT_TRUE(client_.tls->facts().resumed) << tls1_3;
    EXPECT_TRUE(server_.tls->facts().resumed) << tls1_3;
    EXPECT_EQ(client_.tls->PeerChain().size(), 1u);  // for checks that are made again
    for (int again = 0; again < 3; ++again) {
      Connect(*server, *client, target);
      EXPECT_TRUE(client_.tls->facts().resumed) << tls1_3 << again;
    }
    // Another key, or another verification, is another session.
    Connect(*server, *client, {.server_name = "mx.test", .session_key = "else"});
    EXPECT_FALSE(client_.tls->facts().resumed);
    Connect(*server, *client,
            {.server_name = "mx.test", .session_key = "mx.test 25", .verify = Verify::kOptional});
    EXPECT_FALSE(client_.tls->facts().resumed);
    EXPECT_EQ(client->cached_sessions(), 2u);
    Connect(*server, *client, {.server_name = "mx.test"});
    EXPECT_EQ(client->cached_sessions(), 2u);
    Connect(*server, *client, {.server_name = "mx.test", .session_key = "else"});
    EXPECT_TRUE(client_.tls->facts().resumed);
    client->Forget(*client_.tls);
    EXPECT_EQ(client->cached_sessions(), 1u);
  }
}

// RFC 9266, RFC 5929 4: both ends have the same, no two connections do, and a certificate has its
// own.
TEST_F(TlsTest, ChannelBindingsAreWhatBothEndsSee) {
  for (const bool rsa : {false, true}) {
    for (const bool tls1_3 : {false, true}) {
      auto server = Server(
          {.certificates = {Issue("server.pem", {.rsa = rsa})}, .protocols = {.tls1_3 = tls1_3}});
      auto client = Client({.max_cached_sessions = 2});
      const TlsClientTarget target{.server_name = "mx.test", .session_key = "mx.test 25"};
      EXPECT_EQ(server->NewSession()->ExporterBinding(), "");
      Connect(*server, *client, target);
      ASSERT_TRUE(open());
      const std::string exporter = server_.tls->ExporterBinding();
      EXPECT_TRUE(server_.tls->has_exporter_binding());
      EXPECT_EQ(exporter.size(), 32u);
      EXPECT_EQ(client_.tls->ExporterBinding(), exporter);
      const std::string end_point = server_.tls->ServerEndPointBinding();
      EXPECT_EQ(end_point.size(), 32u);  // SHA-256, as it signs
      EXPECT_EQ(client_.tls->ServerEndPointBinding(), end_point);
      Connect(*server, *client, target);
      EXPECT_TRUE(server_.tls->facts().resumed);
      EXPECT_EQ(client_.tls->ExporterBinding(), server_.tls->ExporterBinding());
      EXPECT_NE(server_.tls->ExporterBinding(), exporter);
      EXPECT_EQ(server_.tls->ServerEndPointBinding(), "");
    }
  }
}

TEST_F(TlsTest, TicketsOutliveTheirKeyOnce) {
  auto server = Server(NewCertificate{});
  auto client = Client();
  const TlsClientTarget target{.session_key = "k"};
  Connect(*server, *client, target);
  clock_.now += std::chrono::hours(13);
  Connect(*server, *client, target);
  EXPECT_TRUE(client_.tls->facts().resumed);  // by the key before
  Connect(*server, *client, target);
  EXPECT_TRUE(client_.tls->facts().resumed);
  clock_.now += std::chrono::hours(30);
  Connect(*server, *client, target);
  EXPECT_FALSE(client_.tls->facts().resumed);
  EXPECT_TRUE(open());
}

TEST_F(TlsTest, ReloadsChangedFilesAndKeepsSessionsAndTickets) {
  auto server = Server(NewCertificate{.common_name = "old"});
  auto client = Client();
  const TlsClientTarget target{.session_key = "k"};
  Connect(*server, *client, target);
  End old_server = std::move(server_);
  End old_client = std::move(client_);
  EXPECT_FALSE(*server->ReloadIfChanged());

  Write("server.pem", "rubbish");
  EXPECT_EQ(server->ReloadIfChanged().status().code(), absl::StatusCode::kInvalidArgument);
  Connect(*server, *client, {});
  EXPECT_EQ(client_.tls->facts().peer_subject, "CN=old");

  Issue("server.pem", {.common_name = "new"});
  EXPECT_TRUE(*server->ReloadIfChanged());
  EXPECT_FALSE(*server->ReloadIfChanged());
  Connect(*server, *client, {});
  EXPECT_EQ(client_.tls->facts().peer_subject, "CN=new");
  Connect(*server, *client, target);
  EXPECT_TRUE(client_.tls->facts().resumed);
  old_client.tls->Send("still here");
  Pump(old_client, old_server);
  EXPECT_EQ(old_server.received, "still here");
}

TEST_F(TlsTest, VerifiesWhatItIsAskedTo) {
  struct Case {
    const char* what;
    NewCertificate certificate;
    bool own_root;
    bool good;
  };
  const Case cases[] = {
      {"good", {.names = {"mx.mail.test"}}, false, true},
      {"wildcard", {.names = {"*.mail.test"}}, false, true},
      {"other name", {.names = {"other.test"}}, false, false},
      {"run out", {.names = {"mx.mail.test"}, .valid_for = std::chrono::hours(-1)}, false, false},
      {"own root", {.names = {"mx.mail.test"}}, true, false},
      {"NUL", {.names = {std::string("mx.mail.test\0.evil.test", 23)}}, false, false},
      {"NUL in the common name",
       {.common_name = std::string("mx.mail.test\0.evil.test", 23)},
       false,
       false},
  };
  auto client = Client();
  for (const Case& each : cases) {
    const KeyAndChain made =
        MakeCertificate(each.certificate, each.own_root ? nullptr : &authority_);
    auto server = Server({.certificates = {{Write("server.pem", ToPem(made)), ""}}});
    TlsClientTarget target{
        .server_name = "mx.mail.test", .verify = Verify::kOptional, .names = {"mx.mail.test"}};
    Connect(*server, *client, target);
    ASSERT_TRUE(open()) << each.what;
    EXPECT_EQ(client_.tls->facts().verified, each.good) << each.what;
    EXPECT_EQ(client_.tls->facts().problem.empty(), each.good) << each.what;
    target.verify = Verify::kRequired;
    Connect(*server, *client, target);
    EXPECT_EQ(client_.tls->state(), each.good ? State::kOpen : State::kFailed) << each.what;
    if (!each.good) {
      EXPECT_EQ(client_.tls->failure().code(), absl::StatusCode::kUnauthenticated) << each.what;
      EXPECT_EQ(server_.tls->state(), State::kFailed) << each.what;
    }
  }
}

TEST_F(TlsTest, ClientCertificatesAreFacts) {
  const KeyAndChain known = MakeCertificate({.common_name = "known"}, &authority_);
  const KeyAndChain stranger = MakeCertificate({.common_name = "stranger"});
  TlsServerOptions options{.certificates = {Issue("server.pem", {})}, .ca_file = ca_};
  auto server = Server(options);
  for (const bool resumed : {false, true}) {
    static std::unique_ptr<TlsClientContext> client;
    if (!resumed) client = Client({.certificate = {Write("known.pem", ToPem(known)), ""}});
    Connect(*server, *client, {.session_key = "k"});
    ASSERT_TRUE(open());
    EXPECT_EQ(server_.tls->facts().resumed, resumed);
    EXPECT_EQ(server_.tls->facts().peer_subject, "CN=known");
    EXPECT_EQ(server_.tls->facts().peer_fingerprint,
              CertificateFingerprint(known.certificate.get()));
    EXPECT_TRUE(server_.tls->facts().verified);
    if (resumed) client.reset();
  }
  auto client = Client({.certificate = {Write("stranger.pem", ToPem(stranger)), ""}});
  Connect(*server, *client, {});
  ASSERT_TRUE(open());
  EXPECT_EQ(server_.tls->facts().peer_subject, "CN=stranger");
  EXPECT_FALSE(server_.tls->facts().verified);
  auto without = Client();
  Connect(*server, *without, {});
  ASSERT_TRUE(open());
  EXPECT_EQ(server_.tls->facts().peer_subject, "");
  EXPECT_FALSE(server_.tls->facts().verified);
}

TEST_F(TlsTest, ChainsAboveTheBoundEndTheHandshake) {
  KeyAndChain large = MakeCertificate({.names = {"mx.test"}}, &authority_);
  for (int i = 0; i < 11; ++i) {  // 10 MB: most of what TLS can carry
    large.chain.push_back(
        MakeCertificate({.common_name = "x", .extra_bytes = 900'000}, &authority_).certificate);
  }
  // Files of this size are refused where they are our own, so the server is made by hand.
  SslCtxPtr context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_use_certificate(context.get(), large.certificate.get());
  SSL_CTX_use_PrivateKey(context.get(), large.key.get());
  for (X509Ptr& each : large.chain) SSL_CTX_add1_chain_cert(context.get(), each.get());
  auto client = Client();
  client_ = {client->NewSession({}), ""};
  SSL* ssl = SSL_new(context.get());
  SSL_set_accept_state(ssl);
  server_ = {std::make_unique<TlsSession>(ssl, nullptr), ""};
  client_.tls->Start();
  server_.Take(std::string(client_.tls->output()), 65536);
  client_.tls->Sent(client_.tls->output().size());
  const std::string flight(server_.tls->output());
  client_.Take(flight, 65536);
  EXPECT_EQ(client_.tls->state(), State::kFailed);
  EXPECT_EQ(client_.tls->failure().code(), absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, APeerThatAsksAndDoesNotReadIsLeft) {
  auto server = Server(NewCertificate{});
  auto client = Client();
  Connect(*server, *client, {});
  ASSERT_TRUE(open());
  size_t asked = 0;
  while (server_.tls->state() == State::kOpen && asked < 100'000) {
    SSL_key_update(client_.tls->ssl(), SSL_KEY_UPDATE_REQUESTED);
    client_.tls->Send("x");
    const std::string bytes(client_.tls->output());
    client_.tls->Sent(bytes.size());
    server_.Take(bytes, 65536);
    ++asked;
  }
  EXPECT_EQ(server_.tls->state(), State::kFailed);
  EXPECT_LE(server_.tls->output().size(), TlsSession::kMaxOutputBytes + 1024);
}

TEST_F(TlsTest, PlainTextAndRubbishAreNoHandshake) {
  auto server = Server(NewCertificate{});
  for (const std::string& bytes :
       {std::string("MAIL FROM:<a@b>\r\n"), std::string(100'000, '\x16'), std::string(5, '\0')}) {
    server_ = {server->NewSession(), ""};
    server_.tls->Start();
    server_.Take(bytes, 65536);
    EXPECT_EQ(server_.tls->state(), State::kFailed);
    EXPECT_EQ(server_.received, "");
    server_.Take("more", 65536);
    server_.tls->Send("nothing");
    EXPECT_EQ(server_.received, "");
  }
}

TEST_F(TlsTest, FilesThatCannotBeUsedAreNamed) {
  const auto why = [&](const TlsCertificateFile& file) {
    return std::string(TlsServerContext::Load({.certificates = {file}}, clock_).status().message());
  };
  EXPECT_NE(why({directory_ / "none.pem", ""}).find("none.pem"), std::string::npos);
  EXPECT_NE(why({ca_, ""}).find("no private key"), std::string::npos);
  const KeyAndChain one = MakeCertificate({});
  KeyAndChain other = MakeCertificate({});
  other.certificate = MakeCertificate({}).certificate;
  EXPECT_NE(why({Write("mixed.pem", ToPem(other)), ""}).find("no certificate of its"),
            std::string::npos);
  EXPECT_FALSE(TlsClientContext::Load({.certificate = {directory_ / "none.pem", ""}}).ok());
}

}  // namespace
}  // namespace sluice
