#include "services/policy/core/source_owners.h"

#include <algorithm>
#include <utility>

namespace sluice::policy {
namespace {

constexpr Duration kLookAgain = std::chrono::seconds(1);

bool SameHosts(const google::protobuf::RepeatedPtrField<v1::HostOwner>& a,
               const google::protobuf::RepeatedPtrField<v1::HostOwner>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.ip() == y.ip() && x.worker() == y.worker();
  });
}

// Names that no entry refers to any more.
void DropUnused(v1::OwnersTable* table) {
  std::map<uint32_t, uint32_t> place;
  std::vector<std::string> names;
  for (auto& entry : *table->mutable_vmtas()) {
    for (auto* hosts : {entry.mutable_hosts(), entry.mutable_next()}) {
      for (v1::HostOwner& host : *hosts) {
        const auto [it, made] =
            place.try_emplace(host.worker(), static_cast<uint32_t>(names.size()));
        if (made) names.push_back(table->workers(static_cast<int>(host.worker())));
        host.set_worker(it->second);
      }
    }
  }
  table->mutable_workers()->Assign(names.begin(), names.end());
}

SourceOwnersOptions Sorted(SourceOwnersOptions options) {
  std::vector<std::string>& names = options.witnesses;
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return options;
}

}  // namespace

bool SourceOwners::OneWorkers(const v1::VirtualMtaSection& vmta) {
  // A part of it would be too small for messages that the whole has room for.
  if (vmta.has_max_smtp_data_volume_rate() && !vmta.max_smtp_data_volume_rate().unlimited()) {
    return true;
  }
  uint64_t least = UINT64_MAX;
  if (vmta.max_smtp_out() > 0) least = vmta.max_smtp_out();
  if (vmta.has_max_smtp_msg_rate() && !vmta.max_smtp_msg_rate().unlimited()) {
    least = std::min<uint64_t>(least, vmta.max_smtp_msg_rate().count());
  }
  return least != UINT64_MAX &&
         (vmta.source_hosts().empty() || least < static_cast<uint64_t>(vmta.source_hosts_size()));
}

SourceOwners::SourceOwners(Executor& executor, SourceOwnersOptions options, Publish publish)
    : executor_(executor), options_(Sorted(std::move(options))), publish_(std::move(publish)) {}

SourceOwners::~SourceOwners() {
  alive_.reset();
  if (timer_ != 0) executor_.Cancel(timer_);
}

void SourceOwners::Load(v1::OwnersTable table) {
  table_ = std::move(table);
  for (auto& entry : *table_.mutable_vmtas()) {
    for (auto* hosts : {entry.mutable_hosts(), entry.mutable_next()}) {
      for (int i = hosts->size() - 1; i >= 0; --i) {
        if (hosts->Get(i).worker() < static_cast<uint32_t>(table_.workers_size())) continue;
        hosts->DeleteSubrange(i, 1);  // not written by us
      }
    }
  }
  const MonotonicTime now = executor_.clock().Now();
  for (const std::string& name : table_.workers()) {
    if (name == table_.embedded_worker() && name != options_.embedded_worker) continue;
    // It may have had a lease a moment before this process began.
    workers_[name].last_lease = now;
    workers_[name].seen = now;
  }
  StepLater();
}

void SourceOwners::SetConfig(std::vector<Vmta> vmtas) {
  vmtas_ = std::move(vmtas);
  StepLater();
}

std::optional<v1::SourceLease> SourceOwners::OnReport(const std::string& name,
                                                      const v1::ServiceReport& report) {
  Worker& worker = workers_[name];
  const MonotonicTime now = executor_.clock().Now();
  // A process of before, heard late; or its machine's clock was set back, and there is no other.
  if (report.incarnation() < worker.incarnation && now < worker.seen + LeaseAndGrace()) {
    return std::nullopt;
  }
  std::set<std::string> ips(report.owned_source_ips().begin(), report.owned_source_ips().end());
  if (!worker.connected || ips != worker.ips || report.incarnation() != worker.incarnation ||
      report.released_epoch() != worker.released_epoch) {
    StepLater();
  }
  worker.connected = true;
  worker.incarnation = report.incarnation();
  worker.ips = std::move(ips);
  worker.released_epoch = report.released_epoch();
  worker.seen = now;
  if (report.released_epoch() > table_.epoch()) Settle(report.released_epoch());
  if (report.lease_request() == 0) return std::nullopt;
  if (worker.asked_to_release != MonotonicTime{} &&
      now > worker.asked_to_release + options_.patience) {
    return std::nullopt;
  }
  worker.last_lease = now;
  worker.given = true;
  v1::SourceLease lease;
  lease.set_request(report.lease_request());
  lease.set_lease_us(options_.lease.count());
  lease.set_grace_us(options_.grace.count());
  return lease;
}

