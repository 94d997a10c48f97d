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
  limits_->Discount({network_, group_});
  limits_ = nullptr;
}

ConnectionLimits::Place ConnectionLimits::PlaceOf(const ClientProfile& profile) {
  const policy::v1::ClientSettings& client = *profile.settings;
  return {client.max_smtp_in() == 0 ? std::string() : NetworkName(client.max_smtp_in_scope()),
          Lower(client.source_group())};
}

void ConnectionLimits::Count(const Place& place) {
  if (!place.network.empty()) ++by_network_[place.network];
  if (!place.group.empty()) ++by_group_[place.group];
  ++total_;
}

void ConnectionLimits::Discount(const Place& place) {
  const auto leave = [](absl::flat_hash_map<std::string, uint64_t>& counts,
                        const std::string& name) {
    if (name.empty()) return;
    const auto it = counts.find(name);
    if (--it->second == 0) counts.erase(it);
  };
  leave(by_network_, place.network);
  leave(by_group_, place.group);
  --total_;
}

std::optional<mail::ServerReply> ConnectionLimits::Refusal(const ClientProfile& profile,
                                                           const Place& place) const {
  const uint64_t total_limit = profile.policy->global().total_max_smtp_in();
  const auto count = [](const absl::flat_hash_map<std::string, uint64_t>& counts,
                        const std::string& name) {
    const auto it = counts.find(name);
    return it == counts.end() ? uint64_t{0} : it->second;
  };
  uint64_t taken = total_;
  for (const policy::v1::SourceGroupSection* each : profile.policy->source_groups()) {
    const std::string name = Lower(each->name());
    const uint64_t used = count(by_group_, name);
    if (name == place.group) {
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
  if (!place.network.empty() &&
      count(by_network_, place.network) >= profile.settings->max_smtp_in()) {
    return mail::ServerReply{421, {4, 7, 0}, "Too many connections from your network"};
  }
  return std::nullopt;
}

std::optional<mail::ServerReply> ConnectionLimits::Take(const ClientProfile& profile, Slot& slot) {
  Place place = PlaceOf(profile);
  const std::lock_guard lock(mutex_);
  if (auto refusal = Refusal(profile, place)) return refusal;
  Count(place);
  slot.limits_ = this;
  slot.network_ = std::move(place.network);
  slot.group_ = std::move(place.group);
  return std::nullopt;
}

std::optional<mail::ServerReply> ConnectionLimits::Move(const ClientProfile& profile, Slot& slot) {
  Place place = PlaceOf(profile);
  const std::lock_guard lock(mutex_);
  // A connection that had no place, as its listener counts none, gets none here.
  if (slot.limits_ != this) return std::nullopt;
  const Place before{slot.network_, slot.group_};
  Discount(before);
  if (auto refusal = Refusal(profile, place)) {
    Count(before);
    return refusal;
  }
  Count(place);
  slot.network_ = std::move(place.network);
  slot.group_ = std::move(place.group);
  return std::nullopt;
}

uint64_t ConnectionLimits::connections() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

}  // namespace sluice::ingest
