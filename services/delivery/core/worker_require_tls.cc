// Mail that requires TLS (REQUIRETLS, RFC 8689 section 4.2.1) and meets a host that cannot do it:
// the other hosts are tried before it bounces. Other mail stays where it is.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// How long it is believed of a host that it cannot.
constexpr Duration kBelieved = std::chrono::minutes(5);
// Where hosts that might are not reached, how long none are looked for.
constexpr Duration kGivenUp = std::chrono::minutes(1);
constexpr size_t kMostSearches = 10'000;

// The session said so, before it sent anything of the message.
bool IsLackOfTls(const queue::v1::GroupResult& result) {
  const common::v1::Reply& reply = result.reply();
  const bool permanent = reply.enhanced() == "5.7.30" || reply.enhanced() == "5.7.10";
  const bool failed = reply.enhanced() == "4.7.10";  // a handshake, not long ago
  return reply.local() && reply.stage() == common::v1::STAGE_MAIL &&
         ((result.outcome() == queue::v1::RECIPIENT_OUTCOME_PERMANENT && permanent) ||
          (result.outcome() == queue::v1::RECIPIENT_OUTCOME_TRANSIENT && failed));
}

}  // namespace

Worker::TlsSearch* Worker::FindTlsSearch(const Queue& queue) {
  if (tls_searches_.empty()) return nullptr;
  const auto found = tls_searches_.find(queue.name);
  return found == tls_searches_.end() ? nullptr : &found->second;
}

bool Worker::LacksTls(const TlsSearch& search, const std::string& host) const {
  const auto found = search.lacking.find(host);
  return found != search.lacking.end() && found->second > executor_.clock().Now();
}

// Not while the hosts are being looked up anew: others may be among them.
bool Worker::AllLackTls(const TlsSearch& search, const Queue& queue) const {
  return !queue.targets.empty() &&
         std::all_of(queue.targets.begin(), queue.targets.end(),
                     [&](const Target& target) { return LacksTls(search, target.host); });
}

// Whether the message may be tried there: what is known to be refused is not asked again while
// there is somebody else.
bool Worker::Suits(const Conn& conn, const Transaction& transaction) {
  const common::v1::Message& message = transaction.lease->message();
  // A report asks for it, and goes without where it must (section 5).
  if (!message.require_tls() || message.mail_from().empty() || conn.seeks_tls) return true;
  const TlsSearch* const search = FindTlsSearch(*conn.queue);
  return search == nullptr || executor_.clock().Now() < search->given_up_until ||
         !LacksTls(*search, conn.host) || AllLackTls(*search, *conn.queue);
}

// A message waits for a host that can do it.
void Worker::SeekTls(Queue& queue) {
  for (const auto& conn : queue.conns) {
    if (conn->seeks_tls && !conn->quitting) return;  // on its way, or busy
  }
  TlsSearch* const search = FindTlsSearch(queue);
  if (search == nullptr || std::exchange(search->wanted, true)) return;
  WakeAt(queue, executor_.clock().Now());
}

bool Worker::SeeksTls(const Queue& queue) {
  const TlsSearch* const search = FindTlsSearch(queue);
  return search != nullptr && search->wanted;
}

// The queue has all connections that it may have: one makes room for the search.
void Worker::MakeRoomForTls(Queue& queue) {
  Conn* least = nullptr;
  for (const auto& conn : queue.conns) {
    if (conn->quitting || !conn->ready || conn->seeks_tls) return;  // room comes, or a host does
    if (least == nullptr || conn->under_way < least->under_way) least = conn.get();
  }
  if (least == nullptr) return;
  Quit(*least);
  TrimCredits(queue);
}

// The hosts that are not known to lack it come first; the others stay, as other mail needs them.
void Worker::OrderForTls(Queue& queue, Conn& conn) {
  TlsSearch* const search = FindTlsSearch(queue);
  if (search == nullptr || !search->wanted) return;
  search->wanted = false;
  conn.seeks_tls = true;
  std::stable_partition(conn.order.begin(), conn.order.end(),
                        [&](size_t i) { return !LacksTls(*search, queue.targets[i].host); });
}

// Whether its host may still be tried by others, or all of them have refused.
void Worker::HeedLackOfTls(Conn& conn, queue::v1::GroupResult* result) {
  if (!IsLackOfTls(*result)) return;
  Queue& queue = *conn.queue;
  // It has answered all that it was asked.
  conn.answered = true;
  queue.useless = 0;
  const MonotonicTime now = executor_.clock().Now();
  if (tls_searches_.size() >= kMostSearches) {
    absl::erase_if(tls_searches_, [now](const auto& each) {
      return std::all_of(each.second.lacking.begin(), each.second.lacking.end(),
                         [now](const auto& host) { return host.second <= now; });
    });
    if (tls_searches_.size() >= kMostSearches) return;  // bounces, as from the only host
  }
  TlsSearch& search = tls_searches_[queue.name];
  const bool known = LacksTls(search, conn.host);
  if (!known) search.lacking[conn.host] = now + kBelieved;
  std::erase_if(search.lacking, [now](const auto& each) { return each.second <= now; });
  if (AllLackTls(search, queue)) {
    // A handshake that failed may do better the next time, on another connection.
    if (result->outcome() == queue::v1::RECIPIENT_OUTCOME_TRANSIENT && !conn.quitting) Quit(conn);
    return;
  }
  queue.last_failure = result->reply();
  if (known && (conn.seeks_tls || now < search.given_up_until)) {
    // Those that might do it were not reached.
    result->set_outcome(queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
    common::v1::Reply& reply = *result->mutable_reply();
    reply.mutable_enhanced()->front() = '4';
    absl::StrAppend(reply.mutable_text(), "; hosts that might are not reached");
    return;
  }
  conn.seeks_tls = false;
  result->set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
}

// A connection that was to find such a host found none at all.
void Worker::EndTlsSearch(Conn& conn) {
  if (!std::exchange(conn.seeks_tls, false)) return;
  TlsSearch* const search = FindTlsSearch(*conn.queue);
  if (search != nullptr) search->given_up_until = executor_.clock().Now() + kGivenUp;
}

}  // namespace sluice::delivery
