// Connections of a queue: where to, from which source, within which limits, and what their ends
// mean.
#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/base/net/ip_address.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

constexpr Duration kSuspendSource = std::chrono::seconds(60);

common::v1::Reply LocalReply(common::v1::Stage stage, std::string text, std::string enhanced) {
  common::v1::Reply reply;
  reply.set_local(true);
  reply.set_stage(stage);
  reply.set_text(std::move(text));
  reply.set_enhanced(std::move(enhanced));
  return reply;
}

bool IsPrivateDestination(const std::string& address) {
  const auto ip = IpAddress::Parse(address);
  return !ip || ip->IsPrivate() || ip->IsLoopback() || ip->IsLinkLocal() || ip->IsUnspecified();
}

bool SameFamily(const std::string& a, const std::string& b) {
  return (a.find(':') == std::string::npos) == (b.find(':') == std::string::npos);
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

bool Worker::Conn::MayFinish(uint64_t work_id) {
  const auto work = worker.in_work_.find(work_id);
  if (work == worker.in_work_.end()) return false;
  const auto& held = work->second.link->held;
  const auto found = held.find(work->second.lease_id);
  return found != held.end() && worker.executor_.clock().Now() < found->second.until;
}

Worker::Source* Worker::ChooseSource(Queue& queue) {
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  const MonotonicTime now = executor_.clock().Now();
  if (vmta == nullptr || vmta->source_hosts().empty()) {
    std::unique_ptr<Source>& any = sources_[""];
    if (any == nullptr) any = std::make_unique<Source>();
    any->host_name = vmta != nullptr && !vmta->host_name().empty() ? vmta->host_name()
                                                                   : policy_->global().host_name();
    return any.get();
  }
  for (int i = 0; i < vmta->source_hosts_size(); ++i) {
    const auto& host = vmta->source_hosts(static_cast<int>(
        (queue.turn + static_cast<size_t>(i)) % static_cast<size_t>(vmta->source_hosts_size())));
    const auto found = sources_.find(host.ip());
    if (found == sources_.end()) continue;
    Source& source = *found->second;
    if (!source.suspended.empty() && source.suspended_until > now) continue;
    source.suspended.clear();
    const auto settings = policy_->ForSource(host.ip());
    if (settings->max_smtp_out() > 0 && source.connections >= settings->max_smtp_out()) continue;
    source.host_name = host.host_name().empty() ? policy_->global().host_name() : host.host_name();
    return &source;
  }
  return nullptr;
}

void Worker::OpenConnections(Queue& queue, size_t wanted) {
  if (queue.resolving) return;
  if (queue.useless >= kMostUselessConnections && !queue.conns.empty()) return;
  const MonotonicTime now = executor_.clock().Now();
  if (queue.route == nullptr || queue.route->expires <= now) {
    Resolve(queue);
    return;
  }
  size_t ready = 0;
  size_t connecting = 0;
  for (const auto& conn : queue.conns) (conn->ready ? ready : connecting) += 1;
  // Doubles with each round trip: a receiver that refuses is not met by twenty at once.
  while (queue.conns.size() < wanted && connecting <= ready) {
    const auto* vmta = policy_->FindVirtualMta(queue.vmta);
    if (vmta != nullptr && vmta->max_smtp_out() > 0 &&
        vmta_connections_[queue.vmta] >= vmta->max_smtp_out()) {
      Block(queue, absl::StrCat("max-smtp-out ", vmta->max_smtp_out(), " (virtual MTA)"), {});
      WakeAt(queue, now + std::chrono::milliseconds(200));
      return;
    }
    if (open_connections_ >= options_.max_connections) {
      Block(queue, "the worker's connection limit", {});
      WakeAt(queue, now + std::chrono::milliseconds(200));
      return;
    }
    Source* source = ChooseSource(queue);
    if (source == nullptr) {
      Block(queue, "no source of the virtual MTA may open a connection now", {});
      WakeAt(queue, now + std::chrono::milliseconds(200));
      return;
    }
    queue.conns.push_back(std::make_unique<Conn>(*this, queue));
    Conn& conn = *queue.conns.back();
    conn.id = ++last_connection_id_;
    conn.source = source;
    ++source->connections;
    ++vmta_connections_[queue.vmta];
    ++open_connections_;
    ++connecting;
    // Hosts of equal preference, and their addresses, take turns.
    const auto& targets = queue.targets;
    for (size_t begin = 0; begin < targets.size();) {
      size_t end = begin;
      while (end < targets.size() && targets[end].preference == targets[begin].preference) ++end;
      for (size_t i = 0; i < end - begin; ++i) {
        conn.order.push_back(begin + (queue.turn + i) % (end - begin));
      }
      begin = end;
    }
    ++queue.turn;
    if (ConnectNext(queue, conn)) continue;
    const common::v1::Reply reply = queue.last_failure;
    RemoveConn(conn);
    if (queue.conns.empty()) FailQueue(queue, reply, false, false);
    return;
  }
}

void Worker::Resolve(Queue& queue) {
  queue.resolving = true;
  const auto& routes = queue.settings->smtp_hosts().values();
  auto found = [this, alive = std::weak_ptr<bool>(alive_),
                name = queue.name](std::shared_ptr<const MxResult> result) {
    if (alive.expired()) return;
    // Posted: an answer from the cache must not run inside the caller.
    executor_.Post([this, alive, name, result = std::move(result)]() mutable {
      if (alive.expired()) return;
      const auto it = queues_.find(name);
      if (it != queues_.end()) OnResolved(*it->second, std::move(result));
    });
  };
  if (IsLocalEnd(*queue.settings)) {
    MxResult here;
    here.outcome = MxOutcome::kFound;
    here.from_dns = false;
    here.expires = executor_.clock().Now() + std::chrono::minutes(5);
    here.hosts.resize(1);
    here.hosts[0].name = queue.settings->type();
    here.hosts[0].addresses = {"local"};
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
  queue.resolving = false;
  queue.targets.clear();
  RefreshQueue(queue);
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
                queue.settings->bounce_upon_no_mx());
      return;
  }
  for (const MxHost& host : result->hosts) {
    const auto [name, port] =
        result->from_dns
            ? std::pair<std::string, uint16_t>(
                  host.name, static_cast<uint16_t>(queue.settings->default_smtp_port()))
            : SplitHostPort(host.name, static_cast<uint16_t>(queue.settings->default_smtp_port()));
    for (const std::string& address : host.addresses) {
      if (result->from_dns && !queue.settings->allow_private_destinations() &&
          IsPrivateDestination(address)) {
        queue.last_failure =
            LocalReply(common::v1::STAGE_CONNECT,
                       absl::StrCat("DNS gave the private address ", address, " for ", name,
                                    "; allow-private-destinations is off"),
                       "4.4.4");
        continue;
      }
      queue.targets.push_back({name, address, port, host.preference});
    }
  }
  queue.route = std::move(result);
  if (queue.targets.empty()) {
    queue.route.reset();
    FailQueue(queue, queue.last_failure, false, false);
    return;
  }
  if (draining_) return;
  Pump(queue);
}