void SourceOwners::OnGone(const std::string& name) {
  const auto found = workers_.find(name);
  if (found == workers_.end()) return;
  found->second.connected = false;
  StepLater();
}

void SourceOwners::OnShardReport(const v1::ServiceReport& report) {
  if (report.shard().empty()) return;
  witnesses_.OnReport(report.shard(), report.released_epoch(), executor_.clock().Now());
  if (report.released_epoch() > table_.epoch()) Settle(report.released_epoch());
  StepLater();
}

void SourceOwners::OnShardHello(const std::string& shard, bool keeps_owners) {
  if (keeps_owners) {
    witnesses_.OnGone(shard);
  } else {
    witnesses_.OnOldRelease(shard, executor_.clock().Now());
  }
  StepLater();
}

void SourceOwners::OnShardGone(const std::string& shard) { witnesses_.OnGone(shard); }

// Somebody knows a later table than ours: our data are lost, or an old copy. What was given then is
// not known, so all stops until every lease of then is over.
void SourceOwners::Settle(uint64_t least_epoch) {
  v1::OwnersTable empty;
  empty.set_epoch(least_epoch + 1);
  empty.set_embedded_worker(options_.embedded_worker);
  empty.mutable_witnesses()->Assign(options_.witnesses.begin(), options_.witnesses.end());
  empty.set_vouch_us(options_.lease.count());
  empty.set_grace_us(options_.grace.count());
  if (!publish_(empty).ok()) return;  // the next report comes soon
  table_ = std::move(empty);
  hold_until_ = executor_.clock().Now() + LeaseAndGrace();
  hold_epoch_ = table_.epoch();
}

// By our clock: theirs may be slower by 5 %.
Duration SourceOwners::LeaseAndGrace() const {
  return (options_.lease + options_.grace) * 21 / 20 + std::chrono::seconds(5);
}

bool SourceOwners::LeaseIsOver(const Worker& worker) const {
  return executor_.clock().Now() >= worker.last_lease + LeaseAndGrace();
}

bool SourceOwners::Fenced(uint64_t epoch) const {
  return witnesses_.Fenced({table_.witnesses().begin(), table_.witnesses().end()}, epoch,
                           executor_.clock().Now() - LeaseAndGrace());
}

bool SourceOwners::Alive(const std::string& name) const {
  const auto found = workers_.find(name);
  if (found == workers_.end()) return false;
  if (found->second.connected) return true;
  if (table_.witnesses().empty()) return !LeaseIsOver(found->second);
  // Earlier, as the shards have to be asked then, and that takes as long again.
  return executor_.clock().Now() < found->second.last_lease + options_.lease;
}

bool SourceOwners::Expired(const std::string& name, const v1::VmtaOwners& entry) const {
  const auto found = workers_.find(name);
  if (found == workers_.end()) return true;  // it died with a former process of ours
  const Worker& worker = found->second;
  if (entry.moving_since_epoch() != 0 && entry.leased_before()) {
    return LeaseIsOver(worker) && Fenced(entry.moving_since_epoch());
  }
  if (worker.connected || !LeaseIsOver(worker)) return false;
  if (executor_.clock().Now() >= worker.seen + options_.gone) return true;
  // An address is on one machine: where another worker has it now, this one has it no more.
  for (const v1::HostOwner& host : entry.hosts()) {
    if (table_.workers(static_cast<int>(host.worker())) != name) continue;
    const bool moved =
        !host.ip().empty() && std::any_of(workers_.begin(), workers_.end(), [&](const auto& each) {
          return each.first != name && each.second.connected && each.second.ips.contains(host.ip());
        });
    if (!moved) return false;
  }
  return true;
}

std::set<std::string> SourceOwners::WorkersOf(const Hosts& hosts) const {
  std::set<std::string> names;
  for (const auto& host : hosts) names.insert(table_.workers(static_cast<int>(host.worker())));
  return names;
}

