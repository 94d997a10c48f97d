#include "tools/ctl/render.h"

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <string_view>

#include "tools/ctl/message_id_text.h"
#include "tools/ctl/table.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using Align = Table::Align;

constexpr size_t kReasonWidthMax = 60;
constexpr size_t kAddressWidthMax = 48;

std::string Number(uint64_t n) { return std::to_string(n); }

std::string Age(int64_t since_us, int64_t now_us) {
  return since_us == 0 ? "-" : FormatSpan(now_us > since_us ? now_us - since_us : 0);
}

// "in 5m00s", "now", or "-" where nothing is planned.
std::string Until(int64_t when_us, int64_t now_us) {
  if (when_us == 0) return "-";
  return when_us <= now_us ? "now" : "in " + FormatSpan(when_us - now_us);
}

std::string Id(std::string_view bytes) { return MessageIdText(bytes); }

std::string Address(std::string_view address) {
  return address.empty() ? "<>" : std::string(address);
}

std::string ReplyText(const common::v1::Reply& reply) {
  std::string text;
  if (reply.code() != 0) text = Number(reply.code());
  if (!reply.enhanced().empty() && !reply.text().starts_with(reply.enhanced())) {
    if (!text.empty()) text += ' ';
    text += reply.enhanced();
  }
  if (!reply.text().empty()) {
    if (!text.empty()) text += ' ';
    text += reply.text();
  }
  return text;
}

// ">4h12m": at least.
std::string OldestAge(const queue::v1::QueueStatus& queue, int64_t now_us) {
  const std::string age = Age(queue.oldest_queued_us(), now_us);
  return queue.oldest_queued_us() != 0 && queue.oldest_at_least() ? ">" + age : age;
}

constexpr char kOldestNote[] =
    "OLDEST: how long ago the oldest mail of the queue came in; >: at least so long, as only what "
    "workers have\nand what is tried next was looked at\n";

std::string QueueState(const queue::v1::QueueStatus& queue) {
  if (queue.paused()) return "paused";
  return queue.mode().empty() ? "normal" : queue.mode();
}

// Of a queue's mode, where it ever changed.
struct ModeFacts {
  std::string since, until, who, why;
};

ModeFacts FactsOf(const queue::v1::QueueStatus& queue, int64_t now_us) {
  const auto& mode = queue.backoff();
  if (mode.since_us() == 0) return {};
  const bool backoff = queue.mode() == "backoff";
  ModeFacts facts;
  facts.since = FormatTime(mode.since_us()) + " UTC, " + Age(mode.since_us(), now_us) + " ago";
  facts.who = mode.author();
  if (mode.by_operator()) facts.who += " (operator)";
  facts.why = mode.reason();
  if (!backoff) return facts;
  if (mode.until_us() != 0) {
    facts.until = FormatTime(mode.until_us()) + " UTC, " + Until(mode.until_us(), now_us) +
                  (mode.by_operator() ? "" : ", or earlier by a reply or delivery");
  } else {
    facts.until = mode.by_operator() ? "an operator says normal"
                                     : "a reply or delivery that is configured to, or an operator, "
                                       "ends it";
  }
  return facts;
}

std::string ShownReason(const queue::v1::QueueStatus& queue) {
  if (!queue.reason().empty() || queue.mode() != "backoff" || queue.backoff().reason().empty()) {
    return queue.reason();
  }
  return "backoff: " + queue.backoff().reason();
}

std::string Unreachable(const google::protobuf::RepeatedPtrField<std::string>& names) {
  std::string out;
  for (const std::string& name : names) {
    out += "no answer from " + PrintableText(name) + ": what it holds is not shown\n";
  }
  return out;
}

// "name: value" lines, values lined up.
class Facts {
 public:
  void Add(const std::string& name, const std::string& value) {
    if (!value.empty()) table_.AddRow({name, value});
  }
  std::string ToString() const {
    const std::string text = table_.ToString();
    return text.substr(text.find('\n') + 1);  // no titles
  }

