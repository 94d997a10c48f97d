// DnsClient over c-ares, on the sockets of one event loop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/executor.h"
#include "services/delivery/dns/dns_client.h"

namespace sluice::delivery {

struct CaresOptions {
  // "192.0.2.53", "192.0.2.53:5353", "[2001:db8::1]:53". Empty: /etc/resolv.conf.
  std::vector<std::string> servers;
  Duration timeout = std::chrono::seconds(5);  // of the first try; later ones wait longer
  int tries = 3;
  bool rotate = false;    // spread over the servers
  int edns_bytes = 1232;  // of an answer over UDP; fits one fragment (DNS flag day 2020)
};

// An answer is `authenticated` only where every server is on loopback, and set the AD bit: on the
// way from any other place the bit could be anybody's (RFC 7672 section 2.1.1).
class CaresClient final : public DnsClient {
 public:
  // INVALID_ARGUMENT names a server that cannot be parsed. `executor` runs on `io`'s thread.
  static absl::StatusOr<std::unique_ptr<CaresClient>> Create(Executor& executor,
                                                             boost::asio::io_context& io,
                                                             const CaresOptions& options);
  // On the executor. Questions under way are dropped.
  ~CaresClient() override;

  void Query(const std::string& name, DnsType type, Done done) override;

  // Every server is on loopback: what they call authentic is believed.
  bool trusted() const;

 private:
  class Channel;
  explicit CaresClient(std::shared_ptr<Channel> channel);

  std::shared_ptr<Channel> channel_;
};

}  // namespace sluice::delivery
