// Backoff mode: when a queue goes into it and out of it, what holds in it, and how all shards that
// have mail of the queue come to know. The worker that sees a reply is the queue's only one, so its
// word holds at once; shards make it durable, and an operator's word comes from them.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

using Mode = config::ReplyActions::Mode;

// Of a reply, in what people read.
constexpr size_t kReasonBytes = 300;
// What is known of queues that are not here: each has a row on some shard, too.
constexpr size_t kMostKnownModes = 10'000;
// They are forgotten before shards forget what an operator said of an empty queue (7 days).
constexpr Duration kKnownFor = std::chrono::hours(6 * 24);

std::string LineOf(const common::v1::Reply& reply) {
  return reply.code() == 0 ? std::string(reply.text())
                           : config::ReplyLine(reply.code(), reply.enhanced(), reply.text());
}

// The reply, and the line of the configuration that it matches.
std::string WhyOf(const common::v1::Reply& reply, const std::string& rule) {
  std::string why = LineOf(reply).substr(0, kReasonBytes);
  if (!rule.empty()) absl::StrAppend(&why, " (matches ", rule, ")");
  return why;
}

}  // namespace

bool Worker::InBackoff(const Queue& queue) const {
  return queue.mode.backoff() && (queue.mode.until_us() == 0 || WallUs() < queue.mode.until_us());
}

size_t Worker::MostConnections(const Queue& queue) const {
  return queue.caps.connections == 0 ? options_.max_connections : queue.caps.connections;
}

void Worker::SetCaps(Queue& queue) {
  const bool backoff = InBackoff(queue);
  const MonotonicTime now = executor_.clock().Now();
  queue.caps = CapsOf(*queue.settings, backoff);
  if (queue.rollup != nullptr) CapsInRollup(queue);
  queue.pace.Limit(queue.caps, now);
  // Of a change that came from elsewhere: since when its limit has held.
  const int64_t ago_us = std::max<int64_t>(0, WallUs() - queue.mode.since_us());
  queue.pace.SetBackoff(backoff, std::max(MonotonicTime{}, now - Duration(ago_us)));
}

void Worker::LearnMode(
    Queue& queue, Ref& ref, const queue::v1::QueueModeState& mode,
    const google::protobuf::RepeatedPtrField<queue::v1::DisabledSource>& sources) {
  const bool was = queue.caps.in_backoff;
  bool learned = false;
  bool knows_less = mode.since_us() < queue.mode.since_us();
  if (mode.since_us() > queue.mode.since_us()) {
    queue.mode = mode;
    queue.mode.clear_notify();  // that shard does it
    learned = true;
  }
  size_t known = 0;
  for (const queue::v1::DisabledSource& source : sources) {
    auto own = std::find_if(queue.disabled.begin(), queue.disabled.end(),
                            [&](const auto& each) { return each.ip() == source.ip(); });
    if (own == queue.disabled.end()) own = queue.disabled.emplace(own);
    ++known;
    knows_less |= source.since_us() < own->since_us();
    if (source.since_us() <= own->since_us()) continue;
    *own = source;
    own->clear_notify();
    learned = true;
  }
  knows_less |= known < queue.disabled.size();
  if (knows_less) TellMode(queue, &ref, nullptr);
  if (!learned) return;
  CloseDisabled(queue);
  ApplyMode(queue, was);
  TellMode(queue, nullptr, &ref);
  if (queue.rollup != nullptr && queue.settings != nullptr) ShareSources(queue);
}

// One shard tells people of what this worker has decided.
void Worker::TellMode(Queue& queue, const Ref* only, const Ref* except) {
  for (const Ref& ref : queue.refs) {
    if ((only != nullptr && &ref != only) || &ref == except) continue;
    queue::v1::QueueModeChange* change = ref.link->out.header.add_modes();
    change->set_queue_ref(ref.ref);
    *change->mutable_mode() = queue.mode;
    for (const auto& source : queue.disabled) *change->add_sources() = source;
    ref.link->dirty = true;
    queue.mode.clear_notify();
    for (auto& source : queue.disabled) source.clear_notify();
    queue.untold = false;
    FlushLater();
  }
}

