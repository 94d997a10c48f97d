// Where a queue's mail goes and from which source: lookups, the order of hosts and addresses, and
// hosts that are set aside.
#include <algorithm>
#include <charconv>
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// What smtp-421-means-mx-unavailable takes out of use, and for how long.
constexpr Duration kSetAside = std::chrono::seconds(60);
constexpr size_t kMostSetAside = 10'000;

// TLS from the first byte (RFC 8314 section 3.3).
constexpr uint16_t kSubmissionsPort = 465;

// Of a local end, in place of an IP address.
constexpr char kLocalAddress[] = "local";

bool IsPrivateDestination(const std::string& address) {
  const auto ip = IpAddress::Parse(address);
  return !ip || !ip->IsPublic();
}

bool IsV6(std::string_view address) { return address.find(':') != std::string_view::npos; }

// Of ip-preference; nothing where the family does not matter.
std::optional<bool> PreferredV6(std::string_view preference) {
  if (preference.starts_with("ipv6")) return true;
  if (preference.starts_with("ipv4")) return false;
  return std::nullopt;
}
bool OnlyPreferred(std::string_view preference) { return preference.ends_with("-only"); }

// The source's own, before the queue's.
const std::string& PreferenceOf(const std::string& own, const std::string& of_queue) {
  return own.empty() ? of_queue : own;
}

// "host", "host:port", "[2001:db8::1]:port".
std::pair<std::string, uint16_t> SplitHostPort(std::string_view text, uint16_t otherwise) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.find(']', colon) != std::string_view::npos ||
      (text.find(':') != colon && text.front() != '[')) {
    return {std::string(text), otherwise};
  }
  uint16_t port = 0;
  const std::string_view digits = text.substr(colon + 1);
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (parsed.ec != std::errc() || port == 0) port = otherwise;
  return {std::string(text.substr(0, colon)), port};
}

}  // namespace

common::v1::Reply LocalReply(common::v1::Stage stage, std::string text, std::string enhanced) {
  common::v1::Reply reply;
  reply.set_local(true);
  reply.set_stage(stage);
  reply.set_text(std::move(text));
  reply.set_enhanced(std::move(enhanced));
  return reply;
}

void Worker::Resolve(Queue& queue) {
  queue.resolving = true;
  queue.asked_dns = executor_.clock().Now();
  const uint64_t lookup = queue.lookup = ++last_lookup_;
  const Duration limit(queue.settings->dns_timeout_us());
  queue.dns_timer = executor_.After(limit, [this, name = queue.name, lookup, limit] {
    const auto it = queues_.find(name);
    if (it == queues_.end() || it->second->lookup != lookup) return;
    Queue& queue = *it->second;
    queue.dns_timer = 0;
    EndLookup(queue);
    FailQueue(queue,
              LocalReply(common::v1::STAGE_DNS,
                         absl::StrCat("DNS: no answer about ", queue.domain, " within ",
                                      limit / std::chrono::milliseconds(1), " ms (dns-timeout)"),
                         "4.4.3"),
              true, false);
  });
  const auto& routes = queue.settings->smtp_hosts().values();
  auto found = [this, alive = std::weak_ptr<bool>(alive_), name = queue.name,
                lookup](std::shared_ptr<const MxResult> result) {
    if (alive.expired()) return;
    // Posted: an answer from the cache must not run inside the caller.
    executor_.Post([this, alive, name, lookup, result = std::move(result)]() mutable {
      if (alive.expired()) return;
      const auto it = queues_.find(name);
      if (it == queues_.end() || it->second->lookup != lookup) return;
      OnResolved(*it->second, std::move(result));
    });
  };
  if (IsLocalEnd(*queue.settings)) {
    MxResult here;
    here.outcome = MxOutcome::kFound;
    here.from_dns = false;
    here.expires = executor_.clock().Now() + std::chrono::minutes(5);
    here.hosts.resize(1);
    here.hosts[0].name = queue.settings->type();
    here.hosts[0].addresses = {kLocalAddress};
    here.site = absl::StrCat(queue.settings->type(), ":", queue.name);  // nobody else's
    found(std::make_shared<const MxResult>(std::move(here)));
    return;
  }
  if (routes.empty()) {
    resolver_.Resolve(queue.domain, std::move(found));
    return;
  }
  // Routes are tried in their order; each is a host of its own preference.
  struct Gather {
    MxResult result;
    size_t missing;
  };
  auto gather = std::make_shared<Gather>();
  gather->missing = static_cast<size_t>(routes.size());
  gather->result.hosts.resize(gather->missing);
  gather->result.from_dns = false;
  gather->result.expires = executor_.clock().Now() + std::chrono::minutes(5);
  auto done = std::make_shared<decltype(found)>(std::move(found));
  for (int i = 0; i < routes.size(); ++i) {
    const auto [host, port] = SplitHostPort(routes[i], 0);
    resolver_.ResolveHost(
        host, [gather, done, i, host = host, port = port](std::shared_ptr<const MxResult> result) {
          MxHost& slot = gather->result.hosts[static_cast<size_t>(i)];
          slot.preference = static_cast<uint16_t>(i);
          slot.name = port == 0 ? host : absl::StrCat(host, ":", port);
          if (result->outcome == MxOutcome::kFound) {
            slot.addresses = result->hosts.front().addresses;
            gather->result.outcome = MxOutcome::kFound;
            gather->result.expires = std::min(gather->result.expires, result->expires);
          } else {
            gather->result.detail = result->detail;
          }
          absl::StrAppend(&gather->result.site, i == 0 ? "" : ",", slot.name);
          if (--gather->missing == 0) {
            (*done)(std::make_shared<const MxResult>(std::move(gather->result)));
          }
        });
  }
}