// Who has each address, for all virtual MTAs alike; nobody loses one while it may be alive.
std::map<std::string, std::string> SourceOwners::ChooseSources() const {
  std::map<std::string, std::string> sources;
  std::map<std::string, size_t> has;
  for (const v1::VmtaOwners& entry : table_.vmtas()) {
    const Hosts& hosts = entry.moving_since_epoch() != 0 ? entry.next() : entry.hosts();
    for (const auto& host : hosts) {
      sources[host.ip()] = table_.workers(static_cast<int>(host.worker()));
    }
  }
  for (const auto& [ip, name] : sources) ++has[name];
  for (const Vmta& vmta : vmtas_) {
    for (const std::string& ip : vmta.ips) {
      std::string& owner = sources[ip];
      const auto found = workers_.find(owner);
      if (found != workers_.end() &&
          (found->second.connected ? found->second.ips.contains(ip) : Alive(owner))) {
        continue;
      }
      // One that has it now, and of these one that has few.
      const std::string* best = nullptr;
      for (const auto& [name, worker] : workers_) {
        if (!worker.connected || !worker.ips.contains(ip)) continue;
        if (best == nullptr || has[name] < has[*best]) best = &name;
      }
      if (best != nullptr) {
        owner = *best;
        ++has[owner];
      } else if (found != workers_.end() && found->second.connected) {
        owner.clear();  // its machine has the address no more
      }
    }
  }
  return sources;
}

uint32_t SourceOwners::IndexOf(const std::string& worker) {
  for (int i = 0; i < table_.workers_size(); ++i) {
    if (table_.workers(i) == worker) return static_cast<uint32_t>(i);
  }
  table_.add_workers(worker);
  return static_cast<uint32_t>(table_.workers_size() - 1);
}

void SourceOwners::Desired(const Vmta& vmta, const std::map<std::string, std::string>& sources,
                           const Hosts* before, v1::VmtaOwners* desired) {
  const auto add = [&](const std::string& ip, const std::string& worker) {
    v1::HostOwner* host = desired->add_hosts();
    host->set_ip(ip);
    host->set_worker(IndexOf(worker));
  };
  desired->set_vmta(vmta.name);
  desired->set_whole(vmta.whole);
  bool contested = false;
  for (const std::string& ip : vmta.ips) {
    const auto found = sources.find(ip);
    if (found != sources.end() && Alive(found->second)) add(ip, found->second);
    contested |= std::count_if(workers_.begin(), workers_.end(), [&](const auto& each) {
                   return each.second.ips.contains(ip) && Alive(each.first);
                 }) > 1;
  }
  if (vmta.ips.empty()) {
    for (const auto& [name, worker] : workers_) {
      if (Alive(name)) add("", name);
    }
  }
  if (desired->hosts().empty()) {
    // Nobody is there who could do it instead.
    for (const std::string& ip : vmta.ips) {
      const auto found = sources.find(ip);
      if (found != sources.end() && !found->second.empty()) add(ip, found->second);
    }
    if (vmta.ips.empty() && before != nullptr) *desired->mutable_hosts() = *before;
  }
  desired->set_leased(contested || WorkersOf(desired->hosts()).size() > 1);
}

// True where the entry has changed. One that has no hosts any more is to be dropped.
bool SourceOwners::StepEntry(v1::VmtaOwners& entry, const v1::VmtaOwners& desired, uint64_t epoch) {
  const std::set<std::string> holders = WorkersOf(entry.hosts());
  if (entry.moving_since_epoch() == 0) {
    const bool same = SameHosts(entry.hosts(), desired.hosts()) && entry.whole() == desired.whole();
    if (same && entry.leased() == desired.leased()) return false;
    if (same && !desired.leased()) {  // nobody to share it with any more
      entry.set_leased(false);
      return true;
    }
    for (const std::string& name : holders) {
      const auto found = workers_.find(name);
      if (found != workers_.end() && found->second.connected) continue;
      // It could not agree: what it has alone it keeps, and what it shares for as long as a lease.
      if (entry.leased() ? Alive(name) : !Expired(name, entry)) return false;
    }
    entry.set_moving_since_epoch(epoch);
    *entry.mutable_next() = desired.hosts();
    entry.set_next_whole(desired.whole());
    entry.set_leased_before(entry.leased());
    entry.set_leased(true);
    return true;
  }
  bool waits = false;
  bool undo = false;
  for (const std::string& name : holders) {
    if (Expired(name, entry)) continue;
    Worker& worker = workers_[name];
    if (worker.released_epoch >= entry.moving_since_epoch()) continue;
    waits = true;
    undo |= !worker.connected && !entry.leased_before();
  }
  if (!waits) {
    entry.mutable_hosts()->Swap(entry.mutable_next());
    entry.set_whole(entry.next_whole());
    // As long as it is not what is wanted, it is not in anybody's sole hands.
    entry.set_leased(desired.leased() || !SameHosts(entry.hosts(), desired.hosts()));
  } else if (undo) {
    // It went away before it heard of this, and goes on without us.
    entry.set_leased(entry.leased_before());
  } else {
    return false;
  }
  entry.set_moving_since_epoch(0);
  entry.clear_next();
  entry.clear_next_whole();
  entry.clear_leased_before();
  return true;
}

