// Directives about TLS: of listeners, of clients, of what goes out.
#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kQueues = kDomain | kVirtualMta | kGlobal;
constexpr auto kNothing = Target::kNone;

Directive One(std::string_view name, uint32_t scopes, Target target, std::string_view field,
              Grammar grammar, std::string_view help) {
  return {.name = name,
          .scopes = scopes,
          .target = target,
          .field = field,
          .grammar = grammar,
          .help = help};
}

Directive NoEffect(std::string_view name, uint32_t scopes, Grammar grammar, std::string_view help) {
  Directive made = One(name, scopes, kNothing, {}, grammar, help);
  made.status = Status::kNoEffect;
  return made;
}

constexpr std::string_view kDiffieHellman =
    "Nothing: keys of Diffie-Hellman are as strong as the certificate's.";
constexpr std::string_view kCiphers =
    "Ciphers up to TLS 1.2, as OpenSSL's list; empty: OpenSSL's own, without anonymous ones.";
constexpr std::string_view kSuites = "Cipher suites of TLS 1.3; empty: OpenSSL's own.";

void AddQueues(std::vector<Directive>& all) {
  constexpr auto kQueue = Target::kQueueSettings;
  const auto boolean = [&](std::string_view name, std::string_view field, std::string_view help) {
    all.push_back(One(name, kQueues, kQueue, field, Grammar::kBool, help));
  };
  boolean("use-starttls", "use_starttls", "Encrypt where the host offers STARTTLS.");
  boolean("require-starttls", "require_starttls", "Send only over STARTTLS.");
  boolean(
      "tls-fallback", "tls_fallback",
      "After a failed handshake try once more in clear, on a new connection; never where TLS is "
      "required.");
  boolean("reuse-ssl-session", "reuse_ssl_session", "Resume TLS sessions of earlier connections.");
  boolean("smtp-tls-allow-tlsv1", "smtp_tls_allow_tlsv1", "Speak TLS 1.0 to hosts.");
  boolean("smtp-tls-allow-tlsv1.1", "smtp_tls_allow_tlsv1_1", "Speak TLS 1.1 to hosts.");
  boolean("smtp-tls-allow-tlsv1.2", "smtp_tls_allow_tlsv1_2", "Speak TLS 1.2 to hosts.");
  boolean("smtp-tls-allow-tlsv1.3", "smtp_tls_allow_tlsv1_3", "Speak TLS 1.3 to hosts.");
  all.push_back(
      One("smtp-tls-ciphers", kQueues, kQueue, "smtp_tls_ciphers", Grammar::kText, kCiphers));
  all.push_back(One("smtp-tls-tlsv1.3-ciphersuites", kQueues, kQueue,
                    "smtp_tls_tlsv1_3_ciphersuites", Grammar::kText, kSuites));
  all.push_back(One("smtp-tls-ca-file", kQueues, kQueue, "smtp_tls_ca_file", Grammar::kFile,
                    "PEM file of authorities: with it the host's certificate is verified, and the "
                    "verdict recorded."));
  all.push_back(One("smtp-client-certificate", kQueues, kQueue, "smtp_client_certificate",
                    Grammar::kTlsCertificate,
                    "PEM file of key, certificate and chain that are shown to hosts that ask."));
  all.back().secret = true;
  Directive timeout = One("tls-handshake-timeout", kQueues, kQueue, "tls_handshake_timeout_us",
                          Grammar::kDuration, "Longest time that a TLS handshake may take.");
  timeout.min = 1000;
  timeout.max = uint64_t{366} * 86400 * 1'000'000;
  all.push_back(timeout);
}

void AddServer(std::vector<Directive>& all, const std::string_view (&names)[8], uint32_t scope,
               Target target, const std::string_view (&fields)[8]) {
  const auto add = [&](size_t i, Grammar grammar, std::string_view help) {
    all.push_back(One(names[i], scope, target, fields[i], grammar, help));
  };
  add(0, Grammar::kTlsCertificate,
      "PEM file of key, certificate and chain, and the key's password; of several the client's SNI "
      "chooses.");
  all.back().appends = true;
  all.back().secret = true;
  add(1, Grammar::kFile,
      "PEM file of authorities: clients are asked for a certificate, and theirs is verified.");
  add(2, Grammar::kBool, "Take TLS 1.0.");
  add(3, Grammar::kBool, "Take TLS 1.1.");
  add(4, Grammar::kBool, "Take TLS 1.2.");
  add(5, Grammar::kBool, "Take TLS 1.3.");
  if (scope != kGlobal) {
    constexpr std::string_view kGlobalOnes[] = {
        "smtp-server-tls-allow-tlsv1", "smtp-server-tls-allow-tlsv1.1",
        "smtp-server-tls-allow-tlsv1.2", "smtp-server-tls-allow-tlsv1.3"};
    for (size_t i = 0; i < 4; ++i) all[all.size() - 4 + i].unset = kGlobalOnes[i];
  }
  add(6, Grammar::kText, kCiphers);
  add(7, Grammar::kText, kSuites);
}

}  // namespace

std::vector<Directive> TlsDirectives() {
  std::vector<Directive> all;
  AddServer(
      all,
      {"smtp-server-tls-certificate", "smtp-server-tls-ca-file", "smtp-server-tls-allow-tlsv1",
       "smtp-server-tls-allow-tlsv1.1", "smtp-server-tls-allow-tlsv1.2",
       "smtp-server-tls-allow-tlsv1.3", "smtp-server-tls-ciphers",
       "smtp-server-tls-v1.3-ciphersuites"},
      kGlobal, Target::kGlobalSettings,
      {"smtp_server_tls_certificates", "smtp_server_tls_ca_file", "smtp_server_tls_allow_tlsv1",
       "smtp_server_tls_allow_tlsv1_1", "smtp_server_tls_allow_tlsv1_2",
       "smtp_server_tls_allow_tlsv1_3", "smtp_server_tls_ciphers", "smtp_server_tls_ciphersuites"});
  all.push_back(
      NoEffect("smtp-server-tls-dh-key-length", kGlobal, Grammar::kCount, kDiffieHellman));
  all.push_back(One("immediate-tls", kListener, Target::kListenerSettings, "immediate_tls",
                    Grammar::kBool, "TLS from the first byte, without STARTTLS."));
  AddServer(all,
            {"tls-certificate", "tls-ca-file", "tls-allow-tlsv1", "tls-allow-tlsv1.1",
             "tls-allow-tlsv1.2", "tls-allow-tlsv1.3", "tls-ciphers", "tls-tlsv1.3-ciphersuites"},
            kListener, Target::kListenerSettings,
            {"tls_certificates", "tls_ca_file", "tls_allow_tlsv1", "tls_allow_tlsv1_1",
             "tls_allow_tlsv1_2", "tls_allow_tlsv1_3", "tls_ciphers", "tls_ciphersuites"});
  all.push_back(NoEffect("tls-dh-key-length", kListener, Grammar::kCount, kDiffieHellman));
  all.push_back(One("allow-starttls", kSource | kGlobal, Target::kClientSettings, "allow_starttls",
                    Grammar::kBool, "Offer STARTTLS where the listener has a certificate."));
  AddQueues(all);
  return all;
}

}  // namespace sluice::config
