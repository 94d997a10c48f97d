// What /metrics shows of each part of a process.
#include <tuple>

#include "absl/strings/str_cat.h"
#include "services/ingest/core/ingest_metrics.h"
#include "services/node/daemon.h"

namespace sluice::node {

std::string Daemon::Metrics() {
  std::string text;
  auto add = [&text](std::string_view name, std::string_view help, bool gauge, uint64_t value) {
    const absl::string_view shown(name.data(), name.size());
    absl::StrAppend(&text, "# HELP ", shown, " ", absl::string_view(help.data(), help.size()),
                    "\n# TYPE ", shown, gauge ? " gauge\n" : " counter\n", shown, " ", value, "\n");
  };
  if (ingest_ != nullptr) {
    const auto ingests = ingest_->ingests();
    for (const auto& metric : ingest::ReadMetrics(ingests)) {
      add(metric.name, metric.help, metric.is_gauge, metric.value);
    }
    const ingest::PickupCounters pickup = ingest_->pickup_counters();
    add("sluice_ingest_pickup_taken_total", "Files of pickup folders that became messages.", false,
        pickup.taken);
    add("sluice_ingest_pickup_bad_total", "Files that went to the bad folder.", false, pickup.bad);
    add("sluice_ingest_pickup_unreadable_total", "Tries at files that could not be read.", false,
        pickup.unreadable);
    add("sluice_ingest_pickup_stuck",
        "Files that wait after an error, and folders that cannot be read or written to.", true,
        pickup.stuck);
    add("sluice_ingest_pickup_put_off_total", "Files that were put off for a while.", false,
        pickup.put_off);
  }
  if (queue_ != nullptr) {
    const auto status = queue_->thread().Call([this] {
      queue::v1::GetShardStatusResponse status;
      queue_->shard().GetShardStatus({}, [&status](auto response) { status = *response; });
      return status;
    });
    add("sluice_queue_recipients", "Recipients that wait.", true, status.recipients());
    add("sluice_queue_leased_recipients", "Recipients that workers have.", true,
        status.leased_recipients());
    add("sluice_queue_queues", "Queues in memory.", true, status.queues());
    add("sluice_queue_workers", "Connected delivery workers.", true, status.workers());
    add("sluice_queue_accepting", "1 while new mail is taken.", true, status.accepting());
    add("sluice_queue_spool_bytes", "Bytes of the database.", true, status.spool_bytes());
    add("sluice_queue_accepted_messages_total", "Messages made durable.", false,
        status.accepted_total());
    add("sluice_queue_delivered_recipients_total", "Recipients delivered.", false,
        status.delivered_total());
    add("sluice_queue_transient_total", "Attempts that ended in a 4xx.", false,
        status.transient_total());
    add("sluice_queue_failed_recipients_total", "Recipients that failed for good.", false,
        status.failed_total());
    add("sluice_queue_expired_recipients_total", "Recipients that expired.", false,
        status.expired_total());
    add("sluice_queue_syncs_total", "Commits with a sync.", false, status.syncs_total());
    add("sluice_queue_lost_leases_total", "Leases whose worker was lost.", false,
        status.lost_leases_total());
    add("sluice_queue_held_recipients", "Recipients held until an operator releases them.", true,
        status.held_recipients());
    add("sluice_queue_expiry_frozen_seconds",
        "The wall clock was set: for so long nothing expires yet.", true,
        static_cast<uint64_t>(status.expiry_frozen_us()) / 1'000'000);
    add("sluice_queue_damaged_rows_total", "Rows that could not be read.", false,
        status.damaged_rows_total());
    add("sluice_queue_events_dropped_total", "Events dropped unread.", false,
        status.events_dropped_total());
  }
  if (policy_ != nullptr) {
    const PolicyPart::Figures policy = policy_->figures();
    add("sluice_policy_snapshot_version", "Grows with every change.", true, policy.version);
    add("sluice_policy_services_connected", "Services that follow it.", true, policy.connected);
    add("sluice_policy_services_behind", "Of these, those without the last version.", true,
        policy.behind);
    add("sluice_policy_services_refusing", "Of these, those that cannot use it.", true,
        policy.refusing);
    add("sluice_policy_admin_refused_total", "Calls of the admin API without the right to it.",
        false, admin_access_->refused());
    add("sluice_policy_pauses", "Pauses of queues and jobs.", true, policy.pauses);
    add("sluice_policy_owners_epoch", "Of the table that says who has which source.", true,
        policy.owners_epoch);
    add("sluice_policy_sources_changing", "Sources that change hands.", true, policy.changing);
    add("sluice_policy_sources_unowned", "Sources that no worker has.", true, policy.unowned);
  }
  if (delivery_ != nullptr) {
    const auto status =
        delivery_->thread().Call([this] { return delivery_->worker().Status(false); });
    add("sluice_delivery_connections", "Outbound connections.", true, status.connections_open());
    add("sluice_delivery_leases", "Groups in work.", true, status.leases_held());
    add("sluice_delivery_connects_total", "Connections tried.", false, status.connects_total());
    add("sluice_delivery_connect_failures_total", "Connections that were not made.", false,
        status.connect_failures_total());
    add("sluice_delivery_connections_reused_total",
        "Connections that went from one queue to another.", false,
        status.connections_reused_total());
    add("sluice_delivery_delivered_total", "Recipients delivered.", false,
        status.delivered_total());
    add("sluice_delivery_transient_total", "Recipients deferred.", false, status.transient_total());
    add("sluice_delivery_permanent_total", "Recipients refused.", false, status.permanent_total());
    add("sluice_delivery_private_destinations_refused_total",
        "Private or reserved addresses that DNS or a recipient gave.", false,
        status.private_destinations_refused_total());
    const auto [policed, sts, posts, tls, faults, dns] = delivery_->thread().Call([this] {
      return std::tuple(delivery_->receiver_tls().policed_stats(),
                        delivery_->receiver_tls().mta_sts_stats(),
                        delivery_->receiver_tls().report_stats(), delivery_->tls_stats(),
                        delivery_->fault_stats(), delivery_->dns_stats());
    });
    add("sluice_delivery_remote_no_smtp_total",
        "Connections ended for what is no reply, or has no end.", false, faults.no_smtp);
    add("sluice_delivery_remote_unasked_replies_total",
        "Connections ended for a reply that nobody waited for.", false, faults.unasked);
    add("sluice_delivery_remote_starttls_injections_total",
        "Connections ended for clear text around the reply to STARTTLS.", false, faults.injections);
    add("sluice_delivery_remote_timeouts_total", "Connections ended for a remote too slow.", false,
        faults.timeouts);
    add("sluice_delivery_remote_hang_ups_total",
        "Connections that the remote ended, or half-closed, while it owed an answer.", false,
        faults.hang_ups);
    add("sluice_delivery_dns_lookups_total", "Names asked for.", false, dns.lookups);
    add("sluice_delivery_dns_hits_total", "Names answered from the cache.", false, dns.hits);
    add("sluice_delivery_dns_failures_total",
        "Names without a usable answer: SERVFAIL, silence, nonsense, loops.", false, dns.failures);
    add("sluice_delivery_dns_cut_answers_total", "Answers with more records than are kept.", false,
        dns.cut);
    add("sluice_delivery_dns_cached_names", "Names in the cache.", true, dns.cached_names);
    add("sluice_delivery_tls_handshakes_total", "TLS handshakes that were done.", false,
        tls.handshakes);
    add("sluice_delivery_tls_resumed_total", "TLS handshakes that resumed a session.", false,
        tls.resumed);
    add("sluice_delivery_tls_failures_total", "TLS handshakes that failed.", false, tls.failures);
    add("sluice_delivery_tls_fallbacks_total",
        "Connections made anew in clear after a failed handshake.", false, tls.fallbacks);
    add("sluice_delivery_tls_policy_checks_total", "Connections held to DANE or MTA-STS.", false,
        policed.checks);
    add("sluice_delivery_tls_policy_refused_total", "Hosts that a TLS policy did not allow.", false,
        policed.refused);
    add("sluice_delivery_tls_policy_failed_total", "Connections that failed their TLS policy.",
        false, policed.failed);
    add("sluice_delivery_mta_sts_policies", "Domains whose MTA-STS policy is known.", true,
        sts.policies);
    add("sluice_delivery_mta_sts_fetches_total", "MTA-STS policies asked for.", false, sts.fetches);
    add("sluice_delivery_mta_sts_fetch_failures_total", "MTA-STS policies that could not be had.",
        false, sts.fetch_failures);
    add("sluice_delivery_tls_reports_posted_total", "Reports on TLS that a host took over HTTPS.",
        false, posts.posted);
    add("sluice_delivery_tls_reports_given_up_total",
        "Reports on TLS that no host took over HTTPS for a day.", false, posts.given_up);
  }
  return text;
}

}  // namespace sluice::node
