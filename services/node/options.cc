#include "services/node/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>

#include "services/base/version.h"

namespace sluice::node {
namespace {

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 && name[0] != '\0' ? name : "localhost";
}

std::string Environment(const std::string& flag) {
  std::string name = "SLUICE_";
  for (char c : flag) name.push_back(c == '-' ? '_' : static_cast<char>(std::toupper(c)));
  return name;
}

template <class T>
CLI::Option* Add(CLI::App& app, const std::string& flag, T& value, const std::string& help) {
  CLI::Option* option = app.add_option("--" + flag, value, help)->envname(Environment(flag));
  if constexpr (std::is_unsigned_v<T>) {
    option->check([](const std::string& text) {  // CLI11 would count down from the largest number
      return text.starts_with('-') ? std::string("it must not be negative") : std::string();
    });
  }
  return option;
}

bool Has(Role role, Role part) { return role == Role::kNode || role == part; }

std::string_view Description(Role role) {
  switch (role) {
    case Role::kNode:
      return "All four services of Sluice in one process: accepts mail, keeps it, delivers it.";
    case Role::kIngest:
      return "Accepts mail by SMTP and gRPC and hands it to the queue shards.";
    case Role::kQueue:
      return "A queue shard: keeps accepted mail and dispatches it to delivery workers.";
    case Role::kDelivery:
      return "A delivery worker: sends mail from the source IPs that this machine has.";
    case Role::kPolicy:
      return "Compiles the directive files, tells every service, and serves the admin API.";
  }
  return "";
}

}  // namespace

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kNode:
      return "sluiced";
    case Role::kIngest:
      return "sluice-ingest";
    case Role::kQueue:
      return "sluice-queue";
    case Role::kDelivery:
      return "sluice-delivery";
    case Role::kPolicy:
      return "sluice-policy";
  }
  return "?";
}

