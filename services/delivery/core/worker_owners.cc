// What is this worker's: only that is used. The policy service gives a queue to another worker when
// this one has said that it holds nothing of it any more, or when its lease is long over.
#include <algorithm>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// While the policy service answers, its lease never has less left, and shards are not asked.
constexpr Duration kVouchAhead = std::chrono::seconds(14);
constexpr Duration kAskVouches = std::chrono::seconds(3);

}  // namespace

void Worker::Judge(Queue& queue) const {
  queue.mine = owners_ != nullptr ? owners_->OwnerOf(queue.owner_key(), queue.vmta) ==
                                        std::string_view(options_.name)
                                  : !options_.follows_owners;
  queue.leased = owners_ != nullptr && owners_->Leased(queue.vmta);
}

bool Worker::HasLease() const { return executor_.clock().Now() < lease_until_; }

bool Worker::MayUse(const Queue& queue) const {
  return queue.mine && (!queue.leased || HasLease());
}

bool Worker::MayUse(const Source& source) const {
  return owners_ == nullptr || owners_->MayUseSource(options_.name, source.ip);
}

void Worker::SetOwners(std::shared_ptr<const config::Owners> owners) {
  auto before = std::exchange(owners_, std::move(owners));
  // Still the table of an earlier life: nobody else has had since then what is ours.
  const bool same_as_before = before == nullptr && knows_past_ && owners_->epoch() == past_epoch_;
  // A table between them would be one that we never saw.
  if (before != nullptr && before->epoch() + 1 != owners_->epoch()) before = nullptr;
  owners_since_ = executor_.clock().Now();
  // What another worker sent until now is not known: as if all that may pass had just passed.
  const auto had_source = [&](const std::string& ip) {
    return before != nullptr && before->MayUseSource(options_.name, ip);
  };
  for (const auto& [ip, source] : sources_) {
    if (!had_source(ip)) source->pacer.Exhaust(owners_since_);
  }
  const auto had = [&](std::string_view queue) {
    const std::string_view vmta = queue.substr(queue.rfind('/') + 1);
    return before != nullptr && before->OwnerOf(queue, vmta) == std::string_view(options_.name);
  };
  const auto is_foreign = [&](const auto& each) {
    const std::string_view name = each.first;  // of a queue, or of what it sends from one source
    return !had(name.substr(0, name.find('\n')));
  };
  absl::erase_if(resting_, is_foreign);
  if (!same_as_before) {
    absl::erase_if(past_volumes_, is_foreign);
    knows_past_ = false;
    unknown_until_ = owners_since_;
  }
  const auto exhaust = [&](Pace& pace) {
    if (same_as_before) {
      pace.ExhaustRates(owners_since_);
    } else {
      pace.Exhaust(owners_since_);
    }
  };
  for (const auto& [name, queue] : queues_) {
    if (had(queue->owner_key())) continue;
    exhaust(queue->pace);
    for (const auto& part : queue->parts) exhaust(part->pace);
  }
  for (const auto& [key, rollup] : rollups_) {
    if (had(rollup->key)) continue;
    for (Limiter* limiter : rollup->limiters()) limiter->pacer.Exhaust(owners_since_);
    if (rollup->limits.own.volume != nullptr && !same_as_before) {
      rollup->limits.own.volume->Exhaust(owners_since_);
    }
    exhaust(rollup->pace);
    for (const auto& part : rollup->parts) exhaust(part->pace);
  }
  // Our parts of divided limits.
  std::vector<std::string> unchanged = owned_vmtas_;
  SetLimits(&unchanged);
  const auto unknown = [&](Limiter& limit) {
    limit.pacer.Exhaust(owners_since_);
    if (before == nullptr && !same_as_before && limit.volume != nullptr) {
      limit.volume->Exhaust(owners_since_);
    }
  };
  for (const auto& [name, limits] : vmta_limits_) unknown(limits->own);
  for (const auto& [name, limit] : pool_limits_) unknown(*limit);
  for (const auto& [name, limit] : domain_limits_) {
    if (limit->whole ? !had(limit->queue) : before == nullptr) limit->pacer.Exhaust(owners_since_);
  }
  ApplyOwners();
  FreedSlot();
}

