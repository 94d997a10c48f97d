// Source addresses that a queue does not use: a reply has disabled them (disable-source-ip), or its
// binding has another one (source-interface).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {

bool Worker::IsDisabled(const Queue& queue, const std::string& ip) const {
  const std::string& only = queue.settings->source_interface();
  if (!only.empty() && ip != only) return true;
  if (queue.disabled.empty()) return false;
  return std::any_of(queue.disabled.begin(), queue.disabled.end(), [&](const auto& each) {
    return each.ip() == ip && each.disabled() &&
           (each.until_us() == 0 || WallUs() < each.until_us());
  });
}

bool Worker::AnySourceEnabled(const Queue& queue, int64_t* until_us) const {
  *until_us = 0;
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  if ((queue.disabled.empty() && queue.settings->source_interface().empty()) || vmta == nullptr ||
      vmta->source_hosts().empty()) {
    return true;
  }
  bool any = false;
  for (const auto& host : vmta->source_hosts()) {
    const auto found = sources_.find(host.ip());
    if (found == sources_.end() || !MayUse(*found->second)) continue;
    if (!IsDisabled(queue, host.ip())) return true;
    any = true;
    for (const auto& each : queue.disabled) {
      if (each.ip() != host.ip() || each.until_us() == 0) continue;
      if (*until_us == 0 || each.until_us() < *until_us) *until_us = each.until_us();
    }
  }
  return !any;
}

void Worker::DisableSource(Queue& queue, const std::string& ip, const std::string& reason,
                           int64_t after_us) {
  if (ip.empty() || IsDisabled(queue, ip)) return;
  const int64_t now_us = WallUs();
  const auto change = [&](const std::string& address) -> queue::v1::DisabledSource& {
    auto own = std::find_if(queue.disabled.begin(), queue.disabled.end(),
                            [&](const auto& each) { return each.ip() == address; });
    if (own == queue.disabled.end()) own = queue.disabled.emplace(own);
    const int64_t since_us = std::max(now_us, own->since_us() + 1);
    own->Clear();
    own->set_ip(address);
    own->set_since_us(since_us);
    own->set_author(options_.name);
    return *own;
  };
  queue::v1::DisabledSource& disabled = change(ip);
  disabled.set_disabled(true);
  disabled.set_reason(reason);
  disabled.set_until_us(after_us == 0 ? 0 : now_us + after_us);
  disabled.set_notify(true);
  queue.untold = true;
  int64_t until_us = 0;
  if (queue.settings->backoff_upon_all_sources_disabled() && !AnySourceEnabled(queue, &until_us)) {
    std::vector<std::string> all;
    for (const auto& each : queue.disabled) {
      if (each.disabled()) all.push_back(each.ip());
    }
    for (const std::string& each : all) change(each).set_reason("backoff mode in its place");
    if (!(InBackoff(queue) && queue.mode.by_operator())) {
      SetMode(queue, true,
              absl::StrCat("every source address was disabled, the last for: ", reason),
              queue.settings->backoff_to_normal_after_us());
    }
    TellMode(queue, nullptr, nullptr);
    if (queue.rollup != nullptr) ShareSources(queue);
    return;
  }
  TellMode(queue, nullptr, nullptr);
  CloseDisabled(queue);
  if (queue.rollup != nullptr) ShareSources(queue);
}

// In good order: what is under way ends.
void Worker::CloseDisabled(Queue& queue) {
  std::vector<Conn*> connecting;
  for (const auto& conn : queue.conns) {
    if (!IsDisabled(queue, conn->source->ip) || conn->quitting || conn.get() == judged_) continue;
    if (conn->ready) {
      Quit(*conn);
    } else {
      connecting.push_back(conn.get());
    }
  }
  for (Conn* conn : connecting) RemoveConn(*conn);
  TrimCredits(queue);
}

}  // namespace sluice::delivery
