// Connections of a queue: within which limits they open, and what their ends mean.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

constexpr Duration kSuspendSource = std::chrono::seconds(60);

bool TextWasSent(const queue::v1::GroupResult& result) {
  const auto sent = [](queue::v1::RecipientOutcome outcome, const common::v1::Reply& reply) {
    switch (reply.stage()) {
      case common::v1::STAGE_BODY:
      case common::v1::STAGE_FINAL_DOT:
        return true;
      case common::v1::STAGE_UNSPECIFIED:
        return outcome != queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;
      default:
        return outcome == queue::v1::RECIPIENT_OUTCOME_DELIVERED;
    }
  };
  return sent(result.outcome(), result.reply()) ||
         std::any_of(result.recipients().begin(), result.recipients().end(),
                     [&](const auto& each) { return sent(each.outcome(), each.reply()); });
}

// Not one that closes the connection, nor what a line of ours has made of it.
bool IsTooMany(queue::v1::RecipientOutcome outcome, const common::v1::Reply& reply) {
  const bool as_said = outcome == (reply.code() >= 500 ? queue::v1::RECIPIENT_OUTCOME_PERMANENT
                                                       : queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
  if (!as_said || reply.local() || reply.stage() != common::v1::STAGE_RCPT || reply.code() < 400 ||
      reply.code() == 421) {
    return false;
  }
  if (!reply.enhanced().empty()) return absl::EndsWith(reply.enhanced(), ".5.3");
  return absl::StrContains(absl::AsciiStrToLower(reply.text()), "too many recipients");
}

}  // namespace

bool Worker::Conn::MayFinish(uint64_t work_id) {
  const auto work = worker.in_work_.find(work_id);
  if (work == worker.in_work_.end()) return false;
  const auto& held = work->second.link->held;
  const auto found = held.find(work->second.lease_id);
  return found != held.end() && worker.executor_.clock().Now() < found->second.until;
}

void Worker::OpenConnections(Queue& queue, size_t wanted) {
  if (queue.resolving || (queue.line != nullptr && serving_ != &queue)) return;
  if (queue.useless >= kMostUselessConnections && !queue.conns.empty()) return;
  const MonotonicTime now = executor_.clock().Now();
  if (queue.route == nullptr || queue.route->expires <= now) {
    Resolve(queue);
    return;
  }
  size_t ready = 0;
  size_t connecting = 0;
  for (const auto& conn : queue.conns) (conn->ready ? ready : connecting) += 1;
  const Duration rampup(queue.settings->smtp_out_rampup_interval_us());
  // Idle connections are of no use to a search for a host that can do more than theirs.
  const bool seeking = SeeksTls(queue);
  // Doubles with each round trip: a receiver that refuses is not met by twenty at once.
  while (queue.conns.size() < wanted && connecting <= ready) {
    auto choice = ChooseSource(queue, std::nullopt);
    if (choice && !seeking && TakeIdle(queue, *choice, false)) {
      ++ready;
      continue;
    }
    if (rampup.count() > 0 && !queue.conns.empty() && now < queue.last_open + rampup) {
      Block(queue, "smtp-out-rampup-interval", queue.last_open + rampup);
      WakeAt(queue, queue.last_open + rampup);
      break;
    }
    if (!MayConnectNow(queue, nullptr)) {
      if (seeking || !TakeIdleOfAnySource(queue)) break;
      ++ready;
      continue;
    }
    Limiter* full = FullFor(queue, nullptr);
    if (full == nullptr && !choice) full = SourceToAwait(queue);
    if (full != nullptr) {
      if (!seeking && TakeIdleOfAnySource(queue)) {
        ++ready;
        continue;
      }
      Await(*full, queue);
      break;
    }
    int64_t enabled_us = 0;
    if (!choice && !AnySourceEnabled(queue, &enabled_us)) {
      const MonotonicTime enabled =
          enabled_us == 0 ? MonotonicTime::max() : now + Duration(enabled_us - WallUs());
      const std::string& own = queue.settings->source_interface();
      Block(queue,
            own.empty() || sources_.contains(own)
                ? "every source of the virtual MTA is disabled for this queue"
                : absl::StrCat("source-interface ", own, " is no address of this worker"),
            enabled);
      if (enabled_us != 0) WakeAt(queue, enabled);
      break;
    }
    if (!choice && BlockByParts(queue)) break;
    if (!choice) {
      Block(queue, "no source of the virtual MTA can be used now", {});
      WakeAt(queue, now + std::chrono::seconds(1));
      break;
    }
    queue.conns.push_back(std::make_unique<Conn>(*this, queue));
    Conn& conn = *queue.conns.back();
    conn.id = ++last_connection_id_;
    conn.source = choice->source;
    conn.ehlo_name = std::move(choice->ehlo_name);
    conn.serving_since = now;
    ++conn.source->connections;
    ++total_.connections;
    CountFor(queue, 1);
    EnterPart(conn);
    ++connecting;
    // One a turn, where others wait in line.
    serving_ = nullptr;
    OrderTargets(queue, conn);
    queue.last_open = now;
    ++queue.turn;
    const Began began = ConnectNext(queue, conn);
    if (began == Began::kYes) continue;
    if (began == Began::kLater) {
      RemoveConn(conn, false);
      break;
    }
    const common::v1::Reply reply = queue.last_failure;
    EndTlsSearch(conn);
    RemoveConn(conn);
    if (queue.conns.empty()) {
      FailQueue(queue, reply, false, false);
      return;
    }
    break;
  }
  Grant(queue);  // for connections that were taken over
}