// Connections that are to close before the table is kept to: of queues and sources that are not
// ours, and those above our part of a divided limit.
void Worker::MarkForeign() {
  foreign_connections_ = 0;
  std::vector<Limiter*> limits;
  for (const auto& [name, each] : vmta_limits_) limits.push_back(&each->own);
  for (const auto& [name, each] : pool_limits_) limits.push_back(each.get());
  for (const auto& [name, each] : rollups_) {
    for (Limiter* limiter : each->limiters()) limits.push_back(limiter);
  }
  for (const auto& [name, each] : host_limits_) limits.push_back(each.get());
  absl::flat_hash_map<const Limiter*, size_t> left;
  for (const Limiter* limit : limits) left[limit] = limit->connections;
  const auto mark = [&](Conn& conn) {
    conn.foreign = true;
    ++foreign_connections_;
    --left[&conn.queue->limits->own];
    for (const Limiter* pool : conn.queue->limits->pools) --left[pool];
    for (const Limiter* host : conn.hosts) --left[host];
  };
  for (const auto& [name, queue] : queues_) {
    for (const auto& conn : queue->conns) {
      conn->foreign = false;
      if (!queue->mine || !MayUse(*conn->source)) mark(*conn);
    }
  }
  for (const auto& [name, queue] : queues_) {
    const auto& limits_of = *queue->limits;  // clang 14 captures no structured binding
    const auto above = [&](const Conn& conn) {
      return std::any_of(conn.hosts.begin(), conn.hosts.end(),
                         [&](const Limiter* host) { return left[host] > host->most; }) ||
             left[&limits_of.own] > limits_of.own.most ||
             std::any_of(limits_of.pools.begin(), limits_of.pools.end(),
                         [&](const Limiter* pool) { return left[pool] > pool->most; });
    };
    for (const auto& conn : queue->conns) {
      if (!conn->foreign && above(*conn)) mark(*conn);
    }
  }
}

// Closes what is not ours, goes on with what is.
void Worker::ApplyOwners() {
  std::vector<std::string> names;
  for (const auto& [name, queue] : queues_) {
    names.push_back(name);
    Judge(*queue);
  }
  MarkForeign();
  for (const std::string& name : names) {
    const auto found = queues_.find(name);
    if (found == queues_.end()) continue;
    Queue& queue = *found->second;
    QuitAll(queue, true);
    TrimCredits(queue);
    PumpByName(name);
  }
  ReleasedWhenClosed();
}

void Worker::ReleasedWhenClosed() {
  if (owners_ == nullptr || foreign_connections_ > 0 || released_epoch_ == owners_->epoch()) return;
  released_epoch_ = owners_->epoch();
  if (on_released_) on_released_(released_epoch_);
}

// Nothing more of this queue is begun; what is under way ends.
void Worker::Halt(Queue& queue) {
  for (Ref& ref : queue.refs) {
    if (ref.credits > 0) RevokeCredits(ref);
  }
  while (!queue.waiting.empty()) {
    GiveBack(queue.waiting.front().work_id);
    queue.waiting.pop_front();
  }
  QuitAll(queue, false);
  if (queue.mine) {
    Block(queue,
          "the policy service is away, and too few shards can stand in for it: no lease for a "
          "virtual MTA that several workers have",
          {}, true);
    return;
  }
  const std::string_view owner =
      owners_ == nullptr ? std::string_view() : owners_->OwnerOf(queue.owner_key(), queue.vmta);
  Block(
      queue,
      owners_ == nullptr
          ? std::string("the policy service has not said yet which worker has it; one of a release "
                        "before tables of owners never does, and is to be upgraded first")
      : owner.empty()
          ? std::string("the policy service has not given it to a worker yet")
          : absl::StrCat("it belongs to worker ", absl::string_view(owner.data(), owner.size())),
      {}, owners_ == nullptr);
}

