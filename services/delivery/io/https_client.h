// One HTTPS request at a time to a public host (Boost.Beast and OpenSSL on the event loop): what
// MTA-STS and TLS-RPT need, and no more. The peer is anybody's server, named by anybody's DNS.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/executor.h"
#include "services/delivery/dns/dns_client.h"
#include "services/delivery/tls_policy/policy_fetcher.h"

namespace boost::asio {
class io_context;
}

namespace sluice::delivery {

struct HttpsOptions {
  uint16_t port = 443;
  Duration deadline = std::chrono::seconds(30);  // of a whole request, DNS included
  size_t max_response_bytes = 64 * 1024;
  size_t max_header_bytes = 8 * 1024;
  size_t max_addresses = 4;  // tried of one host
  // PEM file of the authorities to believe; empty: the system's.
  std::string ca_file;
};

struct HttpsRequest {
  std::string host;  // lower case, A-labels
  std::string target = "/";
  std::string body;  // POST where there is a content type, else GET
  std::string content_type;
  // Addresses of this machine and of private networks are refused otherwise: a domain must not be
  // able to send us to them.
  bool allow_private = false;
};

struct HttpsResponse {
  unsigned status = 0;
  std::string content_type;  // as sent
  std::string body;
};

// Thread-safety: the loop's thread. Lifetime: executor (which runs on `io`'s thread), io and DNS
// client outlive it; requests of a destroyed client are dropped.
class HttpsClient {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<HttpsResponse>)>;

  // FAILED_PRECONDITION where the authorities cannot be read.
  static absl::StatusOr<std::unique_ptr<HttpsClient>> Create(Executor& executor,
                                                             boost::asio::io_context& io,
                                                             DnsClient& dns,
                                                             const HttpsOptions& options);
  ~HttpsClient();

  // Calls `done` once, never within the call. UNAUTHENTICATED: certificate or handshake;
  // DEADLINE_EXCEEDED; RESOURCE_EXHAUSTED: too large; UNAVAILABLE: the rest. Redirects are not
  // followed: they are responses.
  void Send(HttpsRequest request, Done done);
  size_t under_way() const;

 private:
  struct Shared;
  class Exchange;
  explicit HttpsClient(std::shared_ptr<Shared> shared);

  std::shared_ptr<Shared> shared_;
};

// Fetches MTA-STS policies with it. Lifetime: the client outlives it.
class HttpsPolicyFetcher final : public PolicyFetcher {
 public:
  // `may_be_private` says of which domains the policy host may have a private address.
  using MayBePrivate = absl::AnyInvocable<bool(const std::string& domain)>;
  HttpsPolicyFetcher(HttpsClient& client, MayBePrivate may_be_private)
      : client_(client), may_be_private_(std::move(may_be_private)) {}
  void Fetch(const std::string& domain, Done done) override;

 private:
  HttpsClient& client_;
  MayBePrivate may_be_private_;
};

}  // namespace sluice::delivery
