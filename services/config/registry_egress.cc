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
       .help = "User for AUTH at the remote host; no mail is sent there without. SCRAM-SHA-256 and "
               "CRAM-MD5 go before PLAIN and LOGIN."},
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
               "validating ones on loopback.",
       .status = Status::kRefused},
      {.name = "use-mta-sts",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "use_mta_sts",
       .grammar = Grammar::kBool,
       .help = "Hold hosts to the domain's MTA-STS policy (RFC 8461).",
       .status = Status::kRefused},
  };
}

}  // namespace sluice::config
