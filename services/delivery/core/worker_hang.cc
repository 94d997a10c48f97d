// What hangs: lookups and connections that take long. Their queues' announcements are answered, so
// that a shard goes on to others, and where others wait for the places of a limit, connections that
// hang do not keep more than half of them.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// A shard has so long no word of a queue that it has announced.
constexpr Duration kAnswerAfter = std::chrono::seconds(1);
constexpr Duration kLookAgain = std::chrono::milliseconds(50);
// Lookups that are answered for while they go on: a queue that waits for more than a name has a
// connection, and those have limits.
constexpr size_t kMostSlowLookups = 4096;

// Receivers that have one wait before they greet do so for less, most of them.
constexpr Duration kHangs = std::chrono::seconds(10);
// Of the only place of a limit.
constexpr Duration kHangsAlone = std::chrono::seconds(30);
constexpr Duration kGiveUpEvery = std::chrono::seconds(1);
// Attempts of a queue that were given up in a row, before it fails: its hosts may be looked up anew
// each time, so that none is ever the last one.
constexpr uint32_t kMostGivenUp = 5;

}  // namespace

// ---- Announcements

void Worker::NoteAnnounced(Link& link, uint64_t ref) {
  const MonotonicTime now = executor_.clock().Now();
  announced_.push_back({now, &link, ref});
  if (answer_timer_ == 0) {
    answer_timer_ = executor_.At(now + kAnswerAfter, [this] { AnswerForSlow(); });
  }
}

void Worker::AnswerForSlow() {
  const MonotonicTime now = executor_.clock().Now();
  for (size_t left = announced_.size(); left > 0; --left) {
    Announced each = announced_.front();
    if (each.when + kAnswerAfter > now) break;
    announced_.pop_front();
    const auto found = each.link->refs.find(each.ref);
    if (found == each.link->refs.end()) continue;
    Queue& queue = *found->second;
    const bool waits = std::any_of(queue.refs.begin(), queue.refs.end(), [&](const Ref& ref) {
      return ref.link == each.link && ref.ref == each.ref && !ref.answered;
    });
    if (!waits) continue;
    if (queue.resolving && !queue.slow_lookup) {
      if (slow_lookups_ >= kMostSlowLookups) {  // the shard sends no more before some have ended
        each.when = now;
        announced_.push_back(each);
        continue;
      }
      queue.slow_lookup = true;
      ++slow_lookups_;
    }
    Block(queue, WhyNoCredit(queue), {}, queue.told_in_line);
  }
  answer_timer_ = 0;
  if (announced_.empty()) return;
  const MonotonicTime next = std::max(now + kLookAgain, announced_.front().when + kAnswerAfter);
  answer_timer_ = executor_.At(next, [this] { AnswerForSlow(); });
}

std::string Worker::WhyNoCredit(const Queue& queue) {
  if (queue.resolving) return absl::StrCat("looks up the hosts of ", queue.domain);
  for (const auto& conn : queue.conns) {
    if (conn->ready) return "its connections are busy";
  }
  if (queue.conns.empty()) return "waits for a connection";
  const Conn& first = *queue.conns.front();
  return absl::StrCat("connects to ", first.host, " [", first.address, "]");
}

void Worker::EndLookup(Queue& queue) {
  queue.resolving = false;
  queue.lookup = 0;  // what comes later is of no use
  if (queue.dns_timer != 0) executor_.Cancel(std::exchange(queue.dns_timer, 0));
  if (std::exchange(queue.slow_lookup, false)) --slow_lookups_;
}

// ---- Connections

void Worker::BeginAttempt(Conn& conn) {
  EndAttempt(conn);
  conn.place_in_attempts = attempts_.insert(attempts_.end(), &conn);
  conn.attempting = true;
  if (hang_timer_ == 0) WatchAttempts();
}

void Worker::EndAttempt(Conn& conn) {
  if (std::exchange(conn.attempting, false)) attempts_.erase(conn.place_in_attempts);
}

void Worker::WatchAttempts() {
  const MonotonicTime now = executor_.clock().Now();
  if (!draining_ && !attempts_.empty() && attempts_.front()->opened + kHangs <= now) {
    GiveUpHanging();
  }
  hang_timer_ = 0;
  if (attempts_.empty()) return;
  const MonotonicTime next = std::max(now + kGiveUpEvery, attempts_.front()->opened + kHangs);
  hang_timer_ = executor_.At(next, [this] { WatchAttempts(); });
}

