// Connections that have nothing to do: by site, for any queue that could have opened them, and by
// age, to make room where a limit is reached.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/config/cluster_rates.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// A connection that was idle for less is left to its queue, where the other may open its own: mail
// that comes in one by one must not make two queues take it from each other.
constexpr Duration kLeftToItsQueue = std::chrono::milliseconds(100);
// Looked at before giving up.
constexpr size_t kMostLookedAt = 32;

// All that a connection is made with, or is kept for: what is not known to concern the queue alone
// counts, so that a setting that comes to be parts connections until somebody says otherwise.
std::string ConnectionSettings(const policy::v1::QueueSettings& settings) {
  policy::v1::QueueSettings own = settings;
  own.clear_max_smtp_out();
  own.clear_max_msg_rate();
  own.clear_rate_burst();
  own.clear_max_msg_per_hour();
  own.clear_max_connect_rate();
  own.clear_max_data_volume_rate();
  own.clear_max_smtp_out_per_source_ip();
  own.clear_source_ip_max_smtp_out();
  own.clear_source_ip_max_msg_rate();
  own.clear_source_ip_max_connect_rate();
  own.clear_source_ip_max_data_volume_rate();
  own.clear_max_msg_per_connection();
  own.clear_max_rcpt_per_transaction();
  own.clear_bounce_after_us();
  own.clear_max_delivery_attempts();
  own.clear_retry_after();
  own.clear_retry_recipients_after_us();
  own.clear_retry_after_dns_error_us();
  own.clear_retry_upon_new_mail();
  own.clear_queue_to();
  own.clear_queue_priority();
  own.clear_connection_idle_timeout_us();
  own.clear_suppress_local_dsn();
  own.clear_dns_timeout_us();
  own.clear_bounce_upon_no_mx_after_us();
  own.clear_replace_smtp_421_service_response();
  own.clear_smtp_421_means_mx_unavailable();
  own.clear_dsn_return_default();
  own.clear_notify_of_delay_every_us();
  own.clear_dns_rotate();
  own.clear_max_errors_per_connection();
  own.clear_mx_connection_attempts();
  own.clear_smtp_out_rampup_interval_us();
  own.clear_bounce_upon_5xx_greeting();
  own.clear_ip_preference();
  own.clear_backoff_max_msg_rate();
  own.clear_backoff_max_smtp_out();
  own.clear_backoff_max_msg_per_hour();
  own.clear_backoff_max_connect_rate();
  own.clear_backoff_max_data_volume_rate();
  own.clear_backoff_retry_after();
  own.clear_backoff_to_normal_after_us();
  own.clear_backoff_to_normal_after_delivery();
  own.clear_backoff_trigger_patterns();
  own.clear_backoff_notify();
  own.clear_max_errors_per_domain();
  own.clear_smtp_pattern_list();
  own.clear_reenable_source_ip_after_us();
  own.clear_backoff_upon_all_sources_disabled();
  own.clear_disabled_source_ip_notify();
  own.clear_log_disabled_ips();
  own.clear_log_resolution();
  own.clear_log_transfer_failures();
  own.clear_log_tls();
  own.clear_log_connections();
  own.clear_dsn_format();
  own.clear_max_events_recorded();
  own.clear_reroute_to_virtual_mta();
  own.clear_backoff_reroute_to_virtual_mta();
  own.clear_disable_mx_rollup();
  own.clear_allow_priority_interruption();
  own.clear_smtp_553_means_invalid_mailbox();
  own.clear_penalties();
  for (const config::ClusterRateLine& line : config::ClusterRates(settings)) {
    own.GetReflection()->ClearField(&own, config::ClusterRateField(line.span, line.directive));
  }
  return own.SerializeAsString();
}

}  // namespace

const std::shared_ptr<const std::string>& Worker::SettingsKey(Queue& queue) {
  if (queue.site_settings == queue.settings) return queue.site_settings_key;
  queue.site_settings = queue.settings;
  // Its own: they are made anew each time.
  if (queue.tls_reports || queue.tls_waived ||
      (queue.rollup != nullptr &&
       queue.settings != policy_->ForQueue(queue.rollup->name, queue.vmta, queue.pool))) {
    queue.site_settings_key =
        std::make_shared<const std::string>(ConnectionSettings(*queue.settings));
    return queue.site_settings_key;
  }
  SiteSettings& shared = site_settings_[queue.settings.get()];
  if (shared.key == nullptr) {
    shared = {queue.settings,
              std::make_shared<const std::string>(ConnectionSettings(*queue.settings))};
  }
  queue.site_settings_key = shared.key;
  return queue.site_settings_key;
}

std::string Worker::SiteKey(Queue& queue, const Source& source, const std::string& ehlo_name) {
  // A TLS policy is the domain's: what was verified for one domain is not for another.
  const bool policed = queue.settings->use_dane() || queue.settings->use_mta_sts();
  const char* starttls = source.use_starttls ? (*source.use_starttls ? "yes" : "no") : "";
  return absl::StrCat(source.ip, "|", starttls, "|", ehlo_name, "|", queue.route->site, "|",
                      policed ? queue.domain : "", "|", *SettingsKey(queue));
}

bool Worker::IsOutdated(const Conn& conn) {
  return conn.made_with != nullptr && (*conn.made_with != *SettingsKey(*conn.queue) ||
                                       conn.made_starttls != conn.source->use_starttls);
}