void Worker::OnResolved(Queue& queue, std::shared_ptr<const MxResult> result) {
  EndLookup(queue);
  queue.dns_took = executor_.clock().Now() - queue.asked_dns;
  queue.targets.clear();
  queue.most_recipients = 0;
  RefreshQueue(queue);
  LogResolution(queue, *result);
  const int64_t no_mx_us = queue.settings->bounce_upon_no_mx_after_us();
  switch (result->outcome) {
    case MxOutcome::kFound:
      break;
    case MxOutcome::kTemporary:
      FailQueue(queue, LocalReply(common::v1::STAGE_DNS, result->detail, "4.4.3"), true, false);
      return;
    case MxOutcome::kNoSuchDomain:
      FailQueue(queue, LocalReply(common::v1::STAGE_DNS, result->detail, "5.1.2"), true, true);
      return;
    case MxOutcome::kNullMx:
      FailQueue(queue, LocalReply(common::v1::STAGE_DNS, result->detail, "5.1.10"), true, true);
      return;
    case MxOutcome::kNoAddress:
      FailQueue(queue, LocalReply(common::v1::STAGE_DNS, result->detail, "5.4.4"), true,
                no_mx_us > 0, no_mx_us > 1 ? no_mx_us : 0);
      return;
  }
  queue.route = result;
  FollowRollup(queue);
  if (queue.route == nullptr) {  // the rollup's settings say another way
    if (!draining_) Pump(queue);
    return;
  }
  // A route is the operator's word. An address literal in a recipient is anybody's.
  const bool local = IsLocalEnd(*queue.settings);
  const bool consent = local || queue.settings->allow_private_destinations() ||
                       !queue.settings->smtp_hosts().values().empty();
  const std::string& preference = queue.settings->ip_preference();
  const std::optional<bool> preferred = PreferredV6(preference);
  auto usual_port = static_cast<uint16_t>(queue.settings->default_smtp_port());
  // RFC 2033 section 5: never on SMTP's own port.
  if (queue.settings->type() == "lmtp" && usual_port == 25) usual_port = 24;
  for (const MxHost& host : result->hosts) {
    const auto [name, port] = result->from_dns
                                  ? std::pair<std::string, uint16_t>(host.name, usual_port)
                                  : SplitHostPort(host.name, usual_port);
    for (const std::string& address : host.addresses) {
      if (!consent && IsPrivateDestination(address)) {
        ++stats_.private_refused;
        queue.last_failure =
            LocalReply(common::v1::STAGE_CONNECT,
                       absl::StrCat(result->from_dns ? "DNS gave" : "the recipient names",
                                    " the private or reserved address ", address, " for ", name,
                                    "; allow-private-destinations is off"),
                       "4.4.4");
        continue;
      }
      if (!local && preferred && OnlyPreferred(preference) && IsV6(address) != *preferred) {
        queue.last_failure =
            LocalReply(common::v1::STAGE_CONNECT,
                       absl::StrCat("ip-preference ", preference, " leaves the address ", address,
                                    " of ", name, " out"),
                       "4.4.4");
        continue;
      }
      queue.targets.push_back({name, address, port, host.preference});
    }
  }
  if (queue.targets.empty()) {
    queue.route.reset();
    FailQueue(queue, queue.last_failure, false, false);
    return;
  }
  if (draining_) return;
  if (queue.refs.empty()) {  // its shards have gone meanwhile
    LetGo(queue);
    return;
  }
  PumpByName(queue.name);
}

