#include "services/ingest/core/connection_limits.h"

#include <utility>

namespace sluice::ingest {

ConnectionLimits::Slot& ConnectionLimits::Slot::operator=(Slot&& other) noexcept {
  if (this == &other) return *this;
  Release();
  limits_ = std::exchange(other.limits_, nullptr);
  network_ = std::move(other.network_);
  return *this;
}

void ConnectionLimits::Slot::Release() {
  if (limits_ == nullptr) return;
  const std::lock_guard lock(limits_->mutex_);
  --limits_->total_;
  const auto it = limits_->by_network_.find(network_.get());
  if (--it->second == 0) limits_->by_network_.erase(it);
  limits_ = nullptr;
}

std::optional<mail::ServerReply> ConnectionLimits::Take(const ClientProfile& profile, Slot& slot) {
  const uint64_t total_limit = profile.policy->global().total_max_smtp_in();
  const uint64_t network_limit = profile.settings->max_smtp_in();
  const std::lock_guard lock(mutex_);
  if (total_ >= max_connections_ || (total_limit != 0 && total_ >= total_limit)) {
    return mail::ServerReply{421, {4, 3, 2}, "Too many connections, try again later"};
  }
  uint64_t& network = by_network_[profile.settings.get()];
  if (network_limit != 0 && network >= network_limit) {
    return mail::ServerReply{421, {4, 7, 0}, "Too many connections from your network"};
  }
  ++network;
  ++total_;
  slot.limits_ = this;
  slot.network_ = profile.settings;
  return std::nullopt;
}

uint64_t ConnectionLimits::connections() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

}  // namespace sluice::ingest