// Of each limit that is full and that others wait for, what hangs above half of its places, those
// that began last: the others have their full time.
void Worker::GiveUpHanging() {
  const MonotonicTime now = executor_.clock().Now();
  struct Crowd {
    size_t places = 0;
    size_t hanging = 0;
    size_t wanted = 0;  // that are to go
  };
  absl::flat_hash_map<const Limiter*, Crowd> crowds;
  for (const Limiter* limiter : crowded_) {
    const size_t places = std::min(limiter->most, limiter->busy);
    if (places == 0 || limiter->waiters.empty() || limiter->connections < places) continue;
    crowds[limiter].places = places;
  }
  if (crowds.empty()) return;
  std::vector<Conn*> hanging;
  for (Conn* conn : attempts_) {
    if (conn->opened + kHangs > now) break;
    hanging.push_back(conn);
    EachLimiter(*conn, [&](Limiter& limiter) {
      const auto found = crowds.find(&limiter);
      if (found == crowds.end()) return;
      if (found->second.places > 1 || conn->opened + kHangsAlone <= now) ++found->second.hanging;
    });
  }
  for (auto& [limiter, crowd] : crowds) {
    const size_t kept = crowd.places / 2;
    if (crowd.hanging > kept) {
      crowd.wanted = std::min(crowd.hanging - kept, limiter->waiters.size());
    }
  }
  struct Given {
    std::string queue;
    uint64_t conn;
    Limiter* limiter;
  };
  std::vector<Given> given;
  for (auto conn = hanging.rbegin(); conn != hanging.rend(); ++conn) {
    Limiter* full = nullptr;
    EachLimiter(**conn, [&](Limiter& limiter) {
      const auto found = crowds.find(&limiter);
      if (found != crowds.end() && found->second.wanted > 0 && full == nullptr) full = &limiter;
    });
    if (full == nullptr) continue;
    EachLimiter(**conn, [&](Limiter& limiter) {
      const auto found = crowds.find(&limiter);
      if (found != crowds.end() && found->second.wanted > 0) --found->second.wanted;
    });
    given.push_back({(*conn)->queue->name, (*conn)->id, full});
  }
  for (const Given& each : given) {
    const auto found = queues_.find(each.queue);
    if (found == queues_.end()) continue;
    for (const auto& conn : found->second->conns) {
      if (conn->id != each.conn) continue;
      GiveUp(*conn, *each.limiter);
      break;
    }
  }
}

// As if its time were over. It goes on with the next host when its turn in the line comes.
void Worker::GiveUp(Conn& conn, Limiter& limiter) {
  Queue& queue = *conn.queue;
  const Duration took = executor_.clock().Now() - conn.opened;
  ConnectionEnd end;
  end.reply =
      LocalReply(common::v1::STAGE_CONNECT,
                 absl::StrCat("no connection within ", took / std::chrono::seconds(1), " s, while ",
                              limiter.waiters.size(), " other queues wait for ", FullName(limiter)),
                 "4.4.1");
  end.reply.set_host(conn.host);
  end.reply.set_ip(conn.address);
  const uint32_t most = queue.settings->mx_connection_attempts();
  const bool last = conn.next_target >= conn.order.size() || (most > 0 && conn.tried >= most);
  if (last || ++queue.given_up >= kMostGivenUp) {
    conn.next_target = conn.order.size();
    queue.given_up = 0;
    OnConnectionClosed(conn, std::move(end));
    return;
  }
  ++stats_.connect_failures;
  queue.only_5xx_greetings = false;
  queue.last_failure = std::move(end.reply);
  queue.search = std::make_unique<Search>(
      Search{queue.route, std::move(conn.order), conn.next_target, conn.tried, conn.seeks_tls});
  RemoveConn(conn);
  SendPaced(queue);
  if (queue.conns.empty() && queue.due() == 0) {
    LetGo(queue);
    return;
  }
  TrimCredits(queue);
  if (queue.line == nullptr) Await(limiter, queue);
}

}  // namespace sluice::delivery