absl::StatusOr<Options> ParseOptions(Role role, int argc, const char* const* argv) {
  Options options;
  options.role = role;
  CLI::App app{std::string(Description(role)), std::string(RoleName(role))};
  app.set_version_flag("--version", VersionText(), "Print version, build and formats, and exit");
  app.footer("Every flag may be given as an environment variable: --data-dir is SLUICE_DATA_DIR.");

  Add(app, "data-dir", options.data_dir,
      "Folder for everything that must survive a restart; made where absent")
      ->required();
  Add(app, "instance", options.instance, "Stable name of this process (default: the host name)");
  Add(app, "rpc-listen", options.rpc_listen,
      "gRPC addresses, HOST:PORT or unix:PATH (port 0: any free one; default: 127.0.0.1:7100)");
  Add(app, "metrics-listen", options.metrics_listen,
      "HTTP address of /metrics, /healthz and /readyz (default: none)");
  Add(app, "log-level", options.log_level, "Least severity to log")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  Add(app, "log-file", options.log_path,
      "File for the log, rotated as log-rotate and log-auto-rotation say (default: log-file of the "
      "directive files for sluiced, else standard error)");
  app.add_flag("--log-json", options.log_json, "Log JSON lines")->envname("SLUICE_LOG_JSON");
  Add(app, "tls-cert", options.tls_cert, "PEM certificate for mTLS between services");
  Add(app, "tls-key", options.tls_key, "PEM private key");
  Add(app, "tls-ca", options.tls_ca, "PEM CA that peers' certificates must chain to");
  app.add_flag("--allow-insecure-rpc", options.allow_insecure_rpc,
               "Listen for gRPC without TLS on other addresses than loopback")
      ->envname("SLUICE_ALLOW_INSECURE_RPC");
  Add(app, "stop-timeout", options.stop_timeout_s,
      "Seconds that a stop waits for transactions under way")
      ->capture_default_str();
  Add(app, "ready-file", options.ready_file,
      "File to write, with the addresses as JSON, once everything serves");

  if (Has(role, Role::kPolicy)) {
    Add(app, "config", options.config, "Directive files, in order (default: built-in defaults)");
    Add(app, "accept-unsupported", options.accept_unsupported,
        "Directive or section that restricts, has no effect in this version, and may be gone "
        "without; once for each");
    Add(app, "admin-listen", options.admin_listen,
        "gRPC addresses of the admin API alone, for holders of tokens, who need no certificate "
        "(with --tls-cert: TLS)");
    Add(app, "admin-tokens", options.admin_tokens,
        "File of who may use the admin API: NAME ROLE sha256:HEX a line, as `sluicectl token` "
        "prints it");
  }
  if (role != Role::kNode && role != Role::kPolicy) {
    Add(app, "policy", options.policy_address,
        "gRPC address of the policy service; without it the last snapshot on disk holds");
  }
  if (role == Role::kIngest || role == Role::kDelivery || role == Role::kPolicy) {
    Add(app, "shard", options.shards, "A queue shard as NAME=HOST:PORT; once for each");
  }
  if (role == Role::kPolicy) {
    Add(app, "worker", options.workers, "A delivery worker as NAME=HOST:PORT; once for each");
  }
  if (Has(role, Role::kIngest)) {
    Add(app, "smtp-listen", options.smtp_listen,
        "SMTP addresses, IP:PORT; over smtp-listener of the directive files (port 0: any)");
    Add(app, "ingest-threads", options.ingest_threads,
        "SMTP event loops (default: one for each two cores)")
        ->check(CLI::Range(0, 64));
  }
  if (Has(role, Role::kQueue)) {
    Add(app, role == Role::kQueue ? "name" : "shard-name", options.shard,
        "Stable name of the shard")
        ->capture_default_str();
    Add(app, "sync-gap-us", options.sync_gap_us,
        "Least microseconds between the starts of two syncs of little; a batch of some ten "
        "messages "
        "does not wait")
        ->check(CLI::Range(0, 1'000'000))
        ->capture_default_str();
    Add(app, "spool-dir", options.spool_dir,
        role == Role::kQueue
            ? "Folder of the spool (default: in the data folder)"
            : "Folder of the spool; over disk-queue of the directive files (default: in the data "
              "folder)");
    Add(app, "spool-limit", options.spool_limit_bytes,
        "Bytes of spool after which no mail is accepted (default: by the volume's free space)");
    Add(app, "ballast", options.ballast_bytes,
        "Bytes kept aside so that results can be written when the volume is full")
        ->capture_default_str();
  }
  if (Has(role, Role::kDelivery)) {
    Add(app, "resolver", options.resolvers,
        "DNS servers, IP[:PORT]; over name-server of the directive files (default: resolv.conf)");
    Add(app, "source-ip", options.source_ips,
        "Addresses to send from that count as this machine's (default: ask the kernel)");
    Add(app, "tls-report-period", options.tls_report_period_s,
        "Seconds that a report on TLS (RFC 8460) is about, counted from midnight UTC; less than a "
        "day is for tests")
        ->check(CLI::Range(1, 86'400))
        ->capture_default_str();
  }

  try {
    app.parse(argc, const_cast<char**>(argv));
  } catch (const CLI::CallForHelp&) {
    return absl::OutOfRangeError(app.help());
  } catch (const CLI::CallForVersion&) {
    return absl::OutOfRangeError(VersionText());
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(std::string(RoleName(role)) + ": " + error.what() +
                                      " (see --help)");
  }
  if (options.instance.empty()) options.instance = HostName();
  const std::string name(RoleName(role));
  if (options.tls_cert.empty() != options.tls_key.empty() ||
      (options.tls_cert.empty() && !options.tls_ca.empty())) {
    return absl::InvalidArgumentError(
        name + ": --tls-cert and --tls-key belong together, and --tls-ca to them (see --help)");
  }
  if (!options.admin_listen.empty() && options.admin_tokens.empty()) {
    return absl::InvalidArgumentError(name + ": --admin-listen needs --admin-tokens (see --help)");
  }
  return options;
}

}  // namespace sluice::node