void Worker::RememberMode(const Queue& queue) {
  if (queue.mode.since_us() == 0 && queue.disabled.empty()) return;
  if (known_modes_.size() >= kMostKnownModes) {
    std::erase_if(known_modes_, [](const auto& each) { return !each.second.untold; });
  }
  if (known_modes_.size() >= kMostKnownModes) return;
  known_modes_[queue.name] = {queue.mode, queue.disabled, queue.untold, executor_.clock().Now()};
}

void Worker::Recall(Queue& queue) {
  const auto found = known_modes_.find(queue.name);
  if (found == known_modes_.end()) return;
  if (executor_.clock().Now() >= found->second.since + kKnownFor) {
    known_modes_.erase(found);
    return;
  }
  queue.mode = std::move(found->second.mode);
  queue.disabled = std::move(found->second.disabled);
  queue.untold = found->second.untold;
  known_modes_.erase(found);
  ApplyMode(queue, false);
}

// Shards do the same by themselves, with the same record.
void Worker::EndModeByTime(Queue& queue) {
  if (!queue.mode.backoff() || InBackoff(queue)) return;
  queue::v1::QueueModeState normal;
  normal.set_since_us(std::max(queue.mode.until_us(), queue.mode.since_us() + 1));
  normal.set_author(queue.mode.author());
  normal.set_reason("the time of backoff mode is over");
  queue.mode = normal;
  ApplyMode(queue, queue.caps.in_backoff);
  TellMode(queue, nullptr, nullptr);
}

// `after_us`: how long it lasts at the most; 0: no such time.
void Worker::SetMode(Queue& queue, bool backoff, const std::string& reason, int64_t after_us) {
  const bool was = queue.caps.in_backoff;
  const int64_t now_us = WallUs();
  queue::v1::QueueModeState& mode = queue.mode;
  const int64_t until_us = after_us == 0 ? 0 : now_us + after_us;
  if (backoff && was && mode.backoff()) {
    // Longer, if at all; not written anew for each of many replies.
    const int64_t step_us = std::max<int64_t>(1'000'000, after_us / 16);
    if (mode.until_us() == 0 || (until_us != 0 && until_us < mode.until_us() + step_us)) return;
    mode.set_since_us(mode.since_us() + 1);
    mode.set_until_us(until_us);
  } else {
    const int64_t since_us = std::max(now_us, mode.since_us() + 1);
    mode.Clear();
    mode.set_backoff(backoff);
    mode.set_since_us(since_us);
    mode.set_until_us(until_us);
    mode.set_author(options_.name);
    mode.set_reason(reason.substr(0, 2 * kReasonBytes));
    mode.set_notify(true);
  }
  queue.untold = true;
  ApplyMode(queue, was);
  TellMode(queue, nullptr, nullptr);
}

// What a change of `mode` changes; `was_backoff`: before it.
void Worker::ApplyMode(Queue& queue, bool was_backoff) {
  const bool is = InBackoff(queue);
  if (is != was_backoff) {
    ++queue.mode_round;
    queue.errors_in_row = 0;
  }
  if (queue.settings == nullptr) return;
  SetCaps(queue);
  if (is && queue.rollup == nullptr) CloseExcess(queue);
  TrimCredits(queue);
  if (queue.rollup != nullptr) ShareMode(queue);
}

// In good order: what is under way ends. Of a rollup those of all its queues count, and may close.
void Worker::CloseExcess(Queue& queue) {
  std::vector<Conn*> open;
  const auto gather = [&open](const Queue& from) {
    for (const auto& conn : from.conns) {
      if (!conn->quitting) open.push_back(conn.get());
    }
  };
  size_t most = MostConnections(queue);
  if (queue.rollup == nullptr) {
    gather(queue);
  } else {
    most = queue.rollup->limits.own.most;
    if (queue.rollup->limits.own.connections <= most) return;
    for (const auto& [name, other] : queues_) {
      if (other->rollup == queue.rollup) gather(*other);
    }
  }
  if (open.size() <= most) return;
  const size_t above = open.size() - most;  // an argument could come after the move
  CloseSome(std::move(open), above);
}

