// The state of the cluster: shards, workers, connections, clocks, who has which source.
#include <cstdio>

#include "tools/ctl/render.h"
#include "tools/ctl/render_parts.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using Align = Table::Align;

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
    for (const auto& row : shard.damaged_rows()) {
      notes += PrintableText("shard " + shard.shard() + ": " + row.what() + ": row " + row.key() +
                             " of " + row.family() +
                             (row.queue().empty() ? "" : ", queue " + row.queue())) +
               "\n";
    }
    if (shard.damaged_rows_total() > 0) {
      notes += Number(shard.damaged_rows_total()) + " rows of shard " +
               PrintableText(shard.shard()) +
               " could not be read; they stay, and the rest goes on: services/queue/README.md\n";
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
  out += PrintableText(status.version()) + ", configuration " + Number(status.snapshot_version()) +
         " of " + FormatTime(status.snapshot_unix_us()) + " UTC\n\n" + shards.ToString() + "\n" +
         workers.ToString();
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
