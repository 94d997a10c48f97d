#include "tests/simulation/ledger.h"

#include "services/mail/message_id.h"

namespace sluice::simulation {
namespace {
constexpr size_t kMostFailuresKept = 20;
constexpr char kVolume[] = "max-data-volume-rate";
std::string Seconds(MonotonicTime t) {
  return std::to_string(static_cast<double>(t.time_since_epoch().count()) / 1e6);
}
}  // namespace

void Ledger::Fail(std::string what) {
  if (failures_.size() < kMostFailuresKept) failures_.push_back(std::move(what));
}

void Ledger::Accepted(const std::string& id, const std::vector<std::string>& rcpts) {
  if (accepted_.emplace(id, rcpts).second) accepted_recipients_ += rcpts.size();
}

void Ledger::OnShardSays(const std::string& shard, const queue::v1::DispatchResponse& response) {
  for (const auto& lease : response.leases()) {
    leases_[{shard, lease.lease_id()}] = Issued{shard, ++order_, 0};
    for (const auto& delivery : lease.deliveries()) {
      last_lease_[{lease.message().id(), delivery.rcpt()}] = {shard, lease.lease_id()};
    }
    if (log) {
      log(shard + " leases " + std::to_string(lease.lease_id()) + ": " +
          mail::FormatMessageId(lease.message().id()) + " to " + lease.deliveries(0).rcpt());
    }
  }
  for (const uint64_t id : response.acknowledged_leases()) {
    if (log) log(shard + " acknowledges " + std::to_string(id));
    const auto found = leases_.find({shard, id});
    if (found != leases_.end() && found->second.acknowledged == 0) {
      found->second.acknowledged = ++order_;
    }
  }
}

// The limits of a queue, of its virtual MTA, of what it sends from one source, of its pool, of the
// site, of the domain, and of its rollup.
std::array<std::string, 7> Ledger::LimitsOf(const std::string& queue, const std::string& source,
                                            const std::string& address) const {
  const size_t slash = queue.rfind('/');
  const std::string vmta = queue.substr(slash);
  const auto rollup = rollups.find(queue.substr(0, slash));
  const std::string name = rollup == rollups.end() ? queue : rollup->second + vmta;
  const bool pooled = vmta == "/v1" || vmta == "/both";
  return {name,
          "*" + vmta,
          name + "@" + source,
          pooled ? kPool : std::string(),
          address,
          queue.substr(0, slash) + "/*",
          rollup == rollups.end() ? std::string() : rollup->second + "/*"};
}

void Ledger::Count(const char* directive, const std::string& name, const WindowLimit& limit,
                   uint64_t amount, MonotonicTime now) {
  if (limit.most == 0) return;
  const auto from = counted_from_.find(name);
  if (from != counted_from_.end() && now < from->second) return;
  Window& window = windows_[{name, directive}];
  window.amounts.emplace_back(now, amount);
  window.sum += amount;
  while (now - window.amounts.front().first >= limit.period) {
    window.sum -= window.amounts.front().second;
    window.amounts.pop_front();
  }
  const bool alone = window.amounts.size() == 1 && directive == kVolume;
  if (window.sum > limit.most && !alone) {
    Fail(std::string(directive) + " passed: " + name + " had " + std::to_string(window.sum) +
         " within " + std::to_string((now - window.amounts.front().first).count()) + " us at " +
         Seconds(now));
  }
}

void Ledger::Change(const std::string& queue, const QueueLimit& limit, MonotonicTime now) {
  limits[queue] = limit;
  counted_from_[queue] = now + std::chrono::minutes(2);
  std::erase_if(windows_, [&](const auto& each) { return each.first.first == queue; });
}

void Ledger::Connected(const std::string& queue, const std::string& source,
                       const std::string& address, MonotonicTime now) {
  if (log) log("connection of " + queue + " from " + source + " to " + address);
  for (const std::string& name : LimitsOf(queue, source, address)) {
    const uint32_t count = ++connections_[name];
    const auto limit = limits.find(name);
    if (limit == limits.end()) continue;
    if (limit->second.connections > 0 && count > limit->second.connections) {
      Fail("max-smtp-out passed: " + name + " has " + std::to_string(count) + " connections at " +
           Seconds(now));
    }
    Count("max-connect-rate", name, limit->second.connects, 1, now);
  }
}

void Ledger::Disconnected(const std::string& queue, const std::string& source,
                          const std::string& address) {
  if (log) log("no more connection of " + queue + " from " + source + " to " + address);
  for (const std::string& name : LimitsOf(queue, source, address)) --connections_[name];
}

void Ledger::Attempted(const std::string& queue, const std::string& source, size_t recipients,
                       MonotonicTime now) {
  if (log) log("to " + std::to_string(recipients) + " of " + queue + " from " + source);
  for (const std::string& name : LimitsOf(queue, source)) {
    const auto limit = limits.find(name);
    if (limit == limits.end()) continue;
    Count("max-msg-rate", name, limit->second.recipients, recipients, now);
    Count("max-msg-per-hour", name, limit->second.hourly, recipients, now);
  }
}

void Ledger::Sent(const std::string& queue, const std::string& source, uint64_t bytes,
                  MonotonicTime now) {
  for (const std::string& name : LimitsOf(queue, source)) {
    const auto limit = limits.find(name);
    if (limit != limits.end()) Count(kVolume, name, limit->second.bytes, bytes, now);
  }
}

size_t Ledger::Took(const queue::v1::Lease& lease, const std::string& rcpt, MonotonicTime now) {
  const std::string& id = lease.message().id();
  if (!lease.message().parent_id().empty()) {
    reports_.insert(lease.message().parent_id());
  } else if (const auto [first, made] = message_of_.emplace(rcpt, id);
             !made && first->second != id) {
    Fail("injected with one key, queued twice: " + mail::FormatMessageId(first->second) + " and " +
         mail::FormatMessageId(id) + " to " + rcpt);
  }
  std::vector<size_t>& before = by_recipient_[{id, rcpt}];
  // Workers number what they send by themselves: it is taken for the last lease of the recipient.
  const auto& lease_id = last_lease_[{id, rcpt}];
  const auto current = leases_.find(lease_id);
  for (const size_t index : before) {
    const Taken& earlier = taken_[index];
    const auto other = leases_.find(earlier.lease);
    const bool recorded = earlier.reply_seen && other != leases_.end() &&
                          other->second.acknowledged != 0 && current != leases_.end() &&
                          other->second.acknowledged < current->second.sent;
    if (recorded) {
      Fail("delivered again after its result was recorded: " + mail::FormatMessageId(id) + " to " +
           rcpt + " at " + Seconds(now));
    }
    if (earlier.reply_seen) ++unexplained_;
  }
  if (log) {
    log("site took " + mail::FormatMessageId(id) + " for " + rcpt + " by lease " +
        std::to_string(lease_id.second));
  }
  if (!before.empty()) ++duplicates_;
  before.push_back(taken_.size());
  taken_.push_back({id, rcpt, lease_id, false});
  return taken_.size() - 1;
}

void Ledger::CheckEnd(bool duplicates_allowed) {
  for (const auto& [id, rcpts] : accepted_) {
    for (const std::string& rcpt : rcpts) {
      if (by_recipient_.contains({id, rcpt})) continue;
      if (reports_.contains(id)) {
        ++reported_;
      } else {
        Fail("lost: " + mail::FormatMessageId(id) + " to " + rcpt +
             " was accepted, and neither delivered nor reported");
      }
    }
  }
  if (!duplicates_allowed && unexplained_ > 0) {
    Fail(std::to_string(unexplained_) + " duplicates in a run without faults");
  }
}

}  // namespace sluice::simulation