void Worker::CloseSome(std::vector<Conn*> open, size_t count) {
  // The least useful ones first.
  const auto use = [](const Conn* conn) { return !conn->ready ? 0 : conn->under_way == 0 ? 1 : 2; };
  std::stable_sort(open.begin(), open.end(),
                   [&](const Conn* a, const Conn* b) { return use(a) < use(b); });
  open.resize(std::min(count, open.size()));
  for (Conn* conn : open) {
    if (conn == judged_) continue;
    Queue& of = *conn->queue;
    if (conn->ready) {
      Quit(*conn);
    } else {
      RemoveConn(*conn);
    }
    TrimCredits(of);
  }
}

// ---- What replies do

std::shared_ptr<const config::ReplyRules> Worker::RulesFor(
    const policy::v1::QueueSettings& settings) {
  const auto& patterns = settings.backoff_trigger_patterns();
  const auto* const list = settings.smtp_pattern_list().empty()
                               ? nullptr
                               : policy_->FindSmtpPatternList(settings.smtp_pattern_list());
  const auto& penalties = settings.penalties();
  if (list == nullptr && patterns.values().empty() && penalties.entries().empty()) return nullptr;
  const std::string key =
      absl::StrCat(absl::AsciiStrToLower(settings.smtp_pattern_list()), "\n",
                   patterns.SerializeAsString(), "\n", penalties.SerializeAsString());
  Rules& entry = rules_[key];
  if (entry.rules == nullptr) {
    entry.list = settings.smtp_pattern_list();
    if (list != nullptr) entry.lines = list->SerializeAsString();
    entry.rules = std::make_shared<const config::ReplyRules>(list, patterns, penalties);
  }
  return entry.rules->empty() ? nullptr : entry.rules;
}

// A new policy: what did not change stays compiled.
void Worker::KeepRules() {
  absl::erase_if(rules_, [this](const auto& each) {
    const auto* const list =
        each.second.list.empty() ? nullptr : policy_->FindSmtpPatternList(each.second.list);
    return (list == nullptr ? std::string() : list->SerializeAsString()) != each.second.lines;
  });
}

// Of one group; changes outcomes where its replies say so. What the queue as a whole is to do is
// left to the caller, as the group is to be reported first.
config::ReplyActions Worker::HeedReplies(Conn& conn, queue::v1::GroupResult* result,
                                         common::v1::Reply* cause) {
  Queue& queue = *conn.queue;
  if (IsLocalEnd(*queue.settings)) return {};
  EndModeByTime(queue);
  const bool backoff = InBackoff(queue);
  bool delivered = false;
  const common::v1::Reply* refusal = nullptr;
  config::ReplyActions all;
  std::string last_line;
  config::ReplyActions last;
  bool refused = false;  // `cause` is of a refusal, and not of mail that was taken
  // Many recipients are likely to have had the same reply.
  const auto heed = [&](common::v1::Reply& reply, queue::v1::RecipientOutcome outcome) {
    const bool took = outcome == queue::v1::RECIPIENT_OUTCOME_DELIVERED;
    delivered |= took;
    if (outcome == queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED) return outcome;
    if (!took) refusal = &reply;
    if (reply.local() || reply.code() == 0) return outcome;
    if (!took) HeedThrottles(queue, reply);
    if (reply.code() == 553 && reply.stage() == common::v1::STAGE_RCPT &&
        reply.enhanced().empty() && queue.settings->smtp_553_means_invalid_mailbox()) {
      reply.set_enhanced("5.1.1");
    }
    if (queue.rules == nullptr || (took && !(backoff && queue.rules->may_end_backoff()))) {
      return outcome;
    }
    if (std::string line = LineOf(reply); line != last_line) {
      last = queue.rules->Match(line);
      last_line = std::move(line);
    }
    if (took) {
      if (last.mode != Mode::kNormal) return outcome;
      config::ReplyActions only_mode;
      only_mode.mode = Mode::kNormal;
      only_mode.mode_rule = last.mode_rule;
      if (!all.any()) *cause = reply;
      all.Add(only_mode);
      return outcome;
    }
    if (!last.bounce_category.empty()) reply.set_bounce_category(last.bounce_category);
    if (last.any() && !refused) *cause = reply;
    refused |= last.any();
    all.Add(last);
    if (last.skip_mx) {
      queue.last_failure = reply;
      return queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;
    }
    return last.bounce_recipient ? queue::v1::RECIPIENT_OUTCOME_PERMANENT : outcome;
  };
  // Where every recipient is named, nobody has the group's.
  const auto work = in_work_.find(result->lease_id());
  if (static_cast<uint64_t>(result->recipients_size()) <
      std::max<uint64_t>(1, RecipientsOf(*result))) {
    result->set_outcome(heed(*result->mutable_reply(), result->outcome()));
  }
  for (auto& recipient : *result->mutable_recipients()) {
    recipient.set_outcome(heed(*recipient.mutable_reply(), recipient.outcome()));
  }
  if (delivered) queue.errors_in_row = 0;
  const bool began_in_mode = work != in_work_.end() && work->second.mode_round == queue.mode_round;
  if (delivered && began_in_mode && all.mode == Mode::kAsItIs && backoff &&
      !queue.mode.by_operator() && queue.settings->backoff_to_normal_after_delivery()) {
    SetMode(queue, false, "a delivery (backoff-to-normal-after-delivery)", 0);
  }
  Heed(queue, conn, all, *cause);
  if (!delivered && refusal != nullptr) {
    const uint32_t errors = Refusals(queue, *result);
    if (errors > 0) CountErrors(queue, errors, *refusal);
  }
  return all;
}

