// What /metrics shows of each part of a process.
#include <set>
#include <string_view>
#include <tuple>

#include "services/base/metrics/metrics_text.h"
#include "services/ingest/core/ingest_metrics.h"
#include "services/node/daemon.h"

namespace sluice::node {
namespace {

constexpr double kUsPerSecond = 1e6;

// Whether a service of this process reaches the policy service.
struct LinkMetric {
  std::string_view service;
  std::string_view name;
};
constexpr LinkMetric kLinkMetrics[] = {{"ingest", "sluice_ingest_policy_connected"},
                                       {"queue", "sluice_queue_policy_connected"},
                                       {"delivery", "sluice_delivery_policy_connected"}};

void AddIngest(IngestPart& ingest, MetricsText& page) {
  const auto ingests = ingest.ingests();
  for (const auto& metric : ingest::ReadMetrics(ingests)) {
    if (metric.is_gauge) {
      page.Gauge(metric.name, metric.help, metric.value);
    } else {
      page.Counter(metric.name, metric.help, metric.value);
    }
  }
  const ingest::PickupCounters pickup = ingest.pickup_counters();
  page.Counter("sluice_ingest_pickup_taken_total", "Files of pickup folders that became messages.",
               pickup.taken);
  page.Counter("sluice_ingest_pickup_bad_total", "Files that went to the bad folder.", pickup.bad);
  page.Counter("sluice_ingest_pickup_unreadable_total", "Tries at files that could not be read.",
               pickup.unreadable);
  page.Gauge("sluice_ingest_pickup_stuck",
             "Files that wait after an error, and folders that cannot be read or written to.",
             pickup.stuck);
  page.Counter("sluice_ingest_pickup_put_off_total", "Files that were put off for a while.",
               pickup.put_off);
}

void AddQueue(QueuePart& queue, MetricsText& page) {
  const auto status = queue.thread().Call([&queue] {
    queue::v1::GetShardStatusResponse status;
    queue.shard().GetShardStatus({}, [&status](auto response) { status = *response; });
    return status;
  });
  page.Gauge("sluice_queue_recipients", "Recipients that wait.", status.recipients());
  page.Gauge("sluice_queue_leased_recipients", "Recipients that workers have.",
             status.leased_recipients());
  page.Gauge("sluice_queue_queues", "Queues in memory.", status.queues());
  page.Gauge("sluice_queue_workers", "Connected delivery workers.", status.workers());
  page.Gauge("sluice_queue_accepting", "1 while new mail is taken.", status.accepting());
  page.Gauge("sluice_queue_spool_bytes", "Bytes of the database.", status.spool_bytes());
  page.Gauge("sluice_queue_spool_limit_bytes",
             "Above it new mail is put off; 0: the volume's free space alone decides.",
             status.spool_limit_bytes());
  page.Counter("sluice_queue_accepted_messages_total", "Messages made durable.",
               status.accepted_total());
  page.Counter("sluice_queue_delivered_recipients_total", "Recipients delivered.",
               status.delivered_total());
  page.Counter("sluice_queue_transient_total", "Attempts that ended in a 4xx.",
               status.transient_total());
  page.Counter("sluice_queue_failed_recipients_total", "Recipients that failed for good.",
               status.failed_total());
  page.Counter("sluice_queue_expired_recipients_total", "Recipients that expired.",
               status.expired_total());
  page.Counter("sluice_queue_syncs_total", "Commits with a sync.", status.syncs_total());
  page.Gauge("sluice_queue_sync_p99_seconds", "Of recent commits, with their sync.",
             static_cast<double>(status.sync_p99_us()) / kUsPerSecond);
  page.Counter("sluice_queue_lost_leases_total", "Leases whose worker was lost.",
               status.lost_leases_total());
  page.Gauge("sluice_queue_held_recipients", "Recipients held until an operator releases them.",
             status.held_recipients());
  page.Gauge("sluice_queue_expiry_frozen_seconds",
             "The wall clock was set: for so long nothing expires yet.",
             status.expiry_frozen_us() / 1'000'000);
  page.Counter("sluice_queue_damaged_rows_total", "Rows that could not be read.",
               status.damaged_rows_total());
  page.Counter("sluice_queue_events_dropped_total", "Events that left the outbox by age or size.",
               status.events_dropped_total());
}

void AddPolicy(PolicyPart& part, uint64_t refused, MetricsText& page) {
  const PolicyPart::Figures policy = part.figures();
  page.Gauge("sluice_policy_snapshot_version", "Grows with every change.", policy.version);
  page.Gauge("sluice_policy_services_connected", "Services that follow it.", policy.connected);
  page.Gauge("sluice_policy_services_behind", "Of these, those without the last version.",
             policy.behind);
  page.Gauge("sluice_policy_services_refusing", "Of these, those that cannot use it.",
             policy.refusing);
  page.Counter("sluice_policy_admin_refused_total",
               "Calls of the admin API without the right to it.", refused);
  page.Gauge("sluice_policy_pauses", "Pauses of queues and jobs.", policy.pauses);
  page.Gauge("sluice_policy_owners_epoch", "Of the table that says who has which source.",
             policy.owners_epoch);
  page.Gauge("sluice_policy_sources_changing", "Sources that change hands.", policy.changing);
  page.Gauge("sluice_policy_sources_unowned", "Sources that no worker has.", policy.unowned);
}

// An address counts once, however many virtual MTAs have it.
size_t Suspended(const delivery::v1::GetWorkerStatusResponse& status) {
  std::set<std::string_view> ips;
  for (const auto& source : status.sources()) {
    if (source.owned() && !source.suspended_reason().empty()) ips.insert(source.ip());
  }
  return ips.size();
}

void AddDelivery(DeliveryPart& delivery, MetricsText& page) {
  const auto [status, policed, sts, posts, tls, faults, dns, waived] =
      delivery.thread().Call([&delivery] {
        return std::tuple(delivery.Status({}), delivery.receiver_tls().policed_stats(),
                          delivery.receiver_tls().mta_sts_stats(),
                          delivery.receiver_tls().report_stats(), delivery.tls_stats(),
                          delivery.fault_stats(), delivery.dns_stats(),
                          delivery.worker().stats().tls_waived);
      });
  page.Gauge("sluice_delivery_connections", "Outbound connections.", status.connections_open());
  page.Gauge("sluice_delivery_leases", "Groups in work.", status.leases_held());
  page.Gauge("sluice_delivery_sources_suspended",
             "Source addresses of this machine that cannot be used now.", Suspended(status));
  page.Gauge("sluice_delivery_blocked_queues",
             "Queues with mail that wait for a limit, a source or an owner; at most 1000 are seen.",
             status.blocked_size());
  page.Counter("sluice_delivery_connects_total", "Connections tried.", status.connects_total());
  page.Counter("sluice_delivery_connect_failures_total", "Connections that were not made.",
               status.connect_failures_total());
  page.Counter("sluice_delivery_connections_reused_total",
               "Connections that went from one queue to another.",
               status.connections_reused_total());
  page.Counter("sluice_delivery_delivered_total", "Recipients delivered.",
               status.delivered_total());
  page.Counter("sluice_delivery_transient_total", "Recipients deferred.", status.transient_total());
  page.Counter("sluice_delivery_permanent_total", "Recipients refused.", status.permanent_total());
  page.Counter("sluice_delivery_private_destinations_refused_total",
               "Private or reserved addresses that DNS or a recipient gave.",
               status.private_destinations_refused_total());
  page.Counter("sluice_delivery_remote_no_smtp_total",
               "Connections ended for what is no reply, or has no end.", faults.no_smtp);
  page.Counter("sluice_delivery_remote_unasked_replies_total",
               "Connections ended for a reply that nobody waited for.", faults.unasked);
  page.Counter("sluice_delivery_remote_starttls_injections_total",
               "Connections ended for clear text around the reply to STARTTLS.", faults.injections);
  page.Counter("sluice_delivery_remote_timeouts_total", "Connections ended for a remote too slow.",
               faults.timeouts);
  page.Counter("sluice_delivery_remote_hang_ups_total",
               "Connections that the remote ended, or half-closed, while it owed an answer.",
               faults.hang_ups);
  page.Counter("sluice_delivery_dns_lookups_total", "Names asked for.", dns.lookups);
  page.Counter("sluice_delivery_dns_hits_total", "Names answered from the cache.", dns.hits);
  page.Counter("sluice_delivery_dns_failures_total",
               "Names without a usable answer: SERVFAIL, silence, nonsense, loops.", dns.failures);
  page.Counter("sluice_delivery_dns_cut_answers_total", "Answers with more records than are kept.",
               dns.cut);
  page.Gauge("sluice_delivery_dns_cached_names", "Names in the cache.", dns.cached_names);
  page.Counter("sluice_delivery_tls_handshakes_total", "TLS handshakes that were done.",
               tls.handshakes);
  page.Counter("sluice_delivery_tls_resumed_total", "TLS handshakes that resumed a session.",
               tls.resumed);
  page.Counter("sluice_delivery_tls_failures_total", "TLS handshakes that failed.", tls.failures);
  page.Counter("sluice_delivery_tls_fallbacks_total",
               "Connections made anew in clear after a failed handshake.", tls.fallbacks);
  page.Counter("sluice_delivery_tls_policy_checks_total", "Connections held to DANE or MTA-STS.",
               policed.checks);
  page.Counter("sluice_delivery_tls_policy_refused_total", "Hosts that a TLS policy did not allow.",
               policed.refused);
  page.Counter("sluice_delivery_tls_policy_failed_total",
               "Connections that failed their TLS policy.", policed.failed);
  page.Counter("sluice_delivery_tls_policies_waived_total",
               "Times that a queue went on without them, for mail with TLS-Required: No.", waived);
  page.Gauge("sluice_delivery_mta_sts_policies", "Domains whose MTA-STS policy is known.",
             sts.policies);
  page.Counter("sluice_delivery_mta_sts_fetches_total", "MTA-STS policies asked for.", sts.fetches);
  page.Counter("sluice_delivery_mta_sts_fetch_failures_total",
               "MTA-STS policies that could not be had.", sts.fetch_failures);
  page.Counter("sluice_delivery_tls_reports_posted_total",
               "Reports on TLS that a host took over HTTPS.", posts.posted);
  page.Counter("sluice_delivery_tls_reports_given_up_total",
               "Reports on TLS that no host took over HTTPS for a day.", posts.given_up);
}

}  // namespace

std::string Daemon::Metrics() {
  MetricsText page;
  if (ingest_ != nullptr) AddIngest(*ingest_, page);
  if (queue_ != nullptr) AddQueue(*queue_, page);
  if (policy_ != nullptr) AddPolicy(*policy_, admin_access_->refused(), page);
  if (delivery_ != nullptr) AddDelivery(*delivery_, page);
  for (const auto& [service, connected] : PolicyLinks()) {
    for (const LinkMetric& metric : kLinkMetrics) {
      if (metric.service != service) continue;
      page.Gauge(metric.name,
                 "1 while the policy service is reached; else the last snapshot holds.", connected);
    }
  }
  return page.text();
}

}  // namespace sluice::node
