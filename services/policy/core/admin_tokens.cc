#include "services/policy/core/admin_tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sluice::policy {
namespace {

constexpr std::string_view kScheme = "sha256:";
constexpr size_t kMaxNameBytes = 64;

std::optional<AdminRole> ParseRole(std::string_view text) {
  for (const AdminRole role : {AdminRole::kMonitor, AdminRole::kOperator, AdminRole::kAdmin}) {
    if (text == AdminRoleName(role)) return role;
  }
  return std::nullopt;
}

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  std::string_view("._@-").find(c) != std::string_view::npos;
         });
}

}  // namespace

std::string_view AdminRoleName(AdminRole role) {
  switch (role) {
    case AdminRole::kMonitor:
      return "monitor";
    case AdminRole::kOperator:
      return "operator";
    case AdminRole::kAdmin:
      return "admin";
  }
  return "?";
}

AdminRole RoleForAdminMethod(std::string_view method) {
  for (const std::string_view seen :
       {"GetStatus", "ListQueues", "GetQueue", "ListMessages", "ListEvents", "ListPauses",
        "ListOwners", "ExplainConfig", "GetShardStatus", "ReadEvents"}) {
    if (method == seen) return AdminRole::kMonitor;
  }
  for (const std::string_view changes :
       {"GetMessage", "DeleteMessages", "RetryQueues", "SetQueueMode", "SetQueueSource",
        "ConfirmClock", "RerouteMessages", "ReleaseMessages", "Pause", "Resume"}) {
    if (method == changes) return AdminRole::kOperator;
  }
  return AdminRole::kAdmin;
}

absl::StatusOr<AdminTokens> AdminTokens::Parse(std::string_view text) {
  AdminTokens tokens;
  size_t number = 0;
  const auto wrong = [&number](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("line ", number, ": ", absl::string_view(why.data(), why.size())));
  };
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    if (words.size() != 3) {
      return wrong("give NAME ROLE sha256:HEX, as `sluicectl token` prints it");
    }
    Entry entry;
    if (!IsName(words[0])) {
      return wrong("a name has 1 to 64 letters, digits and . _ @ -");
    }
    entry.holder.name = words[0];
    for (const Entry& other : tokens.entries_) {
      if (other.holder.name == entry.holder.name) return wrong("an earlier line has this name");
    }
    const std::optional<AdminRole> role = ParseRole(words[1]);
    if (!role) return wrong("a role is monitor, operator or admin");
    entry.holder.role = *role;
    const std::string_view hash = words[2];
    const std::string_view hex = hash.substr(std::min(hash.size(), kScheme.size()));
    if (!hash.starts_with(kScheme) || hex.size() != 2 * entry.hash.size() ||
        !std::all_of(hex.begin(), hex.end(),
                     [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); })) {
      return wrong("the third word is sha256: and 64 hex digits, never the token itself");
    }
    const std::string bytes = absl::HexStringToBytes(absl::string_view(hex.data(), hex.size()));
    std::copy(bytes.begin(), bytes.end(), entry.hash.begin());
    tokens.entries_.push_back(std::move(entry));
    if (tokens.entries_.size() > kMaxTokens) return wrong("more than 1,000 tokens");
  }
  return tokens;
}

AdminTokens::Hash AdminTokens::HashOf(std::string_view token) {
  Hash hash;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
  return hash;
}

const AdminTokens::Holder* AdminTokens::Find(std::string_view token) const {
  if (token.size() < kMinTokenBytes) return nullptr;
  const Hash hash = HashOf(token);
  const Holder* found = nullptr;
  for (const Entry& entry : entries_) {
    const bool equal = CRYPTO_memcmp(hash.data(), entry.hash.data(), hash.size()) == 0;
    found = equal ? &entry.holder : found;
  }
  return found;
}

std::string AdminTokens::Line(std::string_view name, AdminRole role, std::string_view token) {
  const Hash hash = HashOf(token);
  const absl::string_view bytes(reinterpret_cast<const char*>(hash.data()), hash.size());
  return absl::StrCat(std::string(name), " ", std::string(AdminRoleName(role)), " ",
                      std::string(kScheme), absl::BytesToHexString(bytes));
}

}  // namespace sluice::policy
