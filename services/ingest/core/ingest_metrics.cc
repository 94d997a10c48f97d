#include "services/ingest/core/ingest_metrics.h"

namespace sluice::ingest {
namespace {

struct CounterName {
  std::string_view name;
  std::string_view help;
  std::atomic<uint64_t> IngestCounters::*counter;
};

constexpr CounterName kCounters[] = {
    {"sluice_ingest_connections_total", "SMTP clients that connected.",
     &IngestCounters::connections},
    {"sluice_ingest_messages_accepted_total", "Messages that are durable in a shard.",
     &IngestCounters::messages_accepted},
    {"sluice_ingest_recipients_accepted_total", "Recipients of accepted messages.",
     &IngestCounters::recipients_accepted},
    {"sluice_ingest_bytes_accepted_total", "Text of accepted messages, bytes.",
     &IngestCounters::bytes_accepted},
    {"sluice_ingest_messages_deferred_total", "Messages that got a 4xx after their text.",
     &IngestCounters::messages_deferred},
    {"sluice_ingest_messages_refused_total", "Messages that got a 5xx after their text.",
     &IngestCounters::messages_refused},
    {"sluice_ingest_outcomes_unknown_total", "Messages whose shard gave no answer.",
     &IngestCounters::outcomes_unknown},
    {"sluice_ingest_senders_refused_total", "MAIL commands refused by policy.",
     &IngestCounters::senders_refused},
    {"sluice_ingest_recipients_refused_total", "RCPT commands refused by policy.",
     &IngestCounters::recipients_refused},
    {"sluice_ingest_backpressure_total", "Messages deferred for want of memory or of a shard.",
     &IngestCounters::backpressure},
    {"sluice_ingest_smuggling_refused_total", "Messages refused for a bare LF, a bare CR or a NUL.",
     &IngestCounters::smuggling_refused},
    {"sluice_ingest_mail_loops_refused_total", "Messages refused for too many Received fields.",
     &IngestCounters::mail_loops_refused},
    {"sluice_ingest_too_large_refused_total",
     "Messages refused for their size, declared or as it came, or their header's.",
     &IngestCounters::too_large_refused},
    {"sluice_ingest_too_many_recipients_total", "RCPT commands beyond the limit of a message.",
     &IngestCounters::too_many_recipients},
    {"sluice_ingest_header_injections_refused_total",
     "Values of a mail merge refused for a control character.",
     &IngestCounters::header_injections_refused},
    {"sluice_ingest_xclient_refused_total", "XCLIENT of clients that may not speak for others.",
     &IngestCounters::xclient_refused},
    {"sluice_ingest_tarpitted_total", "Refusals that were held back.", &IngestCounters::tarpitted},
    {"sluice_ingest_auth_succeeded_total", "Clients that authenticated.",
     &IngestCounters::auth_succeeded},
    {"sluice_ingest_auth_failed_total", "Failed authentications.", &IngestCounters::auth_failed},
    {"sluice_ingest_auth_throttled_total",
     "Authentications not tried for too many failures or load.", &IngestCounters::auth_throttled},
    {"sluice_ingest_auth_in_clear_refused_total",
     "Authentications refused because their mechanism wants TLS.",
     &IngestCounters::auth_in_clear_refused},
    {"sluice_ingest_tls_connections_total", "TLS handshakes that were done.",
     &IngestCounters::tls_connections},
    {"sluice_ingest_tls_resumed_total", "TLS handshakes that resumed a session.",
     &IngestCounters::tls_resumed},
    {"sluice_ingest_tls_failures_total", "TLS handshakes that failed or took too long.",
     &IngestCounters::tls_failures},
    {"sluice_ingest_starttls_injections_total", "Clients that sent clear text behind STARTTLS.",
     &IngestCounters::starttls_injections},
    {"sluice_ingest_connections_refused_total", "Clients refused by a limit or by policy.",
     &IngestCounters::connections_refused},
    {"sluice_ingest_bare_line_ends_total",
     "Sessions ended for a bare LF, a bare CR or a NUL in a command.",
     &IngestCounters::fault_bare_line_end},
    {"sluice_ingest_lines_too_long_total", "Sessions ended for a command without an end.",
     &IngestCounters::fault_line_too_long},
    {"sluice_ingest_foreign_protocols_total", "Sessions ended for another protocol than SMTP.",
     &IngestCounters::fault_foreign_protocol},
    {"sluice_ingest_too_many_errors_total",
     "Sessions ended for too many errors, refusals or commands without a message.",
     &IngestCounters::fault_too_many_errors},
    {"sluice_ingest_too_slow_total",
     "Sessions ended for silence, slow data or replies that were not read.",
     &IngestCounters::fault_too_slow},
    {"sluice_ingest_cut_off_total", "Clients that left within the text of a message.",
     &IngestCounters::fault_cut_off},
    {"sluice_ingest_proxy_headers_refused_total",
     "Proxied connections ended for a missing, malformed or late header, or for whose they were.",
     &IngestCounters::proxy_headers_refused},
};

}  // namespace

std::vector<IngestMetric> ReadMetrics(std::span<const Ingest* const> ingests) {
  std::vector<IngestMetric> metrics;
  for (const CounterName& name : kCounters) {
    IngestMetric metric{name.name, name.help, false, 0};
    for (const Ingest* ingest : ingests) {
      metric.value += (ingest->counters().*name.counter).load(std::memory_order_relaxed);
    }
    metrics.push_back(metric);
  }
  IngestMetric bytes{"sluice_ingest_body_bytes", "Text and envelopes in memory, bytes.", true, 0};
  IngestMetric open{"sluice_ingest_connections", "SMTP clients that are connected.", true, 0};
  IngestMetric ready{"sluice_ingest_loops_ready", "Ingest loops that take messages.", true, 0};
  for (const Ingest* ingest : ingests) {
    bytes.value += ingest->body_bytes();
    open.value += ingest->counters().connections_open.load(std::memory_order_relaxed);
    ready.value += ingest->ready() ? 1 : 0;
  }
  metrics.push_back(bytes);
  metrics.push_back(open);
  metrics.push_back(ready);
  return metrics;
}

}  // namespace sluice::ingest
