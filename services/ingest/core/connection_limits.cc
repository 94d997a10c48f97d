#include "services/ingest/core/connection_limits.h"

#include <utility>

#include "services/mail/address.h"

namespace sluice::ingest {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  mail::LowerAscii(lower);
  return lower;
}

// Settings that do not say which section has the limit have one that is their own.
std::string NetworkName(const std::string& scope) { return scope.empty() ? "*" : scope; }

}  // namespace

ConnectionLimits::Slot& ConnectionLimits::Slot::operator=(Slot&& other) noexcept {
  if (this == &other) return *this;
  Release();
  limits_ = std::exchange(other.limits_, nullptr);
  network_ = std::move(other.network_);
  group_ = std::move(other.group_);
  return *this;
}

void ConnectionLimits::Slot::Release() {
  if (limits_ == nullptr) return;
  const std::lock_guard lock(limits_->mutex_);
  --limits_->total_;
  const auto leave = [](absl::flat_hash_map<std::string, uint64_t>& counts,
                        const std::string& name) {
    if (name.empty()) return;
    const auto it = counts.find(name);
    if (--it->second == 0) counts.erase(it);
  };
  leave(limits_->by_network_, network_);
  leave(limits_->by_group_, group_);
  limits_ = nullptr;
}

std::optional<mail::ServerReply> ConnectionLimits::Take(const ClientProfile& profile, Slot& slot) {
  const policy::v1::ClientSettings& client = *profile.settings;
  const uint64_t total_limit = profile.policy->global().total_max_smtp_in();
  const std::string network =
      client.max_smtp_in() == 0 ? std::string() : NetworkName(client.max_smtp_in_scope());
  const std::string group = Lower(client.source_group());
  const std::lock_guard lock(mutex_);
  const auto count = [](const absl::flat_hash_map<std::string, uint64_t>& counts,
                        const std::string& name) {
    const auto it = counts.find(name);
    return it == counts.end() ? uint64_t{0} : it->second;
  };
  uint64_t taken = total_;
  for (const policy::v1::SourceGroupSection* each : profile.policy->source_groups()) {
    const std::string name = Lower(each->name());
    const uint64_t used = count(by_group_, name);
    if (name == group) {
      if (each->max_smtp_in() != 0 && used >= each->max_smtp_in()) {
        return mail::ServerReply{421, {4, 7, 0}, "Too many connections from your networks"};
      }
    } else if (used < each->reserved_smtp_in()) {
      taken += each->reserved_smtp_in() - used;
    }
  }
  if (total_ >= max_connections_ || (total_limit != 0 && taken >= total_limit)) {
    return mail::ServerReply{421, {4, 3, 2}, "Too many connections, try again later"};
  }
  if (!network.empty() && count(by_network_, network) >= client.max_smtp_in()) {
    return mail::ServerReply{421, {4, 7, 0}, "Too many connections from your network"};
  }
  if (!network.empty()) ++by_network_[network];
  if (!group.empty()) ++by_group_[group];
  ++total_;
  slot.limits_ = this;
  slot.network_ = network;
  slot.group_ = group;
  return std::nullopt;
}

uint64_t ConnectionLimits::connections() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

}  // namespace sluice::ingest