// A connection that ended before it was of use.
config::ReplyActions Worker::HeedEnd(Conn& conn, const ConnectionEnd& end) {
  Queue& queue = *conn.queue;
  const bool refused = !end.ready || (!conn.answered && !conn.quitting);
  if (!refused || draining_ || end.source_missing || IsLocalEnd(*queue.settings)) return {};
  EndModeByTime(queue);
  judged_ = &conn;
  HeedThrottles(queue, end.reply);
  config::ReplyActions actions;
  if (queue.rules != nullptr && !end.reply.local() && end.reply.code() != 0) {
    actions = queue.rules->Match(LineOf(end.reply));
    Heed(queue, conn, actions, end.reply);
  }
  CountErrors(queue, 1, end.reply);
  judged_ = nullptr;
  return actions;
}

void Worker::Heed(Queue& queue, Conn& conn, const config::ReplyActions& actions,
                  const common::v1::Reply& reply) {
  if (!actions.any()) return;
  const auto& settings = *queue.settings;
  if (actions.mode == Mode::kBackoff && !(InBackoff(queue) && queue.mode.by_operator())) {
    SetMode(queue, true, WhyOf(reply, actions.mode_rule),
            actions.backoff_to_normal_after_us != 0 ? actions.backoff_to_normal_after_us
                                                    : settings.backoff_to_normal_after_us());
  }
  if (actions.mode == Mode::kNormal && InBackoff(queue) && !queue.mode.by_operator()) {
    SetMode(queue, false, WhyOf(reply, actions.mode_rule), 0);
  }
  if (actions.skip_mx) {
    SetAside(queue, conn);
    conn.set_aside = true;
    if (conn.ready && !conn.quitting) Quit(conn);
  }
  if (actions.disable_source) {
    DisableSource(queue, conn.source->ip, WhyOf(reply, actions.source_rule),
                  actions.reenable_after_us != 0 ? actions.reenable_after_us
                                                 : settings.reenable_source_ip_after_us());
  }
}

void Worker::CountErrors(Queue& queue, uint32_t errors, const common::v1::Reply& reply) {
  const uint32_t most = queue.settings->max_errors_per_domain();
  if (most == 0) return;
  queue.errors_in_row += errors;
  if (queue.errors_in_row < most || InBackoff(queue)) return;
  SetMode(queue, true,
          absl::StrCat(queue.errors_in_row, " errors in a row (max-errors-per-domain ", most,
                       "), the last: ", LineOf(reply)),
          queue.settings->backoff_to_normal_after_us());
}

}  // namespace sluice::delivery