void Worker::OnConnectionReady(Conn& conn) {
  conn.ready = true;
  EndAttempt(conn);
  LogConnected(conn);
  conn.queue->given_up = 0;
  conn.queue->only_5xx_greetings = false;
  if (draining_ || IsOutdated(conn)) {
    Quit(conn);
    return;
  }
  SetIdleTimer(conn);
  if (conn.seeks_tls) SendPaced(*conn.queue);
  Pump(*conn.queue);
}

void Worker::SetIdleTimer(Conn& conn) {
  if (conn.idle != 0) executor_.Cancel(conn.idle);
  const Duration wait = std::max<Duration>(
      std::chrono::milliseconds(1), Duration(conn.queue->settings->connection_idle_timeout_us()));
  conn.idle = executor_.After(wait, [this, &conn] {
    conn.idle = 0;
    if (conn.under_way == 0 && !conn.quitting) QuitIdle(conn);
  });
  if (conn.site != sites_.end()) BeginIdle(conn);
}

// Takes nothing more, and ends after what is under way.
void Worker::Quit(Conn& conn) {
  conn.quitting = true;
  EndIdle(conn);
  conn.connection->Quit();
}

// The same for a queue's connections, or for those of them that are not this worker's any more; one
// that is still being made is given up.
void Worker::QuitAll(Queue& queue, bool only_foreign) {
  std::vector<Conn*> connecting;
  for (const auto& conn : queue.conns) {
    if (conn->quitting || (only_foreign && !conn->foreign)) continue;
    if (conn->ready) {
      Quit(*conn);
    } else {
      connecting.push_back(conn.get());
    }
  }
  for (Conn* conn : connecting) RemoveConn(*conn);
}

void Worker::QuitIdle(Conn& conn) {
  // A credit without a place is no credit.
  Queue& queue = *conn.queue;
  conn.quitting = true;
  EndIdle(conn);
  for (Ref& ref : queue.refs) {
    if (ref.credits == 0) continue;
    // Not used for so long: nothing is due there, whatever was estimated. It says when there is.
    ref.due_estimate = 0;
    RevokeCredits(ref);
  }
  conn.connection->Quit();
  Grant(queue);
}

void Worker::OnConnectionResult(Conn& conn, queue::v1::GroupResult result) {
  SLUICE_CHECK(conn.under_way > 0);
  --conn.under_way;
  const MonotonicTime now = executor_.clock().Now();
  conn.far_away |= now - std::exchange(conn.busy_since, now) >= kFarAway;
  std::erase(conn.work, result.lease_id());
  common::v1::Attempt& attempt = *result.mutable_attempt();
  attempt.set_connection_id(conn.id);
  attempt.set_source_public_ip(conn.source->public_ip.empty() ? attempt.source_ip()
                                                              : conn.source->public_ip);
  if (const Duration took = std::exchange(conn.queue->dns_took, Duration(0)); took.count() > 0) {
    attempt.mutable_times()->set_dns_us(
        static_cast<uint32_t>(std::min<int64_t>(took.count(), UINT32_MAX)));
  }
  if (result.outcome() == queue::v1::RECIPIENT_OUTCOME_DELIVERED) {
    ++conn.delivered;
    ++conn.source->delivered;
  }
  Queue& queue = *conn.queue;
  LogTransfer(conn, result);
  LogTls(conn, attempt);
  if (!conn.volume.empty()) SettleVolume(conn, TextWasSent(result));
  HeedLackOfTls(conn, &result);
  common::v1::Reply cause;
  const config::ReplyActions asked = HeedReplies(conn, &result, &cause);
  if (queue.settings->smtp_421_means_mx_unavailable()) TakeBack421(conn, &result);
  TakeBackBroken(conn, &result);
  TakeBackTooMany(queue, &result);
  Replace421(conn, &result);
  const uint32_t refusals = Refusals(queue, result);
  conn.errors += refusals;
  NoteNoRoom(conn, result);
  if (refusals > 0 || result.outcome() != queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED) {
    conn.answered = true;
    queue.useless = 0;
  }
  Report(queue, std::move(result));
  if ((asked.bounce_queue || asked.defer_queue) && !draining_) {
    QuitAll(queue, false);
    SendPaced(queue);
    FailAsAsked(queue, cause, asked);
    return;
  }
  if (conn.under_way == 0 && !conn.quitting) {
    if (conn.spent()) {
      Quit(conn);
    } else {
      SetIdleTimer(conn);
      FreedSlot();
    }
  }
  if (!conn.quitting && TurnIsOver(conn)) {
    Quit(conn);
    TrimCredits(queue);
  }
  if (draining_) {
    CheckDrained();
    return;
  }
  SendPaced(queue);
  Pump(queue);
}

