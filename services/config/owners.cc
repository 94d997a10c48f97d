#include "services/config/owners.h"

#include <algorithm>
#include <utility>

namespace sluice::config {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// FNV-1a with a final mix: the same in every process, as they must agree without talking.
uint64_t StableHash(std::string_view a, std::string_view b, std::string_view c) {
  uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&hash](std::string_view part) {
    for (char each : part) hash = (hash ^ static_cast<unsigned char>(each)) * 0x100000001b3;
    hash = (hash ^ 0xff) * 0x100000001b3;
  };
  add(a);
  add(b);
  add(c);
  hash ^= hash >> 33;
  hash *= 0xff51afd7ed558ccd;
  return hash ^ (hash >> 33);
}

}  // namespace

std::shared_ptr<const Owners> Owners::Build(policy::v1::OwnersTable table) {
  auto owners = std::make_shared<Owners>();
  owners->table_ = std::move(table);
  for (const auto& vmta : owners->table_.vmtas()) {
    owners->vmtas_[Lower(vmta.vmta())] = &vmta;
    for (const auto* hosts : {&vmta.hosts(), &vmta.next()}) {
      for (const auto& host : *hosts) {
        if (host.ip().empty()) continue;
        const auto [it, made] = owners->sources_.try_emplace(host.ip(), Source{host.worker()});
        if (!made && it->second.worker != host.worker()) it->second.shared = true;
        it->second.leased &= vmta.leased();
      }
    }
    // On its way from or to nobody.
    if (vmta.moving_since_epoch() == 0) continue;
    const auto holds = [](const auto& hosts, const std::string& ip) {
      for (const auto& host : hosts) {
        if (host.ip() == ip) return true;
      }
      return false;
    };
    for (const auto& host : vmta.hosts()) {
      if (!holds(vmta.next(), host.ip())) owners->sources_[host.ip()].shared = true;
    }
  }
  return owners;
}

const policy::v1::VmtaOwners* Owners::Find(std::string_view vmta) const {
  const auto found = vmtas_.find(Lower(vmta));
  return found == vmtas_.end() ? nullptr : found->second;
}

const policy::v1::HostOwner* Owners::Choose(
    const policy::v1::OwnersTable& table,
    const google::protobuf::RepeatedPtrField<policy::v1::HostOwner>& hosts, std::string_view key) {
  const policy::v1::HostOwner* best = nullptr;
  uint64_t best_hash = 0;
  for (const auto& host : hosts) {
    if (host.worker() >= static_cast<uint32_t>(table.workers_size())) continue;
    if (hosts.size() == 1) return &host;
    const std::string& worker = table.workers(static_cast<int>(host.worker()));
    const uint64_t hash = StableHash(key, host.ip(), host.ip().empty() ? worker : std::string());
    if (best == nullptr || hash > best_hash) {
      best = &host;
      best_hash = hash;
    }
  }
  return best;
}

std::string_view Owners::OwnerOf(std::string_view queue, std::string_view vmta) const {
  const policy::v1::VmtaOwners* entry = Find(vmta);
  if (entry == nullptr) return {};
  const auto* now = Choose(table_, entry->hosts(), entry->whole() ? vmta : queue);
  if (now == nullptr) return {};
  if (entry->moving_since_epoch() != 0) {
    const auto* next = Choose(table_, entry->next(), entry->next_whole() ? vmta : queue);
    if (next == nullptr || next->worker() != now->worker()) return {};
  }
  return table_.workers(static_cast<int>(now->worker()));
}

bool Owners::Leased(std::string_view vmta) const {
  const policy::v1::VmtaOwners* entry = Find(vmta);
  return entry != nullptr && entry->leased();
}

Owners::Part Owners::PartOf(std::string_view worker, std::string_view vmta) const {
  const policy::v1::VmtaOwners* entry = Find(vmta);
  if (entry == nullptr) return Part::kNone;
  const auto part = [&](const auto& hosts, bool whole) {
    if (!whole) return Part::kOfItsSources;
    const auto* owner = Choose(table_, hosts, vmta);
    const bool all =
        owner != nullptr && table_.workers(static_cast<int>(owner->worker())) == worker;
    return all ? Part::kAll : Part::kNone;
  };
  const Part now = part(entry->hosts(), entry->whole());
  if (entry->moving_since_epoch() == 0) return now;
  return std::min(now, part(entry->next(), entry->next_whole()));  // until it has changed hands
}

bool Owners::MayUseSource(std::string_view worker, std::string_view ip) const {
  if (ip.empty()) return true;
  const auto found = sources_.find(std::string(ip));
  if (found == sources_.end() || found->second.shared ||
      found->second.worker >= static_cast<uint32_t>(table_.workers_size())) {
    return false;
  }
  return table_.workers(static_cast<int>(found->second.worker)) == worker;
}

bool Owners::SourceLeased(std::string_view ip) const {
  const auto found = sources_.find(std::string(ip));
  return found != sources_.end() && found->second.leased;
}

}  // namespace sluice::config
