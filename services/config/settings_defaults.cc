#include "services/config/settings_defaults.h"

namespace sluice::config {
namespace {
constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kMinute = 60 * kSecond;
constexpr int64_t kHour = 60 * kMinute;
}  // namespace

const policy::v1::QueueSettings& DefaultQueueSettings() {
  static const auto* const settings = [] {
    auto* s = new policy::v1::QueueSettings;
    s->set_max_smtp_out(20);
    s->mutable_max_msg_rate()->set_unlimited(true);
    s->set_rate_burst(1);
    s->set_max_msg_per_hour(0);
    s->mutable_max_connect_rate()->set_unlimited(true);
    s->mutable_max_data_volume_rate()->set_unlimited(true);
    s->set_max_msg_per_connection(0);
    s->set_max_rcpt_per_transaction(1000);
    s->set_bounce_after_us(108 * kHour);  // 4d12h
    s->set_max_delivery_attempts(0);
    s->mutable_retry_after()->add_us(10 * kMinute);
    s->set_retry_recipients_after_us(10 * kMinute);
    s->set_retry_after_dns_error_us(kMinute);
    s->set_retry_upon_new_mail(false);
    s->set_queue_priority(50);
    s->set_default_smtp_port(25);
    s->set_connect_timeout_us(2 * kMinute);
    s->set_smtp_greeting_timeout_us(5 * kMinute);
    s->set_data_send_timeout_us(3 * kMinute);
    s->set_smtp_data_termination_timeout_us(10 * kMinute);
    // PowerMTA closes at once; a warm connection is what makes mail leave with its own commit.
    s->set_connection_idle_timeout_us(5 * kSecond);
    s->set_ignore_8bitmime(false);
    s->set_ignore_pipelining(false);
    s->set_ignore_dsn(false);
    s->set_suppress_local_dsn(false);
    s->set_dns_timeout_us(kMinute);
    s->set_bounce_upon_no_mx_after_us(0);
    s->set_smtp_command_reply_timeout_us(5 * kMinute);
    s->set_smtp_421_means_mx_unavailable(false);
    s->set_dsn_return_default("headers");
    s->set_notify_of_delay_every_us(4 * kHour);
    s->set_dns_rotate(true);
    s->set_max_errors_per_connection(0);
    s->set_mx_connection_attempts(0);
    s->set_allow_private_destinations(false);
    s->set_use_starttls(true);
    s->set_require_starttls(false);
    s->set_tls_fallback(true);
    s->set_reuse_ssl_session(false);
    s->set_smtp_tls_allow_tlsv1(false);
    s->set_smtp_tls_allow_tlsv1_1(true);
    s->set_smtp_tls_allow_tlsv1_2(true);
    s->set_smtp_tls_allow_tlsv1_3(true);
    s->set_tls_handshake_timeout_us(kMinute);
    s->set_type("smtp");
    s->set_file_format("newfile-plain");
    s->set_smtp_mail_reply_timeout_us(0);
    s->set_smtp_rcpt_reply_timeout_us(0);
    s->set_smtp_data_initiation_timeout_us(2 * kMinute);
    s->set_smtp_out_rampup_interval_us(0);
    s->set_bounce_upon_5xx_greeting(true);
    s->set_bounce_upon_transfer_failure(false);
    s->set_bounce_upon_pix_transfer_failure(false);
    s->set_assume_delivery_upon_data_termination_timeout(false);
    s->set_ignore_chunking(false);
    s->set_ip_preference("any");
    s->set_use_unencrypted_plain_auth(false);
    s->set_use_dane(false);
    s->set_use_mta_sts(false);
    s->mutable_backoff_max_msg_rate()->set_unlimited(true);
    s->set_backoff_max_smtp_out(20);
    s->set_backoff_max_msg_per_hour(0);
    s->mutable_backoff_max_connect_rate()->set_unlimited(true);
    s->mutable_backoff_max_data_volume_rate()->set_unlimited(true);
    s->mutable_backoff_retry_after()->add_us(kHour);
    s->set_backoff_to_normal_after_us(0);
    s->set_backoff_to_normal_after_delivery(false);
    s->set_max_errors_per_domain(0);
    s->set_reenable_source_ip_after_us(0);
    s->set_backoff_upon_all_sources_disabled(false);
    s->set_log_disabled_ips(false);
    s->set_smtp_553_means_invalid_mailbox(true);
    s->set_discard_as_bounce(false);
    s->set_macro_variables_preserve_case(false);
    s->set_disable_mx_rollup(false);
    s->set_allow_priority_interruption(true);
    s->set_log_resolution(false);
    s->set_log_transfer_failures(false);
    s->set_log_tls(false);
    s->set_log_connections(false);
    s->set_log_commands(false);
    s->set_dsn_format("standard");
    s->set_max_events_recorded(10);
    return s;
  }();
  return *settings;
}

const policy::v1::ClientSettings& DefaultClientSettings() {
  static const auto* const settings = [] {
    auto* s = new policy::v1::ClientSettings;
    s->set_allow_relay(false);
    s->set_require_auth(false);
    s->set_max_message_size(0);
    s->set_max_rcpt_per_message(50'000);
    s->set_max_message_hops(100);
    s->set_allow_chunking(true);
    s->set_allow_smtputf8(true);
    s->set_allow_auth(true);
    s->set_allow_unencrypted_plain_auth(false);
    s->set_require_starttls_before_auth(false);
    s->mutable_smtp_max_auth_failure_rate()->set_unlimited(true);
    s->set_allow_mailmerge(false);
    s->set_allow_xclient(false);
    s->set_allow_proxy_protocol(false);
    s->set_process_x_virtual_mta(false);
    s->set_retain_x_virtual_mta(false);
    s->set_process_x_job(false);
    s->set_retain_x_job(false);
    s->set_process_x_envid(false);
    s->set_retain_x_envid(false);
    s->set_default_virtual_mta("default");
    s->set_add_received_header(true);
    s->set_auto_qualify_domain(true);
    s->set_suppress_local_dsn(false);
    s->set_dsn_return_default("headers");
    s->set_smtp_command_timeout_us(10 * kMinute);
    s->set_smtp_data_timeout_us(10 * kMinute);
    s->set_max_smtp_in(0);
    s->set_reject_invalid_virtual_mta(true);
    s->set_allow_submission(false);
    s->set_smtp_service(true);
    s->set_hide_message_source(false);
    s->set_allow_starttls(false);
    s->set_smtp_min_data_rate(0);
    s->set_smtp_tarpit_delay_us(0);
    s->set_smtp_tarpit_after(3);
    s->set_too_many_rcpts_fails_message(false);
    s->set_add_message_id_header(false);
    s->set_add_date_header("no");
    s->set_date_header_time("reception");
    s->set_remove_received_headers(false);
    s->set_add_x_virtual_mta_header(false);
    s->set_allow_empty_x_virtual_mta(false);
    s->set_disconnect_on_transient_error(false);
    s->set_log_connections(false);
    return s;
  }();
  return *settings;
}

const policy::v1::GlobalSettings& DefaultGlobalSettings() {
  static const auto* const settings = [] {
    auto* s = new policy::v1::GlobalSettings;
    s->set_spool_deliver_only(false);
    s->set_precached_refresh_interval_us(5 * kMinute);
    s->set_precached_max_domains(500);
    s->set_total_max_smtp_in(10'000);
    s->set_total_max_smtp_out(10'000);
    s->set_host_name("localhost");
    s->set_smtp_server_tls_allow_tlsv1(false);
    s->set_smtp_server_tls_allow_tlsv1_1(false);
    s->set_smtp_server_tls_allow_tlsv1_2(true);
    s->set_smtp_server_tls_allow_tlsv1_3(true);
    s->set_max_message_size(uint64_t{64} << 20);
    s->set_mailmerge_expands_undefined_variables(true);
    s->set_queue_interval_us(0);
    s->set_dns_workers(256);
    s->set_events_keep_us(24 * kHour);
    s->set_events_keep_bytes(uint64_t{2} << 30);
    s->set_idempotency_keep_us(kHour);
    s->set_pickup_retry_interval_us(10 * kSecond);
    s->set_pickup_remove_dot(false);
    s->set_max_memory_usage_percent(100);
    s->set_log_rotate(8);
    s->set_log_auto_rotation(true);
    s->set_log_file_world_readable(false);
    return s;
  }();
  return *settings;
}

}  // namespace sluice::config