// smtp-421-means-mx-unavailable: who got a 421 is not deferred, and goes on by another host.
void Worker::TakeBack421(Conn& conn, queue::v1::GroupResult* result) {
  const auto is_421 = [](queue::v1::RecipientOutcome outcome, const common::v1::Reply& reply) {
    return outcome == queue::v1::RECIPIENT_OUTCOME_TRANSIENT && !reply.local() &&
           reply.code() == 421;
  };
  bool any = false;
  if (is_421(result->outcome(), result->reply())) {
    result->set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
    conn.queue->last_failure = result->reply();
    any = true;
  }
  for (auto& recipient : *result->mutable_recipients()) {
    if (!is_421(recipient.outcome(), recipient.reply())) continue;
    recipient.set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
    conn.queue->last_failure = recipient.reply();
    any = true;
  }
  if (!any) return;
  SetAside(*conn.queue, conn);
  conn.set_aside = true;
}

// A host that greets, and hangs up or falls silent at its first envelope, has refused nobody: that
// mail goes on by another host, where there is one (RFC 5321 section 5.1). Of the last one it is
// said, so that a message that breaks every connection is put off by itself.
void Worker::TakeBackBroken(Conn& conn, queue::v1::GroupResult* result) {
  const common::v1::Reply& reply = result->reply();
  const bool broken = reply.local() && (reply.enhanced() == "4.4.2" || reply.enhanced() == "4.5.0");
  const bool in_envelope = reply.stage() == common::v1::STAGE_MAIL ||
                           reply.stage() == common::v1::STAGE_RCPT ||
                           reply.stage() == common::v1::STAGE_DATA;
  if (conn.answered || !broken || !in_envelope || result->recipients_size() != 0 ||
      result->outcome() != queue::v1::RECIPIENT_OUTCOME_TRANSIENT) {
    return;
  }
  const auto& targets = conn.queue->targets;
  const bool others = std::any_of(targets.begin(), targets.end(), [&](const Target& each) {
    return each.host != conn.host && !IsAside(*conn.source, each);
  });
  if (!others) return;
  result->set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
  conn.queue->last_failure = reply;
  SetAside(*conn.queue, conn);
  conn.set_aside = true;
}

// A host that took some recipients and had no room for the others in one transaction has put nobody
// off: they go in the next ones, which hold no more than it took (RFC 5321 section 4.5.3.1.10,
// where a 552 means what a 452 does).
void Worker::TakeBackTooMany(Queue& queue, queue::v1::GroupResult* result) {
  uint64_t too_many = 0;
  uint64_t unsaid = 0;  // max-errors-per-connection kept us from naming them
  bool delivered = false;
  const uint64_t all = RecipientsOf(*result);
  const auto named = static_cast<uint64_t>(result->recipients_size());
  const auto look = [&](queue::v1::RecipientOutcome outcome, const common::v1::Reply& reply,
                        uint64_t recipients) {
    delivered |= recipients > 0 && outcome == queue::v1::RECIPIENT_OUTCOME_DELIVERED;
    if (IsTooMany(outcome, reply)) too_many += recipients;
    if (outcome == queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED) unsaid += recipients;
  };
  look(result->outcome(), result->reply(), all > named ? all - named : 0);
  for (const auto& each : result->recipients()) look(each.outcome(), each.reply(), 1);
  if (too_many == 0 || too_many + unsaid >= all) return;
  queue.most_recipients =
      static_cast<uint32_t>(std::min<uint64_t>(all - too_many - unsaid, UINT32_MAX));
  // Without one that was taken they might come back for ever.
  if (!delivered) return;
  if (IsTooMany(result->outcome(), result->reply())) {
    result->set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
  }
  for (auto& each : *result->mutable_recipients()) {
    if (IsTooMany(each.outcome(), each.reply())) {
      each.set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
    }
  }
}