std::string Worker::EhloName(const policy::v1::SourceHost& host) const {
  return host.host_name().empty() ? policy_->global().host_name() : host.host_name();
}

std::string Worker::EhloNameWithoutSource(const policy::v1::VirtualMtaSection* vmta) const {
  return vmta != nullptr && !vmta->host_name().empty() ? vmta->host_name()
                                                       : policy_->global().host_name();
}

// The first that would do, if it had room; where all are closed, the one that opens first.
Worker::Source* Worker::SourceToAwait(Queue& queue) {
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  if (vmta == nullptr) return nullptr;
  const MonotonicTime now = executor_.clock().Now();
  Source* first = nullptr;
  for (const auto& host : vmta->source_hosts()) {
    const auto found = sources_.find(host.ip());
    if (found == sources_.end() || !MayUse(*found->second) ||
        !PartHasRoom(queue, *found->second, true) || IsDisabled(queue, host.ip())) {
      continue;
    }
    Source* const source = found->second.get();
    if (source->closed_until <= now) return source;
    if (first == nullptr || source->closed_until < first->closed_until) first = source;
  }
  return first;
}

// ": ADDRESS: why", of the one that is used again first.
std::string Worker::WhySuspended(const Queue& queue, MonotonicTime* until) const {
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  if (vmta == nullptr) return "";
  std::string why;
  for (const auto& host : vmta->source_hosts()) {
    const auto found = sources_.find(host.ip());
    if (found == sources_.end() || found->second->closed.empty() ||
        found->second->closed_until >= *until) {
      continue;
    }
    *until = found->second->closed_until;
    why = absl::StrCat(": ", found->second->ip, ": ", found->second->closed);
  }
  return why;
}

// SplitMix64. Repeatable: a simulation must be.
size_t Worker::Random() {
  uint64_t z = random_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return static_cast<size_t>(z ^ (z >> 31));
}

// From sources of `family` (IPv6 or not) alone, or of those that can reach something, the preferred
// family first.
std::optional<Worker::SourceChoice> Worker::ChooseSource(Queue& queue, std::optional<bool> family) {
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  const MonotonicTime now = executor_.clock().Now();
  if (vmta == nullptr || vmta->source_hosts().empty()) {
    std::unique_ptr<Source>& any = sources_[""];
    if (any == nullptr) any = std::make_unique<Source>();
    if (!PartHasRoom(queue, *any, true)) return std::nullopt;
    return SourceChoice{any.get(), EhloNameWithoutSource(vmta)};
  }
  bool reach[2] = {false, false};
  for (const Target& target : queue.targets) {
    reach[IsV6(target.address) ? 1 : 0] = true;
    if (target.address == kLocalAddress) reach[1] = true;
  }
  if (family) reach[*family ? 0 : 1] = false;
  // Where none can be reached, any source will do: the connection says what is wrong.
  if (!family && !reach[0] && !reach[1]) reach[0] = reach[1] = true;
  SourceChoice fallback;
  const size_t first = vmta->random_ip() ? Random() : queue.turn;
  for (int i = 0; i < vmta->source_hosts_size(); ++i) {
    const auto& host = vmta->source_hosts(static_cast<int>(
        (first + static_cast<size_t>(i)) % static_cast<size_t>(vmta->source_hosts_size())));
    const auto found = sources_.find(host.ip());
    if (found == sources_.end()) continue;
    Source& source = *found->second;
    if (IsDisabled(queue, host.ip())) continue;
    if (!MayUse(source) || source.closed_until > now) continue;
    source.closed.clear();
    if (!source.HasRoom(now) || (!source.waiters.empty() && serving_ != &queue)) continue;
    if (!PartHasRoom(queue, source, true)) continue;
    SourceChoice choice{&source, EhloName(host)};
    const bool v6 = IsV6(source.ip);
    // In place of another it goes nowhere that it would not go by itself.
    if (family && OnlyPreferred(source.ip_preference) &&
        PreferredV6(source.ip_preference) != *family) {
      continue;
    }
    const std::string& preference =
        PreferenceOf(source.ip_preference, queue.settings->ip_preference());
    const std::optional<bool> preferred = PreferredV6(preference);
    const bool in_turn = !preferred || v6 == *preferred || !reach[*preferred ? 1 : 0];
    if (reach[v6 ? 1 : 0] && in_turn) return choice;
    // Sources that can reach nothing are the last resort, so that the failure is seen.
    if (fallback.source == nullptr || reach[v6 ? 1 : 0]) fallback = std::move(choice);
  }
  if (fallback.source == nullptr || (family && IsV6(fallback.source->ip) != *family)) {
    return std::nullopt;
  }
  return fallback;
}

