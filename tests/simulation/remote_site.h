// The rest of the Internet: MX records, and receivers that accept, defer, refuse, hang and break
// off at every stage.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/delivery/core/connection.h"
#include "services/delivery/dns/mx_resolver.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/world.h"

namespace sluice::simulation {

// Probabilities of each event.
struct SiteRules {
  double refuse_connection = 0;
  double hangs = 0;  // a connection, until its time is over
  double dns_failure = 0;
  double dns_hangs = 0;
  double defer_rcpt = 0;
  double refuse_rcpt = 0;
  double defer_final = 0;
  double refuse_final = 0;
  double break_before_data = 0;
  double break_after_dot = 0;  // it took the message, and its reply never comes
  Duration round_trip = std::chrono::milliseconds(20);
  Duration thinks = std::chrono::milliseconds(5);  // at most, before each reply
};

// Lifetime: world and ledger outlive it.
struct Internet {
  World* world = nullptr;
  Ledger* ledger = nullptr;
  std::map<std::string, SiteRules, std::less<>> sites;      // by domain
  std::map<std::string, std::string, std::less<>> domains;  // by address
  std::map<std::string, std::string, std::less<>> vmtas;    // by source address
};

// Thread-safety: the executor.
class SimResolver final : public delivery::MxResolver {
 public:
  SimResolver(Internet& internet, Executor& executor) : internet_(internet), executor_(executor) {}
  void Resolve(std::string_view domain, Done done) override;
  void ResolveHost(std::string_view host, Done done) override { Resolve(host, std::move(done)); }

 private:
  Internet& internet_;
  Executor& executor_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Connections of one worker.
class SimConnections final : public delivery::ConnectionFactory {
 public:
  SimConnections(Internet& internet, Executor& executor)
      : internet_(internet), executor_(executor) {}
  std::unique_ptr<delivery::Connection> Connect(const delivery::ConnectTarget& target,
                                                delivery::ConnectionHandler* handler) override;

 private:
  Internet& internet_;
  Executor& executor_;
};

}  // namespace sluice::simulation