// The policy has changed. What began in clear, say, takes no more mail once TLS is required; those
// that are still being made are asked when they are ready.
void Worker::QuitOutdated(Queue& queue) {
  bool any = false;
  for (const auto& conn : queue.conns) {
    if (!conn->ready || conn->quitting || !IsOutdated(*conn)) continue;
    Quit(*conn);
    any = true;
  }
  if (any) TrimCredits(queue);
}

void Worker::EnterSite(Conn& conn, std::string key) {
  const auto [found, fresh] = sites_.try_emplace(std::move(key));
  conn.site = found;
  ++found->second.connections;
}

void Worker::LeaveSite(Conn& conn) {
  EndIdle(conn);
  if (conn.site == sites_.end()) return;
  if (--conn.site->second.connections == 0) sites_.erase(conn.site);
  conn.site = sites_.end();
}

void Worker::BeginIdle(Conn& conn) {
  conn.idle_since = executor_.clock().Now();
  std::list<Conn*>& site = conn.site->second.idle;
  if (conn.site_place.empty()) {
    site.splice(site.end(), site, conn.place_in_site);
    idle_.splice(idle_.end(), idle_, conn.place_in_age);
    return;
  }
  conn.place_in_site = conn.site_place.begin();
  site.splice(site.end(), conn.site_place);
  conn.place_in_age = conn.age_place.begin();
  idle_.splice(idle_.end(), conn.age_place);
}

void Worker::EndIdle(Conn& conn) {
  if (!conn.site_place.empty()) return;
  conn.site_place.splice(conn.site_place.end(), conn.site->second.idle, conn.place_in_site);
  conn.age_place.splice(conn.age_place.end(), idle_, conn.place_in_age);
}

// Nothing is due to it, on its way to it, or being sent by it.
bool Worker::Spare(const Conn& conn) const {
  return conn.ready && !conn.quitting && conn.under_way == 0 && conn.queue->waiting.empty() &&
         conn.queue->due() == 0;
}

bool Worker::TakeIdle(Queue& queue, const SourceChoice& choice, bool at_once) {
  if (idle_.empty() || queue.route == nullptr) return false;
  const auto site = sites_.find(SiteKey(queue, *choice.source, choice.ehlo_name));
  if (site == sites_.end() || !PartHasRoom(queue, *choice.source, false)) return false;
  const MonotonicTime latest = executor_.clock().Now() - (at_once ? Duration(0) : kLeftToItsQueue);
  const uint32_t most = queue.settings->max_msg_per_connection();
  const uint32_t most_errors = queue.settings->max_errors_per_connection();
  size_t looked_at = 0;
  for (Conn* conn : site->second.idle) {
    if (conn->idle_since > latest || ++looked_at > kMostLookedAt) return false;
    if (conn->queue == &queue || !Spare(*conn)) continue;
    if ((most > 0 && conn->sent >= most) || (most_errors > 0 && conn->errors >= most_errors)) {
      continue;
    }
    // The same names may lead elsewhere by now.
    const bool known =
        std::any_of(queue.targets.begin(), queue.targets.end(), [&](const Target& target) {
          return target.address == conn->address && !IsAside(*choice.source, target);
        });
    if (!known || FullFor(queue, conn) != nullptr) continue;
    MoveConn(*conn, queue);
    return true;
  }
  return false;
}

bool Worker::TakeIdleOfAnySource(Queue& queue) {
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  if (vmta == nullptr || idle_.empty()) return false;
  for (const auto& host : vmta->source_hosts()) {
    const auto found = sources_.find(host.ip());
    if (found == sources_.end() || IsDisabled(queue, host.ip())) continue;
    if (TakeIdle(queue, {found->second.get(), EhloName(host)}, true)) return true;
  }
  const auto any = sources_.find("");
  return vmta->source_hosts().empty() && any != sources_.end() &&
         TakeIdle(queue, {any->second.get(), EhloNameWithoutSource(vmta)}, true);
}

// From now on it counts for `to`, and serves it.
void Worker::MoveConn(Conn& conn, Queue& to) {
  Queue& from = *conn.queue;
  const auto place = std::find_if(from.conns.begin(), from.conns.end(),
                                  [&conn](const auto& each) { return each.get() == &conn; });
  CountFor(from, -1);
  CountFor(to, 1);
  LeavePart(conn);
  to.conns.splice(to.conns.end(), from.conns, place);
  conn.queue = &to;
  conn.seeks_tls = false;
  EnterPart(conn);
  conn.serving_since = executor_.clock().Now();
  ++stats_.reused;
  SetIdleTimer(conn);
  FreedSlot();
  if (from.conns.empty()) {
    LetGo(from);
  } else {
    TrimCredits(from);
  }
}

// QUIT to the connection that has been idle for the longest of those that count against `limit`.
void Worker::MakeRoom(const Limiter& limit, const Queue& queue) {
  size_t looked_at = 0;
  for (Conn* conn : idle_) {
    if (++looked_at > kMostLookedAt) return;
    if (conn->queue == &queue || !Spare(*conn) || !CountsAgainst(*conn, limit)) continue;
    QuitIdle(*conn);
    return;
  }
}

}  // namespace sluice::delivery