 private:
  Table table_{{{""}, {""}}};
};

std::string EventName(const common::v1::Event& event) {
  std::string name = common::v1::EventKind_Name(event.kind());
  constexpr std::string_view kPrefix = "EVENT_KIND_";
  if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
  for (char& c : name) {
    c = c == '_' ? '-' : static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  return name.empty() ? Number(static_cast<uint64_t>(event.kind())) : name;
}

Table QueueTable(const admin::v1::ListQueuesResponse& queues, int64_t now_us, bool& counting) {
  Table table({{"QUEUE", Align::kLeft, kAddressWidthMax},
               {"RCPT", Align::kRight},
               {"LEASED", Align::kRight},
               {"STATE"},
               {"OLDEST", Align::kRight},
               {"NEXT"},
               {"REASON", Align::kLeft, kReasonWidthMax}});
  for (const auto& queue : queues.queues()) {
    counting = counting || queue.counting();
    table.AddRow({queue.name(), Number(queue.recipients()) + (queue.counting() ? "+" : ""),
                  Number(queue.leased()), QueueState(queue), OldestAge(queue, now_us),
                  Until(queue.next_time_us(), now_us), ShownReason(queue)});
  }
  return table;
}

constexpr char kCountingNote[] = "+ a lower bound: still counting after a restart\n";

std::string Rate(uint64_t before, uint64_t after, int64_t elapsed_us) {
  if (elapsed_us <= 0 || after < before) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.0f/s",
                static_cast<double>(after - before) * 1e6 / static_cast<double>(elapsed_us));
  return text;
}

struct Totals {
  uint64_t accepted = 0, recipients = 0, leased = 0, delivered = 0, transient = 0, failed = 0;
};

Totals Sum(const admin::v1::GetStatusResponse& status) {
  Totals totals;
  for (const auto& shard : status.shards()) {
    totals.accepted += shard.accepted_total();
    totals.recipients += shard.recipients();
    totals.leased += shard.leased_recipients();
    totals.delivered += shard.delivered_total();
    totals.transient += shard.transient_total();
    totals.failed += shard.failed_total() + shard.expired_total();
  }
  return totals;
}

}  // namespace