void Worker::SetLease(MonotonicTime until, Duration grace) {
  const bool had = HasLease();
  lease_until_ = std::max(lease_until_, until);
  lease_grace_ = grace;
  if (had || !HasLease()) return;
  if (lease_timer_ != 0) executor_.Cancel(lease_timer_);
  lease_timer_ = executor_.At(lease_until_, [this] { OnLeaseEnd(); });
  OnLeaseChange();
  FreedSlot();
}

// The queues that are leased begin or end, and so do our leased sources' parts of limits that
// others share.
void Worker::OnLeaseChange() {
  std::vector<std::string> unchanged = owned_vmtas_;
  SetLimits(&unchanged);
  ApplyOwners();
}

// While the policy service is away, shards say that it has given nothing of ours to others: they
// keep to the same table, and it changes nothing before they have heard of it.
void Worker::AskVouches() {
  vouch_timer_ = executor_.After(kAskVouches, [this] { AskVouches(); });
  if (owners_ == nullptr || owners_->table().witnesses().empty()) return;
  // By a lease of the policy service alone: what is open that is not ours ends with it.
  if (released_epoch_ != owners_->epoch()) return;
  const MonotonicTime now = executor_.clock().Now();
  if (lease_until_ > now + kVouchAhead) return;
  for (const auto& link : links_) {
    if (!link->greeted) continue;
    queue::v1::SourceVouch* vouch = link->out.header.mutable_vouch();
    vouch->set_epoch(owners_->epoch());
    vouch->set_asked_us(now.time_since_epoch().count());
    link->dirty = true;
  }
  FlushLater();
}

void Worker::OnVouch(Link& link, const queue::v1::SourceVouch& vouch) {
  if (owners_ == nullptr || vouch.epoch() != owners_->epoch()) return;
  const MonotonicTime now = executor_.clock().Now();
  const MonotonicTime asked{Duration(vouch.asked_us())};
  if (asked > now) return;
  link.vouched_epoch = vouch.epoch();
  link.vouched_until = std::max(link.vouched_until, asked + Duration(owners_->table().vouch_us()));
  if (released_epoch_ != owners_->epoch()) return;
  MonotonicTime until = VouchedUntil(owners_->table().witnesses());
  if (owners_->table().witnesses_since_epoch() != 0) {
    until = std::min(until, VouchedUntil(owners_->table().next_witnesses()));
  }
  if (until > now) SetLease(until, Duration(owners_->table().grace_us()));
}

// Until when more than half of them stand in.
template <class Names>
MonotonicTime Worker::VouchedUntil(const Names& shards) const {
  std::vector<MonotonicTime> until;
  for (const auto& link : links_) {
    if (link->vouched_epoch == owners_->epoch() &&
        std::find(shards.begin(), shards.end(), link->address.name) != shards.end()) {
      until.push_back(link->vouched_until);
    }
  }
  const size_t needed = config::Owners::VouchesNeeded(static_cast<size_t>(shards.size()));
  if (until.size() < needed) return {};
  std::sort(until.begin(), until.end(), std::greater<>());
  return until[needed - 1];
}

void Worker::OnLeaseEnd() {
  lease_timer_ = 0;
  if (HasLease()) {  // it was renewed
    lease_timer_ = executor_.At(lease_until_, [this] { OnLeaseEnd(); });
    return;
  }
  OnLeaseChange();
  lease_timer_ = executor_.At(lease_until_ + lease_grace_, [this] { CutWhatIsLeft(); });
}

// Somebody else may begin now.
void Worker::CutWhatIsLeft() {
  lease_timer_ = 0;
  std::vector<Conn*> connecting;
  for (const auto& [name, queue] : queues_) {
    for (const auto& conn : queue->conns) {
      if (!conn->foreign && MayUse(*queue)) continue;
      if (conn->ready) {
        conn->connection->Abort();
      } else {
        connecting.push_back(conn.get());
      }
    }
  }
  for (Conn* conn : connecting) RemoveConn(*conn);
}

}  // namespace sluice::delivery