bool Worker::ConnectNext(Queue& queue, Conn& conn) {
  while (conn.next_target < conn.order.size()) {
    const size_t index = conn.order[conn.next_target++];
    if (index >= queue.targets.size()) continue;  // they were looked up anew
    const Target& target = queue.targets[index];
    if (!conn.source->ip.empty() && !IsLocalEnd(*queue.settings) &&
        !SameFamily(conn.source->ip, target.address)) {
      queue.last_failure =
          LocalReply(common::v1::STAGE_CONNECT,
                     absl::StrCat("the source ", conn.source->ip, " cannot reach the address ",
                                  target.address, " of the other family"),
                     "4.4.1");
      continue;
    }
    ConnectTarget connect;
    connect.address = target.address;
    connect.port = target.port;
    connect.host = target.host;
    connect.source_ip = conn.source->ip;
    connect.ehlo_name = conn.source->host_name;
    connect.settings = queue.settings;
    conn.host = target.host;
    conn.address = target.address;
    conn.opened = executor_.clock().Now();
    ++stats_.connects;
    conn.connection = connections_.Connect(connect, &conn);
    return true;
  }
  return false;
}

void Worker::OnConnectionReady(Conn& conn) {
  conn.ready = true;
  if (draining_) {
    conn.quitting = true;
    conn.connection->Quit();
    return;
  }
  SetIdleTimer(conn);
  Pump(conn.queue);
}

