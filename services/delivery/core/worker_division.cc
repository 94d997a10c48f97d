// What this worker has of a limit that several workers share: the part that its sources are of all.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// Tables of owners that are remembered; of older ones the least that we had counts.
constexpr size_t kMostPasts = 16;
constexpr Duration kLongAgo = std::chrono::hours(24 * 31);

}  // namespace

// This worker's part of a limit that others share: as many of `sources` as it owns, and the rest of
// the division to the first ones. What needs no source is everybody's. Without the lease only that
// which nobody else can have been given.
uint64_t Worker::ShareOf(uint64_t limit, const std::vector<std::string>& sources,
                         bool with_lease) const {
  if (sources.empty()) return limit;
  uint64_t share = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const bool mine =
        options_.follows_owners
            ? HasPartOf(sources[i]) && (with_lease || !owners_->SourceLeased(sources[i]))
            : Owns(sources[i]);
    if (mine) share += limit / sources.size() + (i < limit % sources.size() ? 1 : 0);
  }
  return share;
}

bool Worker::HasPartOf(const std::string& source) const {
  return owners_ != nullptr && owners_->MayUseSource(options_.name, source);
}

// Of a virtual MTA's own limit, all may be one worker's. Its queues are leased or not as one.
uint64_t Worker::ShareOf(uint64_t limit, const std::string& vmta,
                         const std::vector<std::string>& sources) const {
  if (owners_ == nullptr) return ShareOf(limit, sources, true);
  switch (owners_->PartOf(options_.name, vmta)) {
    case config::Owners::Part::kNone:
      return 0;
    case config::Owners::Part::kOfItsSources:
      return ShareOf(limit, sources, true);
    case config::Owners::Part::kAll:
      return limit;
  }
  return 0;
}

// The sources that a rate of the domain's, or of a pool's, is divided over: addresses, and virtual
// MTAs that have none, each after a line end.
std::vector<std::string> Worker::SourcesOf(const std::string& pool) const {
  absl::flat_hash_set<std::string> members;
  for (const auto* each : policy_->pools()) {
    if (absl::EqualsIgnoreCase(each->name(), pool)) {
      for (const std::string& name : each->virtual_mtas()) {
        members.insert(absl::AsciiStrToLower(name));
      }
    }
  }
  std::vector<std::string> sources;
  absl::flat_hash_set<std::string> seen;
  for (const auto* vmta : policy_->virtual_mtas()) {
    if (!pool.empty() && !members.contains(absl::AsciiStrToLower(vmta->name()))) continue;
    if (vmta->source_hosts().empty()) sources.push_back(absl::StrCat("\n", vmta->name()));
    for (const auto& host : vmta->source_hosts()) {
      if (seen.insert(host.ip()).second) sources.push_back(host.ip());
    }
  }
  return sources;
}

// Those of the configuration that nobody else uses now.
absl::flat_hash_set<std::string> Worker::SourcesHeld() const {
  absl::flat_hash_set<std::string> held;
  for (const auto* vmta : policy_->virtual_mtas()) {
    if (vmta->source_hosts().empty()) {
      const bool mine = owners_ == nullptr ? !options_.follows_owners
                                           : owners_->OwnerOf(vmta->name(), vmta->name()) ==
                                                     std::string_view(options_.name) &&
                                                 (HasLease() || !owners_->Leased(vmta->name()));
      if (mine) held.insert(absl::StrCat("\n", vmta->name()));
    }
    for (const auto& host : vmta->source_hosts()) {
      std::string local_ip;
      if (options_.follows_owners
              ? HasPartOf(host.ip()) && (HasLease() || !owners_->SourceLeased(host.ip()))
              : OwnsHost(host, &local_ip)) {
        held.insert(host.ip());
      }
    }
  }
  return held;
}

// After the policy, the table of owners or the lease has changed.
void Worker::SetSourcesHeld() {
  const MonotonicTime now = executor_.clock().Now();
  absl::flat_hash_set<std::string> held = SourcesHeld();
  const std::vector<std::string> sources = SourcesOf("");
  const bool alone = std::all_of(sources.begin(), sources.end(),
                                 [&](const auto& source) { return held.contains(source); });
  if (held != held_sources_) {
    // Before the first table nothing is known, and nothing was sent. One worker that has all of
    // them, before and after, has got nothing from others, nor has one whose lease came back
    // before the table changed.
    const uint64_t epoch = owners_ == nullptr ? 0 : owners_->epoch();
    if (knows_sources_ && epoch != parts_epoch_ && !(alone && alone_)) {
      past_sources_.push_back({now, std::move(held_sources_)});
    }
    held_sources_ = std::move(held);
  }
  alone_ = alone;
  if (owners_ != nullptr) parts_epoch_ = owners_->epoch();
  knows_sources_ |= !options_.follows_owners || owners_ != nullptr;
  while (!past_sources_.empty() && past_sources_.front().until + kLongAgo <= now) {
    past_sources_.pop_front();
  }
  while (past_sources_.size() > kMostPasts) {
    absl::erase_if(past_sources_[1].sources, [&](const std::string& source) {
      return !past_sources_[0].sources.contains(source);
    });
    past_sources_.pop_front();
  }
  divisions_.clear();
}

const Worker::Division& Worker::DivisionOf(const std::string& pool) {
  std::unique_ptr<Division>& division = divisions_[pool];
  if (division == nullptr) {
    division = std::make_unique<Division>();
    const std::vector<std::string> sources = SourcesOf(pool);
    division->count = sources.size();
    const auto add = [&](MonotonicTime until, const absl::flat_hash_set<std::string>& held) {
      auto& [end, places] = division->held.emplace_back();
      end = until;
      for (size_t i = 0; i < sources.size(); ++i) {
        if (held.contains(sources[i])) places.push_back(i);
      }
    };
    for (const PastSources& past : past_sources_) add(past.until, past.sources);
    add(MonotonicTime::max(), held_sources_);
  }
  return *division;
}

// Spread evenly over the sources, in their order, so that who has some of them has some.
uint64_t Worker::Division::PartOf(uint64_t limit, const std::vector<size_t>& places) const {
  using Wide = unsigned __int128;
  const auto upto = [&](size_t source) {
    return static_cast<uint64_t>(Wide{source} * limit / count);
  };
  uint64_t part = 0;
  for (const size_t place : places) part += upto(place + 1) - upto(place);
  return part;
}

}  // namespace sluice::delivery