// replace-smtp-421-service-response: a 421 ends a connection without saying why; what was refused
// on it before often does. What becomes of the recipients stays as it is.
void Worker::Replace421(Conn& conn, queue::v1::GroupResult* result) {
  const auto note = [&conn](const common::v1::Reply& reply) {
    if (!reply.local() && reply.code() >= 400 && reply.code() != 421) conn.refusal = reply;
  };
  note(result->reply());
  for (const auto& recipient : result->recipients()) note(recipient.reply());
  if (!conn.refusal || !conn.queue->settings->replace_smtp_421_service_response()) return;
  const auto replace = [&conn](queue::v1::RecipientOutcome outcome, common::v1::Reply* reply) {
    if (outcome == queue::v1::RECIPIENT_OUTCOME_TRANSIENT && !reply->local() &&
        reply->code() == 421) {
      *reply = *conn.refusal;
    }
  };
  replace(result->outcome(), result->mutable_reply());
  for (auto& recipient : *result->mutable_recipients()) {
    replace(recipient.outcome(), recipient.mutable_reply());
  }
}

uint64_t Worker::RecipientsOf(const queue::v1::GroupResult& result) const {
  const auto work = in_work_.find(result.lease_id());
  if (work == in_work_.end()) return 0;
  const auto held = work->second.link->held.find(work->second.lease_id);
  return held == work->second.link->held.end() ? 0 : held->second.recipients;
}

// max-errors-per-connection: with room left for a refusal of the text alone the connection would go
// on with single recipients; the others do better on a new one.
void Worker::NoteNoRoom(Conn& conn, const queue::v1::GroupResult& result) {
  if (conn.errors == 0 || conn.errors + 1 < conn.queue->settings->max_errors_per_connection()) {
    return;
  }
  const auto no_room = [](queue::v1::RecipientOutcome outcome, const common::v1::Reply& reply) {
    return outcome == queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED && reply.local() &&
           reply.stage() == common::v1::STAGE_RCPT;
  };
  conn.no_room |=
      no_room(result.outcome(), result.reply()) ||
      std::any_of(result.recipients().begin(), result.recipients().end(),
                  [&](const auto& each) { return no_room(each.outcome(), each.reply()); });
}

// Replies that count against max-errors-per-connection and max-errors-per-domain: each RCPT has its
// own, be they alike, and by LMTP each recipient of the text.
uint32_t Worker::Refusals(const Queue& queue, const queue::v1::GroupResult& result) const {
  const bool lmtp = queue.settings->type() == "lmtp";
  const auto refused = [](queue::v1::RecipientOutcome outcome, const common::v1::Reply& reply) {
    if (outcome == queue::v1::RECIPIENT_OUTCOME_TRANSIENT) return true;
    if (outcome != queue::v1::RECIPIENT_OUTCOME_PERMANENT) return false;
    // What never left this end is no error of the remote's.
    return !reply.local() ||
           (reply.stage() != common::v1::STAGE_MAIL && reply.stage() != common::v1::STAGE_RCPT);
  };
  uint64_t count = 0;
  if (refused(result.outcome(), result.reply())) {
    const auto named = static_cast<uint64_t>(result.recipients_size());
    const uint64_t all = RecipientsOf(result);
    const bool each = !result.reply().local() &&
                      (result.reply().stage() == common::v1::STAGE_RCPT ||
                       (lmtp && result.reply().stage() == common::v1::STAGE_FINAL_DOT));
    count = each && all > named ? all - named : 1;
  }
  for (const auto& recipient : result.recipients()) {
    count += refused(recipient.outcome(), recipient.reply()) ? 1 : 0;
  }
  return static_cast<uint32_t>(std::min<uint64_t>(count, UINT32_MAX));
}

