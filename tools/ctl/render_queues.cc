// Queues, what each of them is and why it waits, and what is paused.
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "tools/ctl/render.h"
#include "tools/ctl/render_parts.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using Align = Table::Align;

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

Table QueueTable(const admin::v1::ListQueuesResponse& queues, int64_t now_us, bool& counting) {
  const bool rolled_up = std::any_of(queues.queues().begin(), queues.queues().end(),
                                     [](const auto& queue) { return !queue.rollup().empty(); });
  std::vector<Table::Column> columns = {{"QUEUE", Align::kLeft, kAddressWidthMax},
                                        {"RCPT", Align::kRight},
                                        {"LEASED", Align::kRight},
                                        {"STATE"},
                                        {"OLDEST", Align::kRight},
                                        {"NEXT"},
                                        {"REASON", Align::kLeft, kReasonWidthMax}};
  if (rolled_up) columns.insert(columns.begin() + 1, {"ROLLUP", Align::kLeft, kAddressWidthMax});
  Table table(columns);
  for (const auto& queue : queues.queues()) {
    counting = counting || queue.counting();
    std::vector<std::string> row = {queue.name(),
                                    Number(queue.recipients()) + (queue.counting() ? "+" : ""),
                                    Number(queue.leased()),
                                    QueueState(queue),
                                    OldestAge(queue, now_us),
                                    Until(queue.next_time_us(), now_us),
                                    ShownReason(queue)};
    if (rolled_up) row.insert(row.begin() + 1, queue.rollup().empty() ? "-" : queue.rollup());
    table.AddRow(std::move(row));
  }
  return table;
}

// What the queues of a rollup hold together: its limits are for all of them.
std::string Rollups(const admin::v1::ListQueuesResponse& queues) {
  struct Sum {
    uint64_t queues = 0, recipients = 0, leased = 0;
  };
  std::map<std::string, Sum> sums;
  for (const auto& queue : queues.queues()) {
    if (queue.rollup().empty()) continue;
    Sum& sum = sums[queue.rollup() + "/" + queue.vmta()];
    ++sum.queues;
    sum.recipients += queue.recipients();
    sum.leased += queue.leased();
  }
  if (sums.empty()) return "";
  Table table({{"ROLLUP", Align::kLeft, kAddressWidthMax},
               {"QUEUES", Align::kRight},
               {"RCPT", Align::kRight},
               {"LEASED", Align::kRight}});
  for (const auto& [name, sum] : sums) {
    table.AddRow({name, Number(sum.queues), Number(sum.recipients), Number(sum.leased)});
  }
  return "\n" + table.ToString() +
         "one set of limits for the queues of each; `sluicectl queues list 'ROLLUP/*'` lists "
         "them\n";
}

}  // namespace

std::string RenderQueues(const admin::v1::ListQueuesResponse& queues, int64_t now_us) {
  bool counting = false;
  std::string out = queues.queues().empty() ? "no queue has mail\n"
                                            : QueueTable(queues, now_us, counting).ToString();
  out += Rollups(queues);
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
    if (!queue.rollup().empty()) {
      facts.Add("rollup", queue.rollup() + "/" + queue.vmta() +
                              " (its settings and limits hold for all of its queues together)");
    }
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

}  // namespace sluice::ctl
