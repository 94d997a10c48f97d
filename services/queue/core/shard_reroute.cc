// Mail that its queue's settings send by another virtual MTA: what comes in, and what waits, a
// bounded number of rows a turn.
#include "absl/strings/match.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// Until a queue is looked through again: what was busy may be free by then.
constexpr int64_t kAgainUs = 5'000'000;
constexpr int kRowsPerTurn = 500;

bool EqualsIgnoreCase(const std::string& a, std::string_view b) {
  return absl::EqualsIgnoreCase(a, absl::string_view(b.data(), b.size()));
}

}  // namespace

const std::string& Shard::RerouteTarget(Queue& queue) {
  static const std::string none;
  const auto& settings = SettingsOf(queue);
  const std::string& in_backoff = settings.backoff_reroute_to_virtual_mta();
  const std::string& target =
      !in_backoff.empty() && InBackoff(queue) ? in_backoff : settings.reroute_to_virtual_mta();
  // What an operator stops is to stay where it is. For all domains it is said of the target, too.
  if (target.empty() || queue.paused || EqualsIgnoreCase(target, queue.vmta())) return none;
  return target;
}

// A recipient is moved once, by this or by an operator: two queues that name each other pass
// nothing to and fro.
bool Shard::RerouteByPolicy(Queue& queue, common::v1::Delivery& delivery) {
  const std::string& target = RerouteTarget(queue);
  if (target.empty() || delivery.has_reroute() || delivery.has_hold()) return false;
  std::string vmta;
  const auto* const pool = policy_->FindPool(target);
  if (pool == nullptr) {
    if (const auto* found = policy_->FindVirtualMta(target)) vmta = found->name();
  } else {
    for (int tries = 0; tries < pool->virtual_mtas_size() && vmta.empty(); ++tries) {
      const auto turn = pool_turn_++ % static_cast<uint64_t>(pool->virtual_mtas_size());
      const std::string& next = pool->virtual_mtas(static_cast<int>(turn));
      if (next != queue.vmta()) vmta = next;
    }
  }
  if (vmta.empty()) return false;
  if (delivery.first_vmta().empty()) {
    delivery.set_first_vmta(std::string(queue.vmta()));
    delivery.set_first_queue(queue.name);
  }
  delivery.set_vmta(vmta);
  pool == nullptr ? delivery.clear_pool() : delivery.set_pool(pool->name());
  common::v1::Intervention& reroute = *delivery.mutable_reroute();
  reroute.set_target(target);
  reroute.set_author("policy");
  reroute.set_reason(&target == &SettingsOf(queue).reroute_to_virtual_mta()
                         ? "reroute-to-virtual-mta"
                         : "backoff-reroute-to-virtual-mta");
  reroute.set_since_us(NowUs());
  return true;
}

void Shard::RerouteWaiting(Queue& queue) {
  if (queue.recipients == 0 || RerouteTarget(queue).empty()) return;
  const int64_t now_us = NowUs();
  int64_t& next_us = reroutes_[queue.id];
  if (now_us < next_us) return;
  next_us = kNever;  // while it goes on
  RerouteSome(queue, {});
}

// `position` is the last row looked at.
void Shard::RerouteSome(Queue& queue, std::string position) {
  const std::string domain(queue.domain());
  int budget = kRowsPerTurn;
  const auto move = [&](Lane& lane, const DeliveryKey& key, common::v1::Delivery& delivery) {
    if (lane.busy.contains(key) || !RerouteByPolicy(queue, delivery)) return;
    std::string text;
    common::v1::Message envelope;
    if (!store_.Get(Family::kMessages, U64Key(key.storage_key), &text).ok() ||
        !envelope.ParseFromString(text)) {
      return;
    }
    Queue& to = queues_.Get(domain, delivery.vmta(), delivery.pool(), journal_.batch());
    if (to.settings == nullptr) RefreshPause(to);
    LaneFor(to, lane.id, lane.job_id(), lane.priority);
    DeliveryKey next = key;
    next.queue_id = to.id;
    common::v1::Event& event = NewEvent(common::v1::EVENT_KIND_REROUTED, to, envelope, &delivery);
    event.set_from_queue(queue.name);
    event.set_author(delivery.reroute().author());
    event.set_reason(delivery.reroute().reason());
    MoveRow(queue, key, to, next, delivery, envelope);
  };
  const bool through = LookThrough(queue, PausedLanes::kSkip, position, budget, move);
  journal_.WhenDurable([this, id = queue.id, through,
                        position = std::move(position)](const absl::Status& status) mutable {
    Queue* queue = status.ok() ? queues_.FindById(id) : nullptr;
    if (queue != nullptr && !through && !RerouteTarget(*queue).empty()) {
      RerouteSome(*queue, std::move(position));
    } else if (queue == nullptr) {
      reroutes_.erase(id);
    } else {
      reroutes_[id] = NowUs() + kAgainUs;
    }
  });
}

}  // namespace sluice::queue