std::string RenderStatus(const admin::v1::GetStatusResponse& status, int64_t now_us) {
  bool counting = false;
  std::string notes;
  Table shards({{"SHARD"},
                {"STATE"},
                {"RCPT", Align::kRight},
                {"LEASED", Align::kRight},
                {"HELD", Align::kRight},
                {"QUEUES", Align::kRight},
                {"SPOOL", Align::kRight},
                {"ACCEPTED", Align::kRight},
                {"DELIVERED", Align::kRight},
                {"DEFERRED", Align::kRight},
                {"FAILED", Align::kRight},
                {"EXPIRED", Align::kRight},
                {"SYNC P50", Align::kRight},
                {"UP", Align::kRight}});
  for (const auto& shard : status.shards()) {
    counting = counting || shard.counting();
    shards.AddRow({shard.shard(), shard.accepting() ? "accepting" : "refusing",
                   Number(shard.recipients()) + (shard.counting() ? "+" : ""),
                   Number(shard.leased_recipients()), Number(shard.held_recipients()),
                   Number(shard.queues()), FormatBytes(shard.spool_bytes()),
                   Number(shard.accepted_total()), Number(shard.delivered_total()),
                   Number(shard.transient_total()), Number(shard.failed_total()),
                   Number(shard.expired_total()), Number(shard.sync_p50_us()) + " us",
                   Age(shard.start_unix_us(), now_us)});
    if (shard.held_recipients() > 0) {
      notes += Number(shard.held_recipients()) + " recipients are held in shard " +
               PrintableText(shard.shard()) + ": sluicectl messages list --held\n";
    }
    if (shard.expiry_frozen_us() > 0) {
      notes += "the wall clock was set: nothing expires in shard " + PrintableText(shard.shard()) +
               " for another " + FormatSpan(shard.expiry_frozen_us()) +
               "; if it is right: sluicectl clock confirm\n";
    }
    if (!shard.accepting()) {
      notes += PrintableText("shard " + shard.shard() +
                             " takes no mail: " + shard.not_accepting_reason()) +
               "\n";
    }
  }
  Table workers({{"WORKER"},
                 {"STATE"},
                 {"CONNECTIONS", Align::kRight},
                 {"LEASES", Align::kRight},
                 {"DELIVERED", Align::kRight},
                 {"DEFERRED", Align::kRight},
                 {"FAILED", Align::kRight},
                 {"SOURCES", Align::kRight}});
  for (const auto& worker : status.workers()) {
    uint64_t usable = 0;
    for (const auto& source : worker.sources()) {
      if (source.owned() && source.suspended_reason().empty()) {
        ++usable;
      } else {
        notes += PrintableText(
                     "source " + source.ip() + " of worker " + worker.worker() + " is not used: " +
                     (source.owned() ? source.suspended_reason() : "not on this machine")) +
                 "\n";
      }
    }
    workers.AddRow({worker.worker(), worker.draining() ? "draining" : "working",
                    Number(worker.connections_open()), Number(worker.leases_held()),
                    Number(worker.delivered_total()), Number(worker.transient_total()),
                    Number(worker.permanent_total()),
                    Number(usable) + "/" + Number(static_cast<uint64_t>(worker.sources_size()))});
  }
  std::string out;
  out += "sluice " + PrintableText(status.version()) + ", configuration " +
         Number(status.snapshot_version()) + " of " + FormatTime(status.snapshot_unix_us()) +
         " UTC\n\n" + shards.ToString() + "\n" + workers.ToString();
  for (const auto& watcher : status.watchers()) {
    const std::string who = watcher.service() + "/" + watcher.instance();
    if (!watcher.connected()) {
      notes += PrintableText(who + " does not follow the configuration: not connected") + "\n";
    } else if (!watcher.error().empty()) {
      notes += PrintableText(who + " refuses the configuration: " + watcher.error()) + "\n";
    } else if (watcher.acked_version() != status.snapshot_version()) {
      notes +=
          PrintableText(who + " is at configuration " + Number(watcher.acked_version())) + "\n";
    }
  }
  for (const auto& control : status.controls()) {
    notes +=
        PrintableText("paused since " + FormatTime(control.since_us()) + " by " + control.author() +
                      ": " + (control.queue_pattern().empty() ? "*/*" : control.queue_pattern()) +
                      (control.job_id().empty() ? "" : " job " + control.job_id()) +
                      (control.reason().empty() ? "" : " (" + control.reason() + ")")) +
        "\n";
  }
  notes += Unreachable(status.unreachable());
  if (counting) notes += kCountingNote;
  if (!notes.empty()) out += "\n" + notes;
  return out;
}

std::string RenderQueues(const admin::v1::ListQueuesResponse& queues, int64_t now_us) {
  bool counting = false;
  std::string out = queues.queues().empty() ? "no queue has mail\n"
                                            : QueueTable(queues, now_us, counting).ToString();
  if (counting) out += kCountingNote;
  if (std::any_of(queues.queues().begin(), queues.queues().end(),
                  [](const auto& queue) { return queue.oldest_at_least(); })) {
    out += kOldestNote;
  }
  if (queues.more()) out += "there are more: raise --limit, or go on with --after\n";
  return out + Unreachable(queues.unreachable());
}

