#include "services/delivery/core/worker.h"

#include <algorithm>

#include "services/base/net/ip_address.h"
#include "services/config/domain_pattern.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {

Worker::Worker(const WorkerOptions& options, Executor& executor, MxResolver& resolver,
               ConnectionFactory& connections, std::vector<ShardAddress> shards)
    : options_(options),
      executor_(executor),
      resolver_(resolver),
      connections_(connections),
      policy_(config::PolicyView::Defaults()),
      total_limit_(std::make_unique<Limiter>()),
      total_(*total_limit_),
      started_(executor.clock().Now()),
      unknown_until_(started_) {
  edits_.SetPolicy(policy_);
  for (ShardAddress& shard : shards) {
    links_.push_back(std::make_unique<Link>(*this, std::move(shard)));
  }
}

Worker::~Worker() {
  alive_.reset();
  for (TimerId timer : {renew_timer_, lease_timer_, vouch_timer_, answer_timer_, hang_timer_}) {
    if (timer != 0) executor_.Cancel(timer);
  }
  for (const auto& link : links_) {
    if (link->reconnect != 0) executor_.Cancel(link->reconnect);
  }
  for (const auto& [name, queue] : queues_) {
    if (queue->timer != 0) executor_.Cancel(queue->timer);
    if (queue->dns_timer != 0) executor_.Cancel(queue->dns_timer);
    for (const auto& conn : queue->conns) {
      if (conn->idle != 0) executor_.Cancel(conn->idle);
    }
  }
  if (ledger_timer_ != 0) executor_.Cancel(ledger_timer_);
  const auto stop = [this](Limiter& limiter) {
    if (limiter.timer != 0) executor_.Cancel(limiter.timer);
  };
  for (const auto& [ip, source] : sources_) stop(*source);
  for (const auto& [name, limits] : vmta_limits_) stop(limits->own);
  for (const auto& [name, pool] : pool_limits_) stop(*pool);
  for (const auto& [name, limit] : domain_limits_) {
    stop(*limit);
    if (limit->raise != 0) executor_.Cancel(limit->raise);
  }
  for (const auto& [name, rollup] : rollups_) {
    for (Limiter* limiter : rollup->limiters()) stop(*limiter);
  }
  // Before the lists of idle connections that they are in.
  for (const auto& [name, queue] : queues_) queue->conns.clear();
}

void Worker::Start() {
  started_ = executor_.clock().Now();
  if (!knows_past_) unknown_until_ = started_;
  if (owned_vmtas_.empty()) SetPolicy(policy_);
  for (const auto& link : links_) {
    if (link->stream == nullptr && link->reconnect == 0) OpenLink(*link);
  }
  Renew();
  if (options_.follows_owners) AskVouches();
}

namespace {

std::shared_ptr<const EgressProxy> ProxyOf(const policy::v1::SourceHost& host) {
  if (!host.has_proxy()) return nullptr;
  const policy::v1::EgressProxy& given = host.proxy();
  auto proxy = std::make_shared<EgressProxy>();
  // Both were read by the compiler; where they are nonsense the connection says so.
  proxy->server = Endpoint::Parse(given.server()).value_or(Endpoint());
  proxy->client.ip = IpAddress::Parse(host.ip()).value_or(IpAddress());
  proxy->client.port = static_cast<uint16_t>(given.client_port());
  switch (given.protocol()) {
    case policy::v1::EgressProxy::PROTOCOL_SOCKS5:
      proxy->protocol = EgressProxy::Protocol::kSocks5;
      break;
    case policy::v1::EgressProxy::PROTOCOL_PROXY_V2:
      proxy->protocol = EgressProxy::Protocol::kProxyV2;
      break;
    default:
      proxy->protocol = EgressProxy::Protocol::kProxyV1;
  }
  if (!given.username().empty()) {
    proxy->credentials = Socks5Credentials{given.username(), given.password()};
  }
  return proxy;
}

}  // namespace

bool Worker::Owns(const std::string& ip) const {
  if (std::find(options_.addresses.begin(), options_.addresses.end(), ip) !=
      options_.addresses.end()) {
    return true;
  }
  if (options_.only_listed) return false;
  const auto address = IpAddress::Parse(ip);
  return address && address->IsLoopback();
}

// A source behind a proxy needs no address here, but one in the network that may use the proxy.
bool Worker::OwnsHost(const policy::v1::SourceHost& host, std::string* local_ip) const {
  local_ip->clear();
  if (!host.has_proxy()) return Owns(host.ip());
  if (options_.only_listed) return Owns(host.ip());
  const auto network = Cidr::Parse(host.proxy().local_network());
  if (!network || network->prefix_bits() == 0) return true;
  for (const std::string& each : options_.addresses) {
    const auto address = IpAddress::Parse(each);
    if (!address || !network->Contains(*address)) continue;
    *local_ip = each;
    return true;
  }
  if (!network->address().IsLoopback()) return false;
  *local_ip = network->address().ToString();
  return true;
}

