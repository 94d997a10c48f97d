// Who may do what with the admin API: bearer tokens with roles, kept as hashes.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::policy {

// Each may do all that those before it may.
enum class AdminRole : uint8_t {
  kMonitor,   // sees the state of the cluster, queues, envelopes and events
  kOperator,  // sees messages' texts, changes queues and mail
  kAdmin,     // reads and reloads the configuration's files
};

std::string_view AdminRoleName(AdminRole role);  // "monitor", "operator", "admin"

// What a method of AdminService or QueueControlService ("Pause") asks for. Of a method that is not
// known: kAdmin.
AdminRole RoleForAdminMethod(std::string_view method);

// The tokens of a file. A line each: a name for the log, a role, and "sha256:" with the hash of the
// token in hex; what follows a # is a comment. A token is random (32 characters or more), so that
// its hash needs neither salt nor work.
// Thread-safety: immutable.
class AdminTokens {
 public:
  struct Holder {
    std::string name;
    AdminRole role = AdminRole::kMonitor;
  };

  static constexpr size_t kMinTokenBytes = 32;
  static constexpr size_t kMaxTokens = 1'000;

  // INVALID_ARGUMENT names the line, and never shows what stands there.
  static absl::StatusOr<AdminTokens> Parse(std::string_view text);

  // nullptr where nobody has this token. Takes as long whichever token it is compared with, and
  // wherever they differ.
  const Holder* Find(std::string_view token) const;

  size_t size() const { return entries_.size(); }

  // The line for the file.
  static std::string Line(std::string_view name, AdminRole role, std::string_view token);

 private:
  using Hash = std::array<unsigned char, 32>;
  struct Entry {
    Holder holder;
    Hash hash;
  };
  static Hash HashOf(std::string_view token);

  std::vector<Entry> entries_;
};

}  // namespace sluice::policy