std::string RenderQueue(const admin::v1::GetQueueResponse& response, int64_t now_us) {
  std::string out;
  for (const auto& queue : response.per_shard()) {
    if (!out.empty()) out += "\n";
    Facts facts;
    facts.Add("queue", queue.name());
    facts.Add("shard", queue.shard());
    facts.Add("recipients", Number(queue.recipients()) + (queue.counting() ? "+ (counting)" : ""));
    facts.Add("leased", Number(queue.leased()));
    facts.Add("state", QueueState(queue));
    const ModeFacts mode = FactsOf(queue, now_us);
    const std::string name = queue.mode() == "backoff" ? "backoff" : "normal";
    facts.Add(name + " since", mode.since);
    facts.Add(name + " until", mode.until);
    facts.Add(name + " by", mode.who);
    facts.Add(name + " why", mode.why);
    facts.Add("reason", queue.reason());
    facts.Add("author", queue.author());
    facts.Add("next", Until(queue.next_time_us(), now_us));
    facts.Add("oldest", OldestAge(queue, now_us) +
                            (queue.oldest_at_least() ? " (at least: what is tried next)" : ""));
    facts.Add("delivered", Number(queue.delivered()));
    facts.Add("deferred", Number(queue.transient()));
    facts.Add("failed", Number(queue.failed()));
    out += facts.ToString();
    if (!queue.lanes().empty()) {
      Table lanes(
          {{"JOB"}, {"PRIORITY", Align::kRight}, {"RCPT", Align::kRight}, {"STATE"}, {"NEXT"}});
      for (const auto& lane : queue.lanes()) {
        lanes.AddRow({lane.job_id().empty() ? "-" : lane.job_id(), Number(lane.priority()),
                      Number(lane.recipients()), lane.paused() ? "paused" : "normal",
                      Until(lane.next_due_us(), now_us)});
      }
      out += "\n" + lanes.ToString();
    }
    if (!queue.sources().empty()) {
      Table sources({{"DISABLED SOURCE"},
                     {"SINCE"},
                     {"UNTIL"},
                     {"BY"},
                     {"WHY", Align::kLeft, kReasonWidthMax}});
      for (const auto& source : queue.sources()) {
        sources.AddRow({source.ip(), Age(source.since_us(), now_us) + " ago",
                        source.until_us() == 0 ? "enabled" : Until(source.until_us(), now_us),
                        source.author() + (source.by_operator() ? " (operator)" : ""),
                        source.reason()});
      }
      out += "\n" + sources.ToString();
    }
    if (!queue.last_replies().empty()) {
      Table replies({{"WHEN"}, {"HOST"}, {"REPLY", Align::kLeft, 100}});
      for (int i = 0; i < queue.last_replies_size(); ++i) {
        const auto& reply = queue.last_replies(i);
        replies.AddRow({i < queue.last_reply_times_us_size()
                            ? Age(queue.last_reply_times_us(i), now_us) + " ago"
                            : "-",
                        reply.host().empty() ? reply.ip() : reply.host(), ReplyText(reply)});
      }
      out += "\n" + replies.ToString();
    }
  }
  if (!response.blocked().empty()) {
    Table blocked({{"LIMIT"}, {"FREE"}});
    for (const auto& block : response.blocked()) {
      blocked.AddRow({block.limit(), Until(block.until_unix_us(), now_us)});
    }
    out += "\n" + blocked.ToString();
  }
  return out;
}

std::string RenderMessages(const admin::v1::ListMessagesResponse& messages, int64_t now_us) {
  if (messages.recipients().empty()) {
    return "no queued recipient matches\n" + Unreachable(messages.unreachable());
  }
  Table table({{"MESSAGE"},
               {"RECIPIENT", Align::kLeft, kAddressWidthMax},
               {"SENDER", Align::kLeft, kAddressWidthMax},
               {"QUEUE", Align::kLeft, kAddressWidthMax},
               {"STATE"},
               {"AGE", Align::kRight},
               {"DUE"},
               {"TRIES", Align::kRight},
               {"SIZE", Align::kRight},
               {"WHY IT WAITS", Align::kLeft, kReasonWidthMax}});
  for (const auto& r : messages.recipients()) {
    const common::v1::Reply& last = r.delivery().last_reply();
    // The reply with its code, where it is the reason.
    const bool replied = r.reason().empty() || r.reason() == last.text();
    table.AddRow({Id(r.message_id()), r.delivery().rcpt(), Address(r.mail_from()), r.queue(),
                  r.state(), Age(r.time_queued_us(), now_us), Until(r.due_us(), now_us),
                  Number(r.delivery().attempts()), FormatBytes(r.body_size()),
                  replied ? ReplyText(last) : r.reason()});
  }
  std::string out = table.ToString();
  if (!messages.after().empty()) out += "there are more: raise --limit\n";
  return out + Unreachable(messages.unreachable());
}