void Worker::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  const auto& rollups = policy_->mx_rollup();
  if (policy_->version() != 0 &&
      rollups.SerializeAsString() != policy->mx_rollup().SerializeAsString()) {
    rollups_since_ = executor_.clock().Now();
  }
  policy_ = std::move(policy);
  site_settings_.clear();
  edits_.SetPolicy(policy_);
  std::vector<std::string> owned;
  for (const auto* vmta : policy_->virtual_mtas()) {
    bool any = vmta->source_hosts().empty();
    for (const auto& host : vmta->source_hosts()) {
      std::string local_ip;
      if (!OwnsHost(host, &local_ip)) continue;
      any = true;
      std::unique_ptr<Source>& source = sources_[host.ip()];
      if (source == nullptr) source = std::make_unique<Source>();
      source->ip = host.ip();
      source->proxy = ProxyOf(host);
      source->local_ip = std::move(local_ip);
      const auto settings = policy_->ForSource(source->ip);
      source->use_starttls.reset();
      if (settings->has_use_starttls()) source->use_starttls = settings->use_starttls();
      source->ip_preference = settings->ip_preference();
      SetSourceLimits(*source);
    }
    if (any) owned.push_back(vmta->name());
  }
  SetLimits(&owned);
  KeepRules();
  std::sort(owned.begin(), owned.end());
  const bool changed = owned != owned_vmtas_;
  owned_vmtas_ = std::move(owned);
  if (changed) {
    // The hello names them: said again on a new stream, with every lease that is held.
    for (const auto& link : links_) {
      if (link->stream == nullptr) continue;
      DropRefs(*link);
      link->stream.reset();
      link->greeted = false;
      OpenLink(*link);
    }
  }
  std::vector<std::string> names;
  for (const auto& [name, queue] : queues_) names.push_back(name);
  for (const std::string& name : names) {
    if (const auto found = queues_.find(name); found != queues_.end()) Pump(*found->second);
  }
  FreedSlot();
}

size_t Worker::open_connections() const { return total_.connections; }

void Worker::Drain(absl::AnyInvocable<void()> done) {
  draining_ = true;
  drained_ = std::move(done);
  for (const auto& link : links_) {
    link->out.header.set_draining(true);
    link->dirty = true;
  }
  FlushLater();
  std::vector<std::string> names;
  for (const auto& [name, queue] : queues_) names.push_back(name);
  for (const std::string& name : names) {
    Queue& queue = *queues_.at(name);
    QuitAll(queue, false);
    EndLookup(queue);
    LetGo(queue);
  }
  CheckDrained();
}

void Worker::CheckDrained() {
  if (!drained_ || total_.connections > 0) return;
  for (const auto& link : links_) {
    // A shard that is away keeps its leases: they wait for our next start.
    if (link->stream != nullptr && (!link->held.empty() || !link->unacknowledged.empty())) return;
  }
  executor_.Post(std::move(drained_));
  drained_ = nullptr;
}

v1::GetWorkerStatusResponse Worker::Status(bool with_connections,
                                           std::string_view queue_pattern) const {
  v1::GetWorkerStatusResponse status;
  status.set_worker(options_.name);
  status.set_incarnation(options_.incarnation);
  status.set_connections_open(total_.connections);
  status.set_delivered_total(stats_.delivered);
  status.set_transient_total(stats_.transient);
  status.set_permanent_total(stats_.permanent);
  status.set_connects_total(stats_.connects);
  status.set_connect_failures_total(stats_.connect_failures);
  status.set_connections_reused_total(stats_.reused);
  status.set_private_destinations_refused_total(stats_.private_refused);
  status.set_snapshot_version(policy_->version());
  status.set_draining(draining_);
  uint64_t held = 0;
  for (const auto& link : links_) held += link->held.size();
  status.set_leases_held(held);
  for (const std::string& address : options_.addresses) status.add_addresses(address);
  if (!options_.only_listed) status.add_addresses("127.0.0.0/8");
  for (const auto* vmta : policy_->virtual_mtas()) {
    for (const auto& host : vmta->source_hosts()) {
      v1::SourceStatus* shown = status.add_sources();
      shown->set_ip(host.ip());
      shown->set_host_name(host.host_name());
      const auto found = sources_.find(host.ip());
      shown->set_owned(found != sources_.end());
      if (found == sources_.end()) continue;
      if (found->second->closed_until > executor_.clock().Now()) {
        shown->set_suspended_reason(found->second->closed);
      }
      shown->set_connections(found->second->connections);
      shown->set_delivered_total(found->second->delivered);
    }
  }
  constexpr int kMaxShown = 1000;
  const MonotonicTime now = executor_.clock().Now();
  for (const auto& [name, queue] : queues_) {
    if (!queue_pattern.empty() && !config::WildcardMatches(queue_pattern, name) &&
        !config::WildcardMatches(queue_pattern, queue->owner_key())) {
      continue;
    }
    if (!queue->blocked.empty() && status.blocked_size() < kMaxShown) {
      v1::BlockedQueue* blocked = status.add_blocked();
      blocked->set_queue(name);
      blocked->set_limit(queue->blocked);
      if (queue->blocked_until != MonotonicTime{} && queue->blocked_until != MonotonicTime::max()) {
        blocked->set_until_unix_us(WallUs() + (queue->blocked_until - now).count());
      }
    }
    for (const auto& conn : queue->conns) {
      if (!with_connections || status.connections_size() >= kMaxShown) break;
      v1::ConnectionStatus* shown = status.add_connections();
      shown->set_queue(name);
      shown->set_source_ip(conn->source->ip);
      shown->set_destination_host(conn->host);
      shown->set_destination_ip(conn->address);
      shown->set_state(!conn->ready          ? "connecting"
                       : conn->quitting      ? "closing"
                       : conn->under_way > 0 ? "sending"
                                             : "idle");
      shown->set_delivered(conn->delivered);
      shown->set_opened_us_ago((now - conn->opened).count());
    }
  }
  return status;
}

std::vector<std::string> Worker::owned_sources() const {
  std::vector<std::string> ips;
  for (const auto& [ip, source] : sources_) {
    if (!ip.empty()) ips.push_back(ip);
  }
  return ips;
}

std::vector<std::string> Worker::missing_sources() const {
  std::vector<std::string> ips;
  for (const auto* vmta : policy_->virtual_mtas()) {
    for (const auto& host : vmta->source_hosts()) {
      if (!sources_.contains(host.ip())) ips.push_back(host.ip());
    }
  }
  return ips;
}

}  // namespace sluice::delivery
