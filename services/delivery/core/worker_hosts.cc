// mx-connection-limit and ip-connection-limit: connections to one host, and to one network, of all
// queues together. Where sources belong to several workers, each has the part of a limit that its
// sources are of all.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {

void Worker::SetHostLimit(HostLimit& limiter, uint64_t limit) {
  const Division& division = DivisionOf("");
  const uint64_t share =
      division.count == 0 ? limit : division.PartOf(limit, division.held.back().second);
  limiter.round = host_round_;
  limiter.most = limit == 0 ? SIZE_MAX : share;
  limiter.divided = limit > 0 && share < limit;
}

// After the policy, the table of owners or the lease has changed.
void Worker::SetHostLimits() {
  const auto& global = policy_->global();
  limits_hosts_ = global.mx_connection_limit().entries_size() > 0 ||
                  global.ip_connection_limit().entries_size() > 0;
  if (!limits_hosts_ && host_limits_.empty()) return;
  ++host_round_;
  networks_.clear();
  for (const auto& [name, limiter] : host_limits_) {
    limiter->most = SIZE_MAX;
    limiter->divided = false;
    limiter->connections = 0;
  }
  for (const auto& entry : global.ip_connection_limit().entries()) {
    const auto network = Cidr::Parse(entry.key());
    if (!network) continue;
    std::unique_ptr<HostLimit>& slot = host_limits_[entry.key()];
    if (slot == nullptr) slot = std::make_unique<HostLimit>();
    slot->directive = "ip-connection-limit";
    slot->what = entry.key();
    SetHostLimit(*slot, entry.count());
    networks_.emplace_back(*network, slot.get());
  }
  for (const auto& [name, queue] : queues_) {
    for (const auto& conn : queue->conns) {
      conn->hosts.clear();
      if (!conn->address.empty()) EnterHosts(*conn, conn->host, conn->address);
    }
  }
}

// Those that a connection to the host at this address counts against. No limit: not there.
std::vector<Worker::Limiter*> Worker::HostLimitsOf(const std::string& host,
                                                   const std::string& address) {
  std::vector<Limiter*> limits;
  if (!limits_hosts_) return limits;
  if (const auto ip = IpAddress::Parse(address)) {
    for (const auto& [network, limiter] : networks_) {
      if (network.Contains(*ip)) limits.push_back(limiter);
    }
  }
  const std::string name = absl::AsciiStrToLower(host);
  const policy::v1::KeyedCount* best = nullptr;
  for (const auto& entry : policy_->global().mx_connection_limit().entries()) {
    if (!config::PatternMatches(entry.key(), name)) continue;
    if (best == nullptr ||
        config::PatternRank(best->key(), false) <= config::PatternRank(entry.key(), false)) {
      best = &entry;
    }
  }
  if (best == nullptr) return limits;
  std::unique_ptr<HostLimit>& slot = host_limits_[name];
  if (slot == nullptr) slot = std::make_unique<HostLimit>();
  if (slot->round != host_round_) {
    slot->directive = "mx-connection-limit";
    slot->what = name;
    SetHostLimit(*slot, best->count());
  }
  limits.push_back(slot.get());
  return limits;
}

// Those of which a new one would not differ: the names are the world's. From a timer alone: lines
// are being served otherwise.
void Worker::ForgetHostLimits() {
  std::erase_if(host_limits_, [this](const auto& each) {
    const HostLimit& limit = *each.second;
    return limit.connections == 0 && !limit.crowded && limit.timer == 0 &&
           std::none_of(networks_.begin(), networks_.end(),
                        [&](const auto& network) { return network.second == &limit; });
  });
}

void Worker::EnterHosts(Conn& conn, const std::string& host, const std::string& address) {
  conn.hosts = HostLimitsOf(host, address);
  for (Limiter* limit : conn.hosts) ++limit->connections;
}

void Worker::LeaveHosts(Conn& conn) {
  if (conn.hosts.empty()) return;
  for (Limiter* limit : conn.hosts) --limit->connections;
  conn.hosts.clear();
  FreedSlot();
}

Worker::Limiter* Worker::FullHost(const Target& target) {
  if (!limits_hosts_) return nullptr;
  for (Limiter* limit : HostLimitsOf(target.host, target.address)) {
    if (limit->connections >= limit->most) return limit;
  }
  return nullptr;
}

// The host that the connection would go to next has no room: one of the same preference that has
// takes its turn. Else the limit to wait for.
Worker::Limiter* Worker::PassFullHost(const Queue& queue, Conn& conn) {
  if (!limits_hosts_) return nullptr;
  const size_t place = conn.next_target;
  const Target& wanted = queue.targets[conn.order[place]];
  if (IsAside(*conn.source, wanted)) return nullptr;  // it is not tried anyway
  Limiter* const full = FullHost(wanted);
  if (full == nullptr) return nullptr;
  for (size_t i = place + 1; i < conn.order.size(); ++i) {
    const size_t index = conn.order[i];
    if (index >= queue.targets.size()) continue;
    const Target& other = queue.targets[index];
    if (other.preference != wanted.preference) break;
    const auto is_v6 = [](const Target& each) {
      return each.address.find(':') != std::string::npos;
    };
    if (is_v6(other) != is_v6(wanted) || IsAside(*conn.source, other) || FullHost(other) != nullptr)
      continue;
    std::swap(conn.order[place], conn.order[i]);
    return nullptr;
  }
  return full;
}

}  // namespace sluice::delivery