std::string RenderMessage(const admin::v1::GetMessageResponse& response, int64_t now_us) {
  const auto& message = response.message().message();
  Facts facts;
  facts.Add("message", Id(message.id()));
  if (!message.parent_id().empty()) facts.Add("parent", Id(message.parent_id()));
  facts.Add("sender", Address(message.mail_from()));
  facts.Add("queued", FormatTime(message.time_queued_us()) + " UTC, " +
                          Age(message.time_queued_us(), now_us) + " ago");
  facts.Add("size", FormatBytes(message.body_size()));
  facts.Add("client", message.client_ip().empty()
                          ? ""
                          : message.client_name() + " [" + message.client_ip() + "]");
  facts.Add("user", message.user());
  facts.Add("envid", message.envid());
  for (const auto& header : message.captured_headers()) facts.Add(header.name(), header.value());
  admin::v1::ListMessagesResponse recipients;
  *recipients.mutable_recipients() = response.message().recipients();
  std::string out = facts.ToString() + "\n" + RenderMessages(recipients, now_us);
  if (response.message().more()) {
    out += "there are more: sluicectl messages list --id " + Id(message.id()) + " --limit N\n";
  }
  if (!response.message().body().empty()) {
    out += "\n";
    std::string_view body = response.message().body();
    while (!body.empty()) {
      const size_t end = body.find('\n');
      out += PrintableText(body.substr(0, end)) + "\n";
      body.remove_prefix(end == std::string_view::npos ? body.size() : end + 1);
    }
  }
  return out;
}

std::string RenderEvents(const admin::v1::ListEventsResponse& events) {
  if (events.events().empty())
    return "no event of this message is kept\n" + Unreachable(events.unreachable());
  Table table({{"TIME (UTC)"},
               {"EVENT"},
               {"RECIPIENT", Align::kLeft, kAddressWidthMax},
               {"QUEUE", Align::kLeft, kAddressWidthMax},
               {"SOURCE IP"},
               {"HOST"},
               {"REPLY OR REASON", Align::kLeft, 100}});
  for (const auto& event : events.events()) {
    std::string what = ReplyText(event.reply());
    if (what.empty()) what = event.reason();
    if (what.empty()) what = event.dsn_diagnostic();
    if (!event.author().empty()) what += " (" + event.author() + ")";
    table.AddRow({FormatTime(event.time_us()), EventName(event), event.rcpt(), event.queue(),
                  event.attempt().source_ip(),
                  event.attempt().destination_host().empty() ? event.attempt().destination_ip()
                                                             : event.attempt().destination_host(),
                  what});
  }
  return table.ToString() + (events.more() ? "there may be more: raise --limit\n" : "") +
         Unreachable(events.unreachable());
}

std::string RenderPauses(const admin::v1::ListPausesResponse& pauses, int64_t now_us) {
  if (pauses.entries().empty()) return "nothing is paused\n";
  Table table({{"ID"},
               {"QUEUES"},
               {"JOB"},
               {"SINCE"},
               {"UNTIL"},
               {"AUTHOR"},
               {"REASON", Align::kLeft, kReasonWidthMax}});
  for (const auto& entry : pauses.entries()) {
    table.AddRow({entry.id(), entry.queue_pattern().empty() ? "*/*" : entry.queue_pattern(),
                  entry.job_id().empty() ? "-" : entry.job_id(),
                  Age(entry.since_us(), now_us) + " ago",
                  entry.until_us() == 0 ? "resumed" : Until(entry.until_us(), now_us),
                  entry.author(), entry.reason()});
  }
  return table.ToString();
}

