#include "tools/ctl/token.h"

#include <fcntl.h>
#include <openssl/rand.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/strings/escaping.h"
#include "nlohmann/json.hpp"
#include "services/policy/core/admin_tokens.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using policy::AdminRole;
using policy::AdminTokens;

constexpr size_t kRandomBytes = 32;
constexpr size_t kMaxTokenBytes = 4096;

bool WriteNew(const std::string& path, const std::string& text, std::string& error) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) {
    error = "cannot make " + PrintableText(path) + ": " + std::strerror(errno);
    return false;
  }
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const bool synced = written && ::fsync(fd) == 0;
  if (!synced) error = "cannot write " + PrintableText(path) + ": " + std::strerror(errno);
  ::close(fd);
  if (!synced) ::unlink(path.c_str());
  return synced;
}

}  // namespace

int MakeToken(const TokenOptions& options, Environment& env, bool json) {
  AdminRole role = AdminRole::kMonitor;
  for (const AdminRole each : {AdminRole::kOperator, AdminRole::kAdmin}) {
    if (options.role == policy::AdminRoleName(each)) role = each;
  }
  unsigned char random[kRandomBytes];
  if (RAND_bytes(random, sizeof(random)) != 1) {
    env.err << "sluicectl: token: this machine gives no random bytes\n";
    return kExitUsage;
  }
  const std::string token = "slt_" + absl::WebSafeBase64Escape(absl::string_view(
                                         reinterpret_cast<const char*>(random), sizeof(random)));
  const std::string line = AdminTokens::Line(options.name, role, token);
  if (const auto parsed = AdminTokens::Parse(line); !parsed.ok()) {
    const absl::string_view said = parsed.status().message();
    env.err << "sluicectl: token: " << std::string(said.substr(said.find(": ") + 2)) << "\n";
    return kExitUsage;
  }
  std::string error;
  if (!WriteNew(options.to, token + "\n", error)) {
    env.err << "sluicectl: token: " << error << "\n";
    return kExitUsage;
  }
  if (json) {
    const nlohmann::ordered_json made = {
        {"name", options.name}, {"role", options.role}, {"line", line}, {"file", options.to}};
    env.out << made.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else {
    env.out << line << "\n";
  }
  return kExitOk;
}

bool ReadToken(const std::string& path, std::string& token, std::string& error) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    error = "cannot read " + PrintableText(path) + ": " + std::strerror(errno);
    return false;
  }
  token.assign(std::istreambuf_iterator<char>(file), {});
  while (!token.empty() && (token.back() == '\n' || token.back() == '\r')) token.pop_back();
  const bool graphic =
      std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (graphic && token.size() >= AdminTokens::kMinTokenBytes && token.size() <= kMaxTokenBytes) {
    return true;
  }
  error = PrintableText(path) + " holds no token: one line, as `sluicectl token` writes it";
  return false;
}

}  // namespace sluice::ctl