// Another set of shards counts when everybody knows that it will; until then each set is asked.
bool SourceOwners::StepWitnesses(uint64_t epoch) {
  const auto same = [](const auto& a, const auto& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  };
  if (table_.witnesses_since_epoch() == 0) {
    if (same(table_.witnesses(), options_.witnesses)) return false;
    auto* names =
        table_.witnesses().empty() ? table_.mutable_witnesses() : table_.mutable_next_witnesses();
    names->Assign(options_.witnesses.begin(), options_.witnesses.end());
    if (names == table_.mutable_next_witnesses()) table_.set_witnesses_since_epoch(epoch);
    return true;
  }
  for (const std::string& name : table_.workers()) {
    const auto found = workers_.find(name);
    if (found == workers_.end()) continue;
    if (found->second.released_epoch >= table_.witnesses_since_epoch()) continue;
    if (!LeaseIsOver(found->second) || !Fenced(table_.witnesses_since_epoch())) return false;
  }
  table_.mutable_witnesses()->Swap(table_.mutable_next_witnesses());
  table_.clear_next_witnesses();
  table_.clear_witnesses_since_epoch();
  return true;
}

void SourceOwners::StepLater() {
  if (std::exchange(posted_, true)) return;
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired()) return;
    posted_ = false;
    Step();
  });
}

void SourceOwners::Step() {
  if (timer_ != 0) executor_.Cancel(std::exchange(timer_, 0));
  const MonotonicTime now = executor_.clock().Now();
  if (now >= hold_until_ && hold_epoch_ != 0 && Fenced(hold_epoch_)) hold_epoch_ = 0;
  bool again = now < hold_until_ || hold_epoch_ != 0;
  const v1::OwnersTable before = table_;
  if (!again) {
    const uint64_t epoch = table_.epoch() + 1;
    const std::map<std::string, std::string> sources = ChooseSources();
    bool changed = table_.embedded_worker() != options_.embedded_worker;
    std::map<std::string, int> known;
    for (int i = 0; i < table_.vmtas_size(); ++i) known[table_.vmtas(i).vmta()] = i;
    const auto step = [&](int place, const v1::VmtaOwners& desired) {
      v1::VmtaOwners& entry = *table_.mutable_vmtas(place);
      changed |= StepEntry(entry, desired, epoch);
      again |= entry.moving_since_epoch() != 0 || !SameHosts(entry.hosts(), desired.hosts()) ||
               entry.leased() != desired.leased() || entry.whole() != desired.whole();
    };
    for (const Vmta& vmta : vmtas_) {
      v1::VmtaOwners desired;
      const auto found = known.find(vmta.name);
      if (found == known.end()) {
        Desired(vmta, sources, nullptr, &desired);
        if (desired.hosts().empty()) continue;
        *table_.add_vmtas() = std::move(desired);  // nobody has ever had it
        changed = true;
        continue;
      }
      Desired(vmta, sources, &table_.vmtas(found->second).hosts(), &desired);
      step(found->second, desired);
      known.erase(found);
    }
    changed |= StepWitnesses(epoch);
    again |= table_.witnesses_since_epoch() != 0;
    for (const auto& [name, place] : known) step(place, v1::VmtaOwners());  // not configured now
    for (int i = table_.vmtas_size() - 1; i >= 0; --i) {
      if (table_.vmtas(i).hosts().empty()) table_.mutable_vmtas()->DeleteSubrange(i, 1);
    }
    if (changed) {
      table_.set_epoch(epoch);
      table_.set_embedded_worker(options_.embedded_worker);
      table_.set_vouch_us(options_.lease.count());
      table_.set_grace_us(options_.grace.count());
      DropUnused(&table_);
      if (!publish_(table_).ok()) {
        table_ = before;
        again = true;
      }
    } else {
      table_ = before;  // names that Desired added
    }
  }
  std::set<std::string> owing;
  for (const v1::VmtaOwners& entry : table_.vmtas()) {
    if (entry.moving_since_epoch() == 0) continue;
    for (const std::string& name : WorkersOf(entry.hosts())) {
      const auto found = workers_.find(name);
      if (found != workers_.end() && found->second.released_epoch < entry.moving_since_epoch()) {
        owing.insert(name);
      }
    }
  }
  for (auto& [name, worker] : workers_) {
    if (!owing.contains(name)) {
      worker.asked_to_release = {};
    } else if (worker.asked_to_release == MonotonicTime{}) {
      worker.asked_to_release = now;
    }
    again |= !worker.connected && !LeaseIsOver(worker);
  }
  if (again) {
    timer_ = executor_.After(kLookAgain, [this] {
      timer_ = 0;
      Step();
    });
  }
}

}  // namespace sluice::policy