// Hosts by preference. Those of equal preference, and their addresses, take turns; of these the
// preferred family comes first, or the one that the source can reach.
void Worker::OrderTargets(Queue& queue, Conn& conn) {
  const auto& targets = queue.targets;
  if (const auto search = std::exchange(queue.search, nullptr)) {
    if (search->route == queue.route && !SeeksTls(queue)) {
      conn.seeks_tls = search->seeks_tls;
      conn.order = std::move(search->order);
      conn.next_target = search->next_target;
      conn.tried = search->tried;
      return;
    }
  }
  const std::string& preference =
      PreferenceOf(conn.source->ip_preference, queue.settings->ip_preference());
  std::optional<bool> first = PreferredV6(preference);
  const bool only = first && OnlyPreferred(preference) && !IsLocalEnd(*queue.settings);
  if (!first && !conn.source->ip.empty()) first = IsV6(conn.source->ip);
  const size_t turn = queue.settings->dns_rotate() ? queue.turn : 0;
  for (size_t begin = 0; begin < targets.size();) {
    size_t end = begin;
    while (end < targets.size() && targets[end].preference == targets[begin].preference) ++end;
    for (size_t i = 0; i < end - begin; ++i) {
      conn.order.push_back(begin + (turn + i) % (end - begin));
    }
    if (first) {
      std::stable_partition(conn.order.begin() + static_cast<std::ptrdiff_t>(begin),
                            conn.order.end(),
                            [&](size_t i) { return IsV6(targets[i].address) == *first; });
    }
    begin = end;
  }
  OrderForTls(queue, conn);
  if (!only) return;
  std::erase_if(conn.order, [&](size_t i) { return IsV6(targets[i].address) != *first; });
  if (conn.order.empty()) {
    queue.last_failure = LocalReply(
        common::v1::STAGE_CONNECT,
        absl::StrCat("ip-preference ", preference, " of ", conn.source->ip, " leaves no address"),
        "4.4.4");
  }
}

// False: it says why and until when, and looks again then.
bool Worker::MayConnectNow(Queue& queue, const SourcePart* part) {
  if (part != nullptr && !part->pace.connects.limited()) part = nullptr;
  if ((!ConnectPace(queue).connects.limited() && part == nullptr) || IsLocalEnd(*queue.settings)) {
    return true;
  }
  const MonotonicTime now = executor_.clock().Now();
  MonotonicTime next = ConnectPace(queue).connects.Next(now);
  std::string limit =
      (ConnectPace(queue).connects.backoff_decides(now) ? ConnectCaps(queue).backoff_connects
                                                        : ConnectCaps(queue).connects)
          .ToString();
  if (part != nullptr && part->pace.connects.Next(now) > next) {
    next = part->pace.connects.Next(now);
    limit = absl::StrCat(part->caps.connects.ToString(), " (", part->source->ip, ")");
  }
  if (next <= now) return true;
  Block(queue, limit, next);
  if (next != MonotonicTime::max()) WakeAt(queue, next);
  return false;
}

void Worker::ChargeConnect(Conn& conn) {
  if (IsLocalEnd(*conn.queue->settings)) return;
  const MonotonicTime now = executor_.clock().Now();
  ConnectPace(*conn.queue).connects.Charge(now, 1);
  if (conn.part != nullptr) conn.part->pace.connects.Charge(now, 1);
}

Duration Worker::MayConnectAgain(Conn& conn) {
  // Another may be faster: it is asked again.
  constexpr Duration kMostWait = std::chrono::minutes(1);
  if (!MayConnectNow(*conn.queue, conn.part)) {
    const MonotonicTime now = executor_.clock().Now();
    MonotonicTime next = ConnectPace(*conn.queue).connects.Next(now);
    if (conn.part != nullptr) next = std::max(next, conn.part->pace.connects.Next(now));
    return std::min<Duration>(std::max(Duration(1), next - now), kMostWait);
  }
  ChargeConnect(conn);
  return Duration(0);
}