namespace {

// Messages show a line of a file and a caret below it.
std::string PrintableLines(const std::string& text) {
  std::string out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) out += PrintableText(line) + "\n";
  return out;
}

}  // namespace

std::string RenderConnections(const admin::v1::GetStatusResponse& status) {
  constexpr int kMostOfAWorker = 1000;
  Table table({{"QUEUE", Align::kLeft, kAddressWidthMax},
               {"WORKER"},
               {"SOURCE IP"},
               {"HOST", Align::kLeft, kAddressWidthMax},
               {"IP"},
               {"STATE"},
               {"DELIVERED", Align::kRight},
               {"OPEN", Align::kRight}});
  bool any = false;
  std::string notes;
  for (const auto& worker : status.workers()) {
    for (const auto& each : worker.connections()) {
      any = true;
      table.AddRow({each.queue(), worker.worker(), each.source_ip(), each.destination_host(),
                    each.destination_ip(), each.state(), Number(each.delivered()),
                    FormatSpan(each.opened_us_ago())});
    }
    if (worker.connections_size() >= kMostOfAWorker) {
      notes +=
          PrintableText("worker " + worker.worker() + " has " + Number(worker.connections_open()) +
                        " connections in all, not all are shown: name some queues") +
          "\n";
    }
  }
  std::string out = any ? table.ToString() : "no connection is open\n";
  return out + notes + Unreachable(status.unreachable());
}

std::string RenderClocks(const admin::v1::GetStatusResponse& status, int64_t now_us) {
  const auto difference = [](int64_t us) {
    constexpr int64_t kAlikeUs = 1'000'000;  // an answer takes a while
    if (us > -kAlikeUs && us < kAlikeUs) return std::string("-");
    return (us < 0 ? "-" : "+") + FormatSpan(us < 0 ? -us : us);
  };
  Table table({{"SHARD"},
               {"WALL CLOCK (UTC)"},
               {"FROM HERE", Align::kRight},
               {"STEP SEEN", Align::kRight},
               {"NOTHING EXPIRES FOR", Align::kRight}});
  bool frozen = false;
  for (const auto& shard : status.shards()) {
    const bool known = shard.wall_unix_us() != 0;
    frozen |= shard.expiry_frozen_us() > 0;
    table.AddRow({shard.shard(), known ? FormatTime(shard.wall_unix_us()) : "-",
                  known ? difference(shard.wall_unix_us() - now_us) : "-",
                  shard.clock_step_us() == 0 ? "-" : difference(shard.clock_step_us()),
                  shard.expiry_frozen_us() == 0 ? "-" : FormatSpan(shard.expiry_frozen_us())});
  }
  std::string out = table.ToString();
  if (frozen) {
    out +=
        "a wall clock was set, so mail does not expire until it was quiet for a while; if it is "
        "right:\nsluicectl clock confirm\n";
  }
  return out + Unreachable(status.unreachable());
}