void Worker::OnConnectionClosed(Conn& conn, ConnectionEnd end) {
  Queue& queue = *conn.queue;
  LogTlsFailure(conn, end);
  LogClosed(conn, end);
  const config::ReplyActions asked = HeedEnd(conn, end);
  if (!asked.bounce_category.empty()) end.reply.set_bounce_category(asked.bounce_category);
  if (asked.bounce_queue || asked.defer_queue) {
    const common::v1::Reply reply = end.reply;
    for (uint64_t id : conn.work) GiveBack(id);
    SettleVolume(conn, false);
    RemoveConn(conn);
    QuitAll(queue, false);
    SendPaced(queue);
    FailAsAsked(queue, reply, asked);
    return;
  }
  if (!end.ready) {
    ++stats_.connect_failures;
    queue.tls_refused |= end.reply.stage() == common::v1::STAGE_STARTTLS;
    const bool greeted = end.reply.stage() == common::v1::STAGE_GREETING && !end.reply.local();
    if (!greeted || end.reply.code() < 500) queue.only_5xx_greetings = false;
    if (greeted && end.reply.code() == 421 && queue.settings->smtp_421_means_mx_unavailable()) {
      SetAside(queue, conn);
    }
    queue.last_failure = end.reply;
    if (queue.last_failure.host().empty()) queue.last_failure.set_host(conn.host);
    if (queue.last_failure.ip().empty()) queue.last_failure.set_ip(conn.address);
    if (end.source_missing) {
      conn.source->closed = conn.source->proxy != nullptr
                                ? std::string(end.reply.text())
                                : absl::StrCat("this machine lacks ", conn.source->ip);
      if (options_.log != nullptr) {
        options_.log->Warn("source_suspended", conn.source->closed, {{"source", conn.source->ip}});
      }
      conn.source->closed_until = executor_.clock().Now() + kSuspendSource;
    } else if (!draining_ && !IsDisabled(queue, conn.source->ip)) {
      const Began began = ConnectNext(queue, conn);
      if (began == Began::kYes) return;
      if (began == Began::kLater) {
        RemoveConn(conn);
        return;
      }
    }
  } else if (!conn.answered && !conn.quitting) {
    queue.last_failure = end.reply;
  }
  // What this machine lacks is nothing that its hosts have done.
  const bool useless = !conn.answered && !conn.quitting && !conn.set_aside && !end.source_missing &&
                       !IsDisabled(queue, conn.source->ip);
  // Given to it when it had ended already: the result of the one before told us of a free place.
  for (uint64_t id : conn.work) GiveBack(id);
  SettleVolume(conn, false);
  if (!end.ready) EndTlsSearch(conn);
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
    FailQueue(queue, queue.last_failure, false,
              queue.only_5xx_greetings && queue.settings->bounce_upon_5xx_greeting());
    return;
  }
  SendPaced(queue);
  if (queue.conns.empty() && (queue.due() == 0 || IsBehindMany(queue))) {
    LetGo(queue);
    return;
  }
  TrimCredits(queue);
  Pump(queue);
}

// `freed`: what it held may be of use to those that wait in line.
void Worker::RemoveConn(Conn& conn, bool freed) {
  if (conn.idle != 0) executor_.Cancel(conn.idle);
  EndAttempt(conn);
  LeaveSite(conn);
  LeavePart(conn);
  LeaveHosts(conn);
  --conn.source->connections;
  --total_.connections;
  CountFor(*conn.queue, -1);
  if (freed) FreedSlot();
  const bool foreign = conn.foreign;
  conn.queue->conns.remove_if([&conn](const auto& each) { return each.get() == &conn; });
  if (!foreign) return;
  --foreign_connections_;
  ReleasedWhenClosed();
}

void Worker::TellFailure(const Ref& ref, const queue::v1::QueueFailure& failure) {
  queue::v1::QueueFailure* told = ref.link->out.header.add_failures();
  *told = failure;
  told->set_queue_ref(ref.ref);
  told->mutable_attempt()->set_worker(options_.name);
  ref.link->dirty = true;
  ref.link->refs.erase(ref.ref);
  FlushLater();
}

// The queue reached nobody: its shards put it, not its recipients, in retry mode.
void Worker::FailQueue(Queue& queue, const common::v1::Reply& reply, bool dns, bool permanent,
                       int64_t permanent_after_us, const config::ReplyActions* asked) {
  if (!dns && !permanent && asked == nullptr && WaiveTlsPolicy(queue, reply)) return;
  queue::v1::QueueFailure failure;
  *failure.mutable_reply() = reply;
  failure.set_dns(dns);
  failure.set_permanent(permanent);
  failure.set_permanent_after_us(permanent_after_us);
  if (asked != nullptr) {
    failure.set_penalty_us(asked->penalty_us);
    failure.set_penalty_most_us(asked->penalty_most_us);
    failure.set_by_reply(asked->penalty_us == 0);
  }
  for (const Ref& ref : queue.refs) TellFailure(ref, failure);
  queue.refs.clear();
  queue.route.reset();
  LetGo(queue);
}

}  // namespace sluice::delivery
