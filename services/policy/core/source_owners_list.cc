// What operators see of the table.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/policy/core/source_owners.h"

namespace sluice::policy {

// Why an entry that is on its way to other hands is not there yet.
std::string SourceOwners::WaitsFor(const v1::VmtaOwners& entry) const {
  std::string text;
  for (const std::string& name : WorkersOf(entry.hosts())) {
    if (Expired(name, entry)) continue;
    const Worker& worker = workers_.at(name);
    if (worker.released_epoch >= entry.moving_since_epoch()) continue;
    absl::StrAppend(&text, text.empty() ? "" : "; ");
    if (worker.connected) {
      absl::StrAppend(&text, "worker ", name, " finishes what it has under way");
    } else if (!entry.leased_before()) {
      absl::StrAppend(&text, "worker ", name, " is away and has to agree");
    } else if (!LeaseIsOver(worker)) {
      absl::StrAppend(&text, "the lease of worker ", name, ", which is away, has to run out");
    } else {
      absl::StrAppend(
          &text, "worker ", name, " is away, and shards may stand in: half of them have ",
          "to keep to the change for ", LeaseAndGrace() / std::chrono::seconds(1), " s");
    }
  }
  return text;
}

std::vector<SourceOwners::Shown> SourceOwners::List() const {
  std::vector<Shown> list;
  const auto named = [this](const Hosts& hosts, const std::string& ip) {
    std::vector<std::string> names;
    for (const auto& host : hosts) {
      if (host.ip() == ip) names.push_back(table_.workers(static_cast<int>(host.worker())));
    }
    return names;
  };
  const auto add = [&](const std::string& vmta, const std::string& ip, const std::string& name,
                       const v1::VmtaOwners* entry) -> Shown& {
    Shown& shown = list.emplace_back();
    shown.vmta = vmta;
    shown.ip = ip;
    shown.worker = name;
    if (entry != nullptr) shown.leased = entry->leased();
    const auto found = workers_.find(name);
    if (found == workers_.end()) return shown;
    shown.connected = found->second.connected;
    if (found->second.given) shown.lease_age = executor_.clock().Now() - found->second.last_lease;
    return shown;
  };
  for (const Vmta& vmta : vmtas_) {
    const auto entry =
        std::find_if(table_.vmtas().begin(), table_.vmtas().end(),
                     [&](const v1::VmtaOwners& each) { return each.vmta() == vmta.name; });
    const bool known = entry != table_.vmtas().end();
    std::vector<std::string> ips = vmta.ips;
    if (ips.empty()) ips.emplace_back();
    if (known) {
      for (const auto& host : entry->hosts()) {
        if (std::find(ips.begin(), ips.end(), host.ip()) == ips.end()) ips.push_back(host.ip());
      }
    }
    for (const std::string& ip : ips) {
      const bool moving = known && entry->moving_since_epoch() != 0;
      std::vector<std::string> now = known ? named(entry->hosts(), ip) : std::vector<std::string>();
      const std::vector<std::string> next =
          moving ? named(entry->next(), ip) : std::vector<std::string>();
      if (now.empty()) now.emplace_back();
      for (const std::string& name : now) {
        Shown& shown = add(vmta.name, ip, name, known ? &*entry : nullptr);
        const bool stays = std::find(next.begin(), next.end(), name) != next.end();
        shown.changing = moving && !stays && !(name.empty() && next.empty());
        if (shown.changing) {
          shown.next = ip.empty() || next.empty() ? std::string() : next.front();
          shown.waits_for = WaitsFor(*entry);
        } else if (name.empty()) {
          shown.waits_for = executor_.clock().Now() < hold_until_ || hold_epoch_ != 0
                                ? "all leases of before have to run out: the table was lost"
                                : "no worker that is connected has this address";
        } else if (!shown.connected) {
          shown.waits_for = "its worker is not connected to the policy service";
        }
      }
    }
  }
  return list;
}

}  // namespace sluice::policy