Worker::Began Worker::ConnectNext(Queue& queue, Conn& conn) {
  const uint32_t most = queue.settings->mx_connection_attempts();
  while (conn.next_target < conn.order.size() && (most == 0 || conn.tried < most)) {
    LeaveHosts(conn);                                            // of the one before
    if (conn.order[conn.next_target] >= queue.targets.size()) {  // they were looked up anew
      ++conn.next_target;
      continue;
    }
    if (Limiter* const full = PassFullHost(queue, conn)) {
      queue.search = std::make_unique<Search>(
          Search{queue.route, std::move(conn.order), conn.next_target, conn.tried, conn.seeks_tls});
      Await(*full, queue);
      return Began::kLater;
    }
    const size_t index = conn.order[conn.next_target++];
    const Target& target = queue.targets[index];
    if (IsAside(*conn.source, target)) {
      if (queue.last_failure.text().empty()) {
        queue.last_failure = LocalReply(
            common::v1::STAGE_CONNECT,
            absl::StrCat(target.host, " is not used for a minute, for what it said"), "4.4.5");
      }
      continue;
    }
    if (!conn.source->ip.empty() && target.address != kLocalAddress &&
        IsV6(conn.source->ip) != IsV6(target.address)) {
      const auto other = ChooseSource(queue, IsV6(target.address));
      if (!other) {
        queue.only_5xx_greetings = false;
        queue.last_failure =
            LocalReply(common::v1::STAGE_CONNECT,
                       absl::StrCat("no source of ", queue.vmta, " that may connect now can reach ",
                                    target.address, ", which is of the other family"),
                       "4.4.1");
        continue;
      }
      --conn.source->connections;
      LeavePart(conn);
      FreedSlot();
      conn.source = other->source;
      conn.ehlo_name = other->ehlo_name;
      ++conn.source->connections;
      EnterPart(conn);
    }
    // Each try is a connection of its own for who is at the other end.
    if (!MayConnectNow(queue, conn.part)) {
      queue.search = std::make_unique<Search>(Search{
          queue.route, std::move(conn.order), conn.next_target - 1, conn.tried, conn.seeks_tls});
      return Began::kLater;
    }
    ConnectTarget connect;
    connect.address = target.address;
    connect.port = target.port;
    connect.host = target.host;
    connect.source_ip = conn.source->proxy == nullptr ? conn.source->ip : conn.source->local_ip;
    connect.proxy = conn.source->proxy;
    connect.route.domain = queue.domain;
    if (queue.route != nullptr) {
      connect.route.from_dns = queue.route->from_dns;
      connect.route.authenticated = queue.route->authenticated;
      connect.route.canonical = queue.route->canonical;
    }
    connect.ehlo_name = conn.ehlo_name;
    connect.settings = queue.settings;
    connect.tls.implicit = target.port == kSubmissionsPort;
    connect.tls.use_starttls = conn.source->use_starttls;
    LeaveSite(conn);
    if (queue.route != nullptr) EnterSite(conn, SiteKey(queue, *conn.source, conn.ehlo_name));
    conn.made_with = SettingsKey(queue);
    conn.made_starttls = conn.source->use_starttls;
    EnterHosts(conn, target.host, target.address);
    conn.host = target.host;
    conn.address = target.address;
    conn.opened = executor_.clock().Now();
    BeginAttempt(conn);
    ++conn.tried;
    ++stats_.connects;
    conn.connection = connections_.Connect(connect, &conn);
    ChargeConnect(conn);
    return Began::kYes;
  }
  return Began::kNowhere;
}

std::string Worker::AsideKey(const Source& source, const std::string& address) {
  return absl::StrCat(source.ip, "|", address);
}

// All addresses of the host, from this source: what it refuses to one it may take from another.
void Worker::SetAside(const Queue& queue, const Conn& conn) {
  const MonotonicTime now = executor_.clock().Now();
  if (aside_.size() >= kMostSetAside) {
    absl::erase_if(aside_, [now](const auto& each) { return each.second <= now; });
    if (aside_.size() >= kMostSetAside) return;
  }
  for (const Target& target : queue.targets) {
    if (target.host == conn.host) aside_[AsideKey(*conn.source, target.address)] = now + kSetAside;
  }
}

bool Worker::IsAside(const Source& source, const Target& target) const {
  if (aside_.empty()) return false;
  const auto found = aside_.find(AsideKey(source, target.address));
  return found != aside_.end() && found->second > executor_.clock().Now();
}

}  // namespace sluice::delivery
