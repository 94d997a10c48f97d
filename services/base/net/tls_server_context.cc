#include "services/base/net/tls_server_context.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/tls_certificate.h"

namespace sluice {
namespace {

constexpr long kTicketSeconds = 12 * 60 * 60;
// OpenSSL resumes no session with a client certificate where this is unset.
constexpr unsigned char kSessionIdContext[] = "sluice";

}  // namespace

struct TlsServerContext::CertificateSet {
  struct Entry {
    SslCtxPtr context;
    std::vector<std::string> names;
    std::vector<int> key_types;
  };
  std::vector<Entry> entries;
  absl::flat_hash_map<std::string, SSL_CTX*> by_name;  // "*.example.com" as it stands
  std::shared_ptr<TlsTicketKeys> ticket_keys;

  SSL_CTX* Find(std::string name) const {
    for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (name.ends_with('.')) name.pop_back();
    if (const auto found = by_name.find(name); found != by_name.end()) return found->second;
    const size_t dot = name.find('.');
    if (dot == std::string::npos) return nullptr;
    const auto found = by_name.find("*" + name.substr(dot));
    return found == by_name.end() ? nullptr : found->second;
  }

  static int OnServerName(SSL* ssl, int*, void* argument) {
    const auto& set = *static_cast<const CertificateSet*>(argument);
    const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (name == nullptr) return SSL_TLSEXT_ERR_NOACK;
    SSL_CTX* const context = set.Find(name);
    // A client that asks for another name gets the first certificate: it may not care, and a
    // refusal would make mail leave in clear.
    if (context == nullptr) return SSL_TLSEXT_ERR_NOACK;
    if (context != SSL_get_SSL_CTX(ssl)) SSL_set_SSL_CTX(ssl, context);
    return SSL_TLSEXT_ERR_OK;
  }

  static int OnTicket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                      EVP_MAC_CTX* mac, int encrypt) {
    auto* set = static_cast<const CertificateSet*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    const int result = set->ticket_keys->Use(name, iv, cipher, mac, encrypt != 0);
    // A client uses a ticket of TLS 1.3 once (RFC 8446 appendix C.4), and needs a new one each
    // time.
    constexpr int kGood = 1;
    constexpr int kGoodAndReplace = 2;
    const bool replace = encrypt == 0 && SSL_version(ssl) == TLS1_3_VERSION;
    return result == kGood && replace ? kGoodAndReplace : result;
  }

  // Takes any certificate of a client; the verdict is kept with the session.
  static int OnVerify(X509_STORE_CTX* store, void*) {
    X509_verify_cert(store);
    return 1;
  }
};

TlsServerContext::TlsServerContext(const TlsServerOptions& options, const Clock& clock)
    : options_(options), ticket_keys_(std::make_shared<TlsTicketKeys>(clock)) {}

TlsServerContext::~TlsServerContext() = default;

absl::StatusOr<std::unique_ptr<TlsServerContext>> TlsServerContext::Load(
    const TlsServerOptions& options, const Clock& clock) {
  if (options.certificates.empty()) {
    return absl::InvalidArgumentError("TLS needs a certificate");
  }
  std::unique_ptr<TlsServerContext> made(new TlsServerContext(options, clock));
  made->stamps_ = made->Stamps();
  auto set = made->Read();
  if (!set.ok()) return set.status();
  made->set_ = *std::move(set);
  return made;
}

std::vector<std::string> TlsServerContext::Stamps() const {
  std::vector<std::string> stamps;
  for (const TlsCertificateFile& each : options_.certificates)
    stamps.push_back(FileStamp(each.file));
  if (!options_.ca_file.empty()) stamps.push_back(FileStamp(options_.ca_file));
  return stamps;
}

absl::StatusOr<std::shared_ptr<const TlsServerContext::CertificateSet>> TlsServerContext::Read()
    const {
  auto set = std::make_shared<CertificateSet>();
  set->ticket_keys = ticket_keys_;
  for (const TlsCertificateFile& file : options_.certificates) {
    auto read = ReadKeyAndChain(file);
    if (!read.ok()) return read.status();
    const auto same = std::find_if(
        set->entries.begin(), set->entries.end(), [&](const CertificateSet::Entry& each) {
          return each.names == read->names &&
                 std::count(each.key_types.begin(), each.key_types.end(), read->key_type) == 0;
        });
    CertificateSet::Entry& entry = same == set->entries.end() ? set->entries.emplace_back() : *same;
    if (entry.context == nullptr) {
      entry.context.reset(SSL_CTX_new(TLS_server_method()));
      if (entry.context == nullptr) return absl::InternalError(TakeOpensslError());
      entry.names = read->names;
    }
    entry.key_types.push_back(read->key_type);
    SSL_CTX* const context = entry.context.get();
    ApplyDefaults(context);
    if (absl::Status status = ApplyProtocols(context, options_.protocols); !status.ok()) {
      return status;
    }
    if (absl::Status used = UseKeyAndChain(context, *read, file.file); !used.ok()) return used;
    SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_session_id_context(context, kSessionIdContext, sizeof(kSessionIdContext) - 1);
    SSL_CTX_set_timeout(context, kTicketSeconds);
    SSL_CTX_set_num_tickets(context, 1);
    SSL_CTX_set_app_data(context, set.get());
    SSL_CTX_set_tlsext_ticket_key_evp_cb(context, &CertificateSet::OnTicket);
    SSL_CTX_set_tlsext_servername_callback(context, &CertificateSet::OnServerName);
    SSL_CTX_set_tlsext_servername_arg(context, set.get());
    if (options_.ask_client_certificate || !options_.ca_file.empty()) {
      SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
      SSL_CTX_set_cert_verify_callback(context, &CertificateSet::OnVerify, nullptr);
    }
    if (!options_.ca_file.empty()) {
      if (SSL_CTX_load_verify_file(context, options_.ca_file.c_str()) != 1) {
        return absl::InvalidArgumentError(absl::StrCat(options_.ca_file, ": ", TakeOpensslError()));
      }
      SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(options_.ca_file.c_str()));
    }
  }
  for (const CertificateSet::Entry& entry : set->entries) {
    for (const std::string& name : entry.names) set->by_name.emplace(name, entry.context.get());
  }
  ERR_clear_error();
  return set;
}

std::unique_ptr<TlsSession> TlsServerContext::NewSession() const {
  std::shared_ptr<const CertificateSet> set;
  {
    std::lock_guard lock(mutex_);
    set = set_;
  }
  SSL* ssl = SSL_new(set->entries.front().context.get());
  if (ssl == nullptr) return nullptr;
  SSL_set_accept_state(ssl);
  auto session = std::make_unique<TlsSession>(ssl, set);
  if (!options_.ca_file.empty()) session->set_verify(TlsSession::Verify::kOptional);
  return session;
}

absl::StatusOr<bool> TlsServerContext::ReloadIfChanged() {
  std::vector<std::string> stamps = Stamps();
  {
    std::lock_guard lock(mutex_);
    if (stamps == stamps_) return false;
  }
  auto set = Read();
  std::lock_guard lock(mutex_);
  if (!set.ok()) return set.status();
  stamps_ = std::move(stamps);
  set_ = *std::move(set);
  return true;
}

}  // namespace sluice
