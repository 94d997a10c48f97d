#include "services/node/admin_access.h"

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/tls_certificate.h"
#include "services/base/rpc/peer.h"
#include "services/base/small_file.h"

namespace sluice::node {
namespace {

using policy::AdminRole;
using policy::AdminTokens;

constexpr Duration kLookEvery = std::chrono::seconds(1);
constexpr std::string_view kAdminApi = "/sluice.admin.v1.AdminService/";
// What an operator does to one shard; services among themselves use it with certificates.
constexpr std::string_view kShardApi = "/sluice.queue.v1.QueueControlService/";

absl::StatusOr<AdminTokens> Read(const std::string& file) {
  const auto text = ReadSmallFile(file);
  if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
  auto tokens = AdminTokens::Parse(*text);
  if (tokens.ok()) return tokens;
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", tokens.status().message()));
}

bool IsLocal(const std::string& peer) {
  if (peer.starts_with("unix:")) return true;
  const auto ip = IpAddress::Parse(PeerIp(peer));
  return ip && ip->IsLoopback();
}

std::string_view MethodOf(const RpcCall& call) {
  return std::string_view(call.method).substr(call.method.rfind('/') + 1);
}

}  // namespace

absl::Status AdminAccess::Load() {
  if (file_.empty()) return absl::OkStatus();
  const std::lock_guard lock(mutex_);
  stamp_ = FileStamp(file_);
  auto read = Read(file_);
  if (!read.ok()) return read.status();
  tokens_ = std::make_shared<const AdminTokens>(*std::move(read));
  next_look_ = clock_.Now() + kLookEvery;
  return absl::OkStatus();
}

std::shared_ptr<const AdminTokens> AdminAccess::Tokens() {
  const std::lock_guard lock(mutex_);
  const MonotonicTime now = clock_.Now();
  if (now < next_look_) return tokens_;
  next_look_ = now + kLookEvery;
  std::string stamp = FileStamp(file_);
  if (stamp == stamp_) return tokens_;
  stamp_ = std::move(stamp);
  auto read = Read(file_);
  if (read.ok()) {
    tokens_ = std::make_shared<const AdminTokens>(*std::move(read));
    if (log_ != nullptr) log_->Info("admin_tokens_read", "", {{"tokens", tokens_->size()}});
  } else {
    tokens_ = nullptr;
    if (log_ != nullptr) {
      log_->Error("admin_tokens_unusable",
                  absl::StrCat(read.status().message(), "; no token is taken until it is mended"));
    }
  }
  return tokens_;
}

absl::Status AdminAccess::Admit(const RpcCall& call) {
  const bool admin = call.method.starts_with(kAdminApi);
  if (!admin && !call.method.starts_with(kShardApi)) return absl::OkStatus();
  const AdminRole needed = policy::RoleForAdminMethod(MethodOf(call));
  if (call.certificate) {
    Note(call, needed, "certificate");
    return absl::OkStatus();
  }
  if (!file_.empty() || !call.token.empty()) return CheckToken(call, needed);
  if (IsLocal(call.peer)) {
    Note(call, needed, "this machine");
    return absl::OkStatus();
  }
  return Refuse(call, absl::UnauthenticatedError(
                          "from other machines the admin API is served with certificates or "
                          "tokens only: --tls-cert or --admin-tokens of the policy service"));
}

absl::Status AdminAccess::AdmitByToken(const RpcCall& call) {
  return CheckToken(call, policy::RoleForAdminMethod(MethodOf(call)));
}

absl::Status AdminAccess::CheckToken(const RpcCall& call, AdminRole needed) {
  const std::shared_ptr<const AdminTokens> tokens = file_.empty() ? nullptr : Tokens();
  const AdminTokens::Holder* holder = tokens == nullptr ? nullptr : tokens->Find(call.token);
  if (holder == nullptr) {
    return Refuse(call,
                  absl::UnauthenticatedError(
                      call.token.empty() ? "a token is needed: --token-file, or SLUICE_TOKEN_FILE"
                                         : "this token is not known here"));
  }
  if (holder->role < needed) {
    return Refuse(
        call,
        absl::PermissionDeniedError(absl::StrCat(
            holder->name, " has the role ", std::string(AdminRoleName(holder->role)), ", and ",
            std::string(MethodOf(call)), " needs ", std::string(AdminRoleName(needed)))));
  }
  Note(call, needed, holder->name);
  return absl::OkStatus();
}

absl::Status AdminAccess::Refuse(const RpcCall& call, absl::Status why) {
  ++refused_;
  if (log_ != nullptr) {
    log_->Warn("admin_refused", std::string(why.message()),
               {{"method", MethodOf(call)}, {"peer", call.peer}});
  }
  return why;
}

// Who changed something, for the one who asks later.
void AdminAccess::Note(const RpcCall& call, AdminRole needed, std::string_view by) {
  if (log_ == nullptr || needed == AdminRole::kMonitor) return;
  log_->Info("admin_call", "", {{"method", MethodOf(call)}, {"by", by}, {"peer", call.peer}});
}

}  // namespace sluice::node
