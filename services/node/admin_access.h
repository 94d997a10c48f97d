// Who may call the admin API of this process: callers with a certificate of the authority, holders
// of tokens, and where no tokens are given, whoever is on this machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "services/base/clock.h"
#include "services/base/log/log.h"
#include "services/base/rpc/rpc_server.h"
#include "services/policy/core/admin_tokens.h"

namespace sluice::node {

// The file of tokens is looked at for changes once a second: a token that is taken out of it opens
// nothing after that. A file that cannot be read, or has a mistake, opens nothing at all.
// Thread-safety: any thread, after Load.
class AdminAccess {
 public:
  // `tokens_file` empty: no tokens. `log` may be null.
  AdminAccess(std::string tokens_file, const Clock& clock, Log* log)
      : file_(std::move(tokens_file)), clock_(clock), log_(log) {}

  // INVALID_ARGUMENT with the file and the line where the file cannot be used.
  absl::Status Load();

  // On addresses that serve other services too: anything but the admin API is let through.
  absl::Status Admit(const RpcCall& call);
  // On addresses of the admin API alone: only with a token.
  absl::Status AdmitByToken(const RpcCall& call);

  uint64_t refused() const { return refused_; }

 private:
  absl::Status CheckToken(const RpcCall& call, policy::AdminRole needed);
  absl::Status Refuse(const RpcCall& call, absl::Status why);
  void Note(const RpcCall& call, policy::AdminRole needed, std::string_view by);
  std::shared_ptr<const policy::AdminTokens> Tokens();

  const std::string file_;
  const Clock& clock_;
  Log* const log_;
  std::atomic<uint64_t> refused_{0};
  std::mutex mutex_;
  std::shared_ptr<const policy::AdminTokens> tokens_;  // guarded; null: none can be used
  std::string stamp_;                                  // guarded; of the file as it was read
  MonotonicTime next_look_{};                          // guarded
};

}  // namespace sluice::node
