// What a queue's settings want in the log: lookups, broken transfers, TLS, connections, what is
// said on them.
#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

constexpr size_t kMostHostsShown = 10;
constexpr size_t kMostTextBytes = 1024;  // of what a remote says

const char* OutcomeName(MxOutcome outcome) {
  switch (outcome) {
    case MxOutcome::kFound:
      return "found";
    case MxOutcome::kTemporary:
      return "temporary-failure";
    case MxOutcome::kNoSuchDomain:
      return "no-such-domain";
    case MxOutcome::kNullMx:
      return "null-mx";
    case MxOutcome::kNoAddress:
      return "no-address";
  }
  return "";
}

// "mx1.example(192.0.2.1,192.0.2.2) mx2.example()"
std::string HostsOf(const MxResult& result) {
  std::string hosts;
  size_t shown = 0;
  for (const MxHost& host : result.hosts) {
    if (shown++ == kMostHostsShown) {
      absl::StrAppend(&hosts, " and ", result.hosts.size() - kMostHostsShown, " more");
      break;
    }
    absl::StrAppend(&hosts, hosts.empty() ? "" : " ", host.name, "(");
    for (size_t i = 0; i < host.addresses.size(); ++i) {
      absl::StrAppend(&hosts, i == 0 ? "" : ",", host.addresses[i]);
    }
    absl::StrAppend(&hosts, ")");
  }
  return hosts;
}

}  // namespace

void Worker::LogResolution(const Queue& queue, const MxResult& result) const {
  if (options_.log == nullptr || !queue.settings->log_resolution()) return;
  options_.log->Info(
      "resolved", result.detail,
      {{"queue", queue.name},
       {"outcome", OutcomeName(result.outcome)},
       {"hosts", HostsOf(result)},
       {"took_ms", (executor_.clock().Now() - queue.asked_dns) / std::chrono::milliseconds(1)}});
}

// A transaction of which text had left, or was to, and that ended without the remote's reply.
void Worker::LogTransfer(const Conn& conn, const queue::v1::GroupResult& result) const {
  if (options_.log == nullptr || !conn.queue->settings->log_transfer_failures()) return;
  const common::v1::Reply& reply = result.reply();
  if (result.outcome() == queue::v1::RECIPIENT_OUTCOME_DELIVERED || !reply.local() ||
      reply.stage() < common::v1::STAGE_DATA || reply.stage() > common::v1::STAGE_FINAL_DOT) {
    return;
  }
  options_.log->Warn("transfer_failed", std::string(reply.text()),
                     {{"queue", conn.queue->name},
                      {"host", conn.host},
                      {"address", conn.address},
                      {"source", conn.source->ip},
                      {"connection", conn.id},
                      {"stage", common::v1::Stage_Name(reply.stage())},
                      {"bytes", result.attempt().size()}});
}

// Once a connection: with its first result.
void Worker::LogTls(Conn& conn, const common::v1::Attempt& attempt) const {
  if (std::exchange(conn.tls_logged, true) || options_.log == nullptr ||
      !conn.queue->settings->log_tls()) {
    return;
  }
  const common::v1::TlsInfo& tls = attempt.tls();
  options_.log->Info("tls", tls.version().empty() ? "in clear" : "",
                     {{"queue", conn.queue->name},
                      {"host", conn.host},
                      {"address", conn.address},
                      {"connection", conn.id},
                      {"version", tls.version()},
                      {"cipher", tls.cipher()},
                      {"verdict", tls.verdict()},
                      {"peer", tls.peer_subject()}});
}

void Worker::LogTlsFailure(const Conn& conn, const ConnectionEnd& end) const {
  if (options_.log == nullptr || !conn.queue->settings->log_tls() ||
      end.reply.stage() != common::v1::STAGE_STARTTLS) {
    return;
  }
  options_.log->Warn("tls_failed", std::string(end.reply.text()),
                     {{"queue", conn.queue->name},
                      {"host", conn.host},
                      {"address", conn.address},
                      {"connection", conn.id},
                      {"code", end.reply.code()}});
}

void Worker::LogConnected(const Conn& conn) const {
  if (options_.log == nullptr || !conn.queue->settings->log_connections()) return;
  options_.log->Info("remote_connected", "",
                     {{"queue", conn.queue->name},
                      {"host", conn.host},
                      {"address", conn.address},
                      {"source", conn.source->ip},
                      {"connection", conn.id}});
}

// Of each host that was tried, where several were.
void Worker::LogClosed(const Conn& conn, const ConnectionEnd& end) const {
  if (options_.log == nullptr || !conn.queue->settings->log_connections()) return;
  const common::v1::Reply& reply = end.reply;
  std::string why;
  // A refusal of AUTH may repeat what it did not understand.
  const bool of_auth = reply.stage() == common::v1::STAGE_AUTH && !reply.local();
  if (!of_auth && !(end.ready && conn.quitting)) why = reply.text().substr(0, kMostTextBytes);
  options_.log->Write(end.ready ? LogLevel::kInfo : LogLevel::kWarn,
                      end.ready ? "remote_gone" : "remote_failed", why,
                      {{"queue", conn.queue->name},
                       {"host", conn.host},
                       {"address", conn.address},
                       {"source", conn.source->ip},
                       {"connection", conn.id},
                       {"code", reply.code()},
                       {"messages", conn.sent}});
}

// Of a connection that was made when the settings were others, nothing more.
void Worker::LogTrace(const Conn& conn, bool reply, std::string_view text) const {
  if (options_.log == nullptr || !conn.queue->settings->log_commands()) return;
  options_.log->Info(reply ? "remote_reply" : "remote_command", "",
                     {{"queue", conn.queue->name},
                      {"host", conn.host},
                      {"connection", conn.id},
                      {"text", text.substr(0, kMostTextBytes)}});
}

}  // namespace sluice::delivery
