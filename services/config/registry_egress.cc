// How mail leaves: authentication at smart hosts, the receivers' TLS policies.
#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kEverywhere = kDomain | kVirtualMta | kGlobal;
constexpr auto kQueue = Target::kQueueSettings;

}  // namespace

std::vector<Directive> EgressDirectives() {
  return {
      {.name = "auth-username",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "auth_username",
       .grammar = Grammar::kText,
       .help =
           "User for AUTH at the remote host; no mail is sent there without. SCRAM-SHA-256 and "
           "CRAM-MD5 go before PLAIN and LOGIN; in TLS SCRAM is bound to the connection where the "
           "host can."},
      {.name = "auth-password",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "auth_password",
       .grammar = Grammar::kText,
       .help = "Password for AUTH at the remote host.",
       .secret = true},
      {.name = "use-unencrypted-plain-auth",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "use_unencrypted_plain_auth",
       .grammar = Grammar::kBool,
       .help = "Send the password by PLAIN or LOGIN also where no TLS hides it."},
      {.name = "use-dane",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "use_dane",
       .grammar = Grammar::kBool,
       .help = "Hold hosts to their TLSA records (DANE, RFC 7672). The name servers must be "
               "validating ones on loopback."},
      {.name = "use-mta-sts",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "use_mta_sts",
       .grammar = Grammar::kBool,
       .help = "Hold hosts to the domain's MTA-STS policy (RFC 8461)."},
      {.name = "use-proxy",
       .scopes = kGlobal | kVirtualMta,
       .grammar = Grammar::kWords,
       .help =
           "The <proxy> sections that all connections go through; none ends what a more general "
           "place says. The clients of the proxies are the sources of a virtual MTA that has "
           "none of its own.",
       .unset = "none"},
      {.name = "smtp-proxy-source-host",
       .scopes = kGlobal | kVirtualMta,
       .grammar = Grammar::kArguments,
       .help = "A source behind a proxy that speaks the PROXY protocol: used by workers with an "
               "address in the network, from that address.",
       .min = 3,
       .max = 4,
       .appends = true,
       .syntax = "NETWORK SERVER-IP:PORT CLIENT-IP[:PORT] [HOSTNAME]"},
      {.name = "proxy-protocol",
       .scopes = kVirtualMta,
       .grammar = Grammar::kCount,
       .help = "Version of the PROXY protocol for smtp-proxy-source-host.",
       .min = 1,
       .max = 2,
       .unset = "1"},
      {.name = "server",
       .scopes = kProxy,
       .grammar = Grammar::kArguments,
       .help = "Where the proxy listens.",
       .min = 1,
       .max = 1,
       .syntax = "IP:PORT"},
      {.name = "client",
       .scopes = kProxy,
       .grammar = Grammar::kArguments,
       .help = "An address that the proxy connects from, and its name in EHLO. The PROXY protocol "
               "tells the proxy which one; with SOCKS5 it is the proxy's only one.",
       .min = 1,
       .max = 2,
       .appends = true,
       .syntax = "IP[:PORT] [HOSTNAME]"},
      {.name = "type",
       .scopes = kProxy,
       .grammar = Grammar::kChoice,
       .help = "How the proxy is spoken to.",
       .choices = "proxy-protocol,socks5",
       .unset = "proxy-protocol"},
      {.name = "protocol-version",
       .scopes = kProxy,
       .grammar = Grammar::kCount,
       .help = "Version of the PROXY protocol.",
       .min = 1,
       .max = 2,
       .unset = "1"},
      {.name = "username",
       .scopes = kProxy,
       .grammar = Grammar::kText,
       .help = "User of a SOCKS5 proxy."},
      {.name = "password",
       .scopes = kProxy,
       .grammar = Grammar::kText,
       .help = "Password of a SOCKS5 proxy.",
       .secret = true},
  };
}

}  // namespace sluice::config
