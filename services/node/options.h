// Process wiring: what flags and environment say to the five binaries. Mail policy is not here, it
// is in the directive files that the policy service reads.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/log/log.h"
#include "services/base/log/log_file.h"

namespace sluice::node {

// Which services a process runs.
enum class Role : uint8_t { kNode, kIngest, kQueue, kDelivery, kPolicy };

std::string_view RoleName(Role role);  // "sluiced", "sluice-ingest", ...

// Zero and empty mean "not given"; Parse fills in what has a default.
struct Options {
  Role role = Role::kNode;

  // Everybody.
  std::string data_dir;  // spool, snapshots, policy state
  std::string instance;  // stable name of this process; default: host name
  std::vector<std::string>
      rpc_listen;              // "127.0.0.1:port"; the policy (or node) address serves sluicectl
  std::string metrics_listen;  // HTTP /metrics, /healthz, /readyz
  std::string log_level = "info";
  bool log_json = false;
  std::string log_path;         // over the files' log-file; empty: that, or standard error
  LogFile* log_file = nullptr;  // not a flag: where the log goes
  Log* log = nullptr;           // not a flag: the process's log, for all parts; none: silence
  std::string tls_cert, tls_key, tls_ca;  // mTLS between services
  bool allow_insecure_rpc = false;        // non-loopback without TLS
  uint32_t stop_timeout_s = 30;
  std::string ready_file;  // written (addresses as JSON) once ready, removed at stop

  // policy
  std::vector<std::string> config;  // directive files
  std::vector<std::string> accept_unsupported;
  std::vector<std::string> admin_listen;  // the admin API alone, for holders of tokens
  std::string admin_tokens;               // file
  // everybody but policy
  std::string policy_address;
  // policy (admin fan-out), ingest, delivery
  std::vector<std::string> shards;   // "name=host:port", explicit
  std::vector<std::string> workers;  // "name=host:port", for the admin API

  // ingest
  std::vector<std::string> smtp_listen;  // over the files' smtp-listener
  uint32_t ingest_threads = 0;           // 0: one per two cores

  // queue
  std::string shard = "shard-0";
  uint32_t sync_gap_us = 500;
  std::string spool_dir;  // empty: in data_dir, or where disk-queue of the files says
  uint64_t spool_limit_bytes = 0;
  uint64_t ballast_bytes = uint64_t{512} << 20;

  // delivery
  std::vector<std::string> resolvers;  // over the files' name-server
  std::vector<std::string>
      source_ips;  // addresses to count as the machine's; empty: ask the kernel
  uint32_t tls_report_period_s = 86'400;
};

// Reads flags, then environment (SLUICE_ and the flag in capitals), then defaults. INVALID_ARGUMENT
// with a text for the user. OUT_OF_RANGE with the text to print for --help and --version (exit 0).
absl::StatusOr<Options> ParseOptions(Role role, int argc, const char* const* argv);

}  // namespace sluice::node
