#include "services/ingest/core/auth_failures.h"

#include <algorithm>

#include "services/base/net/ip_address.h"

namespace sluice::ingest {
namespace {

constexpr Duration kFirstDelay = std::chrono::seconds(1);
constexpr uint32_t kMaxDoublings = 4;
constexpr Duration kForgiven = std::chrono::minutes(10);

}  // namespace

std::string AuthFailures::NetworkOf(std::string_view client_ip) {
  const auto address = IpAddress::Parse(client_ip);
  if (!address) return std::string(client_ip);
  if (address->is_v4()) return "4" + std::to_string(address->v4() >> 8);
  std::string key = "6";
  for (size_t i = 0; i < 8; ++i) key += static_cast<char>(address->bytes()[i]);
  return key;
}

AuthFailures::Network& AuthFailures::Touch(std::string_view client_ip) {
  std::string key = NetworkOf(client_ip);
  const auto found = networks_.find(key);
  if (found != networks_.end()) {
    by_age_.splice(by_age_.end(), by_age_, found->second.place);
    return found->second;
  }
  if (networks_.size() >= max_networks_) {
    networks_.erase(by_age_.front());
    by_age_.pop_front();
  }
  by_age_.push_back(key);
  Network& network = networks_[std::move(key)];
  network.place = std::prev(by_age_.end());
  return network;
}

bool AuthFailures::Begin(std::string_view client_ip, const policy::v1::Rate& rate,
                         MonotonicTime now) {
  if (rate.unlimited() || rate.period_us() == 0) return true;
  std::lock_guard lock(mutex_);
  Network& network = Touch(client_ip);
  const Duration period(static_cast<int64_t>(rate.period_us()));
  if (now >= network.window_start + 2 * period) {
    network.window_start = now;
    network.in_window = 0;
    network.in_last_window = 0;
  } else if (now >= network.window_start + period) {
    network.window_start += period;
    network.in_last_window = network.in_window;
    network.in_window = 0;
  }
  // Two neighbouring windows together cover any window of one period.
  if (network.in_window + network.in_last_window >= rate.count()) return false;
  ++network.in_window;
  return true;
}

Duration AuthFailures::OnFailure(std::string_view client_ip, MonotonicTime now) {
  std::lock_guard lock(mutex_);
  Network& network = Touch(client_ip);
  if (now >= network.last_failure + kForgiven) network.streak = 0;
  network.last_failure = now;
  const uint32_t doublings = std::min(network.streak++, kMaxDoublings);
  return kFirstDelay * (1 << doublings);
}

void AuthFailures::OnSuccess(std::string_view client_ip, const policy::v1::Rate& rate,
                             MonotonicTime begun) {
  std::lock_guard lock(mutex_);
  const auto found = networks_.find(NetworkOf(client_ip));
  if (found == networks_.end()) return;
  Network& network = found->second;
  // Where Begin counted it, and nowhere else: who has one password would buy guesses with it.
  const Duration period(static_cast<int64_t>(rate.period_us()));
  uint64_t* const counted = begun >= network.window_start            ? &network.in_window
                            : begun + period >= network.window_start ? &network.in_last_window
                                                                     : nullptr;
  if (counted != nullptr && *counted > 0) --*counted;
}

size_t AuthFailures::networks() const {
  std::lock_guard lock(mutex_);
  return networks_.size();
}

}  // namespace sluice::ingest