void Worker::SetIdleTimer(Conn& conn) {
  if (conn.idle != 0) executor_.Cancel(conn.idle);
  const Duration wait = std::max<Duration>(
      std::chrono::milliseconds(1), Duration(conn.queue.settings->connection_idle_timeout_us()));
  conn.idle = executor_.After(wait, [this, &conn] {
    conn.idle = 0;
    if (conn.under_way > 0 || conn.quitting) return;
    // A credit without a place is no credit.
    Queue& queue = conn.queue;
    conn.quitting = true;
    for (Ref& ref : queue.refs) {
      if (ref.credits == 0) continue;
      // Not used for so long: nothing is due there, whatever was estimated. It says when there is.
      ref.due_estimate = 0;
      RevokeCredits(ref);
    }
    conn.connection->Quit();
    Grant(queue);
  });
}

void Worker::OnConnectionResult(Conn& conn, queue::v1::GroupResult result) {
  SLUICE_CHECK(conn.under_way > 0);
  --conn.under_way;
  result.mutable_attempt()->set_connection_id(conn.id);
  if (result.outcome() == queue::v1::RECIPIENT_OUTCOME_DELIVERED) {
    ++conn.delivered;
    ++conn.source->delivered;
  }
  Queue& queue = conn.queue;
  if (result.outcome() != queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED) {
    conn.answered = true;
    queue.useless = 0;
  }
  Report(queue, std::move(result));
  if (conn.under_way == 0 && !conn.quitting) {
    const uint32_t most = queue.settings->max_msg_per_connection();
    if (most > 0 && conn.sent >= most) {
      conn.quitting = true;
      conn.connection->Quit();
    } else {
      SetIdleTimer(conn);
    }
  }
  if (draining_) {
    CheckDrained();
    return;
  }
  SendPaced(queue);
  Pump(queue);
}

void Worker::OnConnectionClosed(Conn& conn, ConnectionEnd end) {
  Queue& queue = conn.queue;
  if (!end.ready) {
    ++stats_.connect_failures;
    queue.last_failure = end.reply;
    if (queue.last_failure.host().empty()) queue.last_failure.set_host(conn.host);
    if (queue.last_failure.ip().empty()) queue.last_failure.set_ip(conn.address);
    if (end.source_missing) {
      conn.source->suspended = absl::StrCat("this machine lacks ", conn.source->ip);
      if (options_.log != nullptr) {
        options_.log->Warn("source_suspended", conn.source->suspended,
                           {{"source", conn.source->ip}});
      }
      conn.source->suspended_until = executor_.clock().Now() + kSuspendSource;
    } else if (!draining_ && ConnectNext(queue, conn)) {
      return;
    }
  } else if (!conn.answered && !conn.quitting) {
    queue.last_failure = end.reply;
  }
  const bool useless = !conn.answered && !conn.quitting;
  RemoveConn(conn);
  if (useless) ++queue.useless;
  if (draining_) {
    if (queue.conns.empty()) LetGo(queue);
    CheckDrained();
    return;
  }
  const bool others = std::any_of(queue.conns.begin(), queue.conns.end(),
                                  [](const auto& each) { return each->ready; });
  if (useless && !others && queue.conns.empty()) {
    FailQueue(queue, queue.last_failure, false, false);
    return;
  }
  SendPaced(queue);
  if (queue.conns.empty() && queue.due() == 0) {
    LetGo(queue);
    return;
  }
  // Fewer places than credits: take them back, and promise anew what there is.
  size_t places = 0;
  for (const auto& each : queue.conns) places += each->free_places();
  if (queue.credits() + queue.waiting.size() > places) {
    for (Ref& ref : queue.refs) {
      if (ref.credits > 0) RevokeCredits(ref);
    }
  }
  Pump(queue);
}

void Worker::RemoveConn(Conn& conn) {
  if (conn.idle != 0) executor_.Cancel(conn.idle);
  --conn.source->connections;
  --vmta_connections_[conn.queue.vmta];
  --open_connections_;
  conn.queue.conns.remove_if([&conn](const auto& each) { return each.get() == &conn; });
}

// The queue reached nobody: its shards put it, not its recipients, in retry mode.
void Worker::FailQueue(Queue& queue, const common::v1::Reply& reply, bool dns, bool permanent) {
  for (const Ref& ref : queue.refs) {
    queue::v1::QueueFailure* failure = ref.link->out.header.add_failures();
    failure->set_queue_ref(ref.ref);
    *failure->mutable_reply() = reply;
    failure->set_dns(dns);
    failure->set_permanent(permanent);
    failure->mutable_attempt()->set_worker(options_.name);
    ref.link->dirty = true;
    ref.link->refs.erase(ref.ref);
  }
  queue.refs.clear();
  queue.route.reset();
  FlushLater();
  LetGo(queue);
}

}  // namespace sluice::delivery