std::string RenderOwners(const admin::v1::ListOwnersResponse& owners) {
  if (owners.sources().empty()) return "no virtual MTA is configured\n";
  Table table({{"VIRTUAL MTA"},
               {"SOURCE IP"},
               {"WORKER"},
               {"STATE"},
               {"LEASE", Align::kRight},
               {"WAITS FOR", Align::kLeft, 100}});
  for (const auto& source : owners.sources()) {
    std::string state = source.worker().empty() ? "nobody's" : source.connected() ? "used" : "away";
    if (source.changing()) {
      state = source.next_worker().empty() ? "goes" : "goes to " + source.next_worker();
    }
    // What a worker has alone it uses without a lease.
    const std::string lease = !source.leased()             ? "not needed"
                              : source.lease_age_us() == 0 ? "none"
                                                           : FormatSpan(source.lease_age_us());
    table.AddRow({source.vmta(), source.source_ip().empty() ? "any" : source.source_ip(),
                  source.worker().empty() ? "-" : source.worker(), state,
                  source.worker().empty() ? "-" : lease, source.waits_for()});
  }
  std::string out = table.ToString();
  for (const auto& witness : owners.witnesses()) {
    if (witness.old_release()) {
      out += PrintableText(
                 "shard " + witness.shard() +
                 " is of a release that cannot stand in for the policy service: upgrade it") +
             "\n";
      continue;
    }
    if (witness.epoch() == owners.epoch()) continue;
    out += PrintableText("shard " + witness.shard() + " keeps to table " + Number(witness.epoch()) +
                         ", not yet to " + Number(owners.epoch())) +
           "\n";
  }
  return out;
}

std::string RenderReload(const admin::v1::ReloadConfigResponse& reload) {
  std::string out = reload.changed()
                        ? "configuration " + Number(reload.version()) + ": " +
                              Number(reload.sections_changed()) + " sections changed\n"
                        : "nothing changed, configuration " + Number(reload.version()) + "\n";
  for (const std::string& warning : reload.warnings()) out += PrintableLines(warning);
  size_t acknowledged = 0;
  for (const auto& watcher : reload.watchers()) {
    const bool done = watcher.acked_version() == reload.version() && watcher.error().empty();
    if (!done) continue;
    out += (acknowledged++ == 0 ? "acknowledged by " : ", ") +
           PrintableText(watcher.service() + "/" + watcher.instance());
  }
  if (acknowledged > 0) out += "\n";
  for (const auto& watcher : reload.watchers()) {
    if (watcher.acked_version() == reload.version() && watcher.error().empty()) continue;
    out += PrintableText(watcher.service() + "/" + watcher.instance() +
                         (watcher.error().empty() ? " has not acknowledged it yet (at " +
                                                        Number(watcher.acked_version()) + ")"
                                                  : " refuses it: " + watcher.error())) +
           "\n";
  }
  return out;
}

std::string RenderCheck(const admin::v1::CheckConfigResponse& check) {
  std::string out;
  for (const std::string& text : check.diagnostics()) out += PrintableLines(text);
  out += Number(check.effective()) + " lines effective, " + Number(check.aliases()) +
         " effective by another name, " + Number(check.planned()) + " planned, " +
         Number(check.no_meaning()) + " without a meaning here, " + Number(check.unsupported()) +
         " unsupported\n";
  return out + (check.loads() ? "the configuration loads\n" : "the configuration does not load\n");
}

std::string RenderTop(const admin::v1::GetStatusResponse& before,
                      const admin::v1::GetStatusResponse& status, int64_t elapsed_us,
                      const admin::v1::ListQueuesResponse& queues, int64_t now_us) {
  const Totals old = Sum(before);
  const Totals now = Sum(status);
  uint64_t connections = 0;
  for (const auto& worker : status.workers()) connections += worker.connections_open();
  std::string out = FormatTime(now_us) + " UTC   queued " + Number(now.recipients) + "   leased " +
                    Number(now.leased) + "   connections " + Number(connections) + "\n" +
                    "accepted " + Rate(old.accepted, now.accepted, elapsed_us) + "   delivered " +
                    Rate(old.delivered, now.delivered, elapsed_us) + "   deferred " +
                    Rate(old.transient, now.transient, elapsed_us) + "   failed " +
                    Rate(old.failed, now.failed, elapsed_us) + "\n\n";
  return out + RenderQueues(queues, now_us) + Unreachable(status.unreachable());
}

}  // namespace sluice::ctl
