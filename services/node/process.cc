#include "services/node/process.h"

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace sluice::node {
namespace {

constexpr rlim_t kFilesMax = 1 << 20;

}  // namespace

Signals::Signals() {
  sigemptyset(&set_);
  sigaddset(&set_, SIGTERM);
  sigaddset(&set_, SIGINT);
  sigaddset(&set_, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

void Signals::WaitForStop(absl::FunctionRef<void()> reload) {
  for (;;) {
    int signal = 0;
    if (sigwait(&set_, &signal) != 0) continue;
    if (signal != SIGHUP) return;
    reload();
  }
}

void Signals::ExitOnNext() {
  for (;;) {
    int signal = 0;
    if (sigwait(&set_, &signal) == 0 && signal != SIGHUP) _exit(1);
  }
}

void RaiseFileLimit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  // Some programs that local delivery starts close them all, one by one.
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, kFilesMax);
  setrlimit(RLIMIT_NOFILE, &files);  // else it stays as it is, and accepting rests at the limit
}

absl::Status WriteReadyFile(const std::string& path,
                            const std::vector<std::pair<std::string, std::string>>& fields) {
  nlohmann::json json = nlohmann::json::object();
  for (const auto& [name, value] : fields) json[name] = value;
  const std::string partial = path + ".partial";
  std::ofstream file(partial, std::ios::trunc);
  file << json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  file.close();
  if (!file || std::rename(partial.c_str(), path.c_str()) != 0) {
    return absl::UnknownError(absl::StrCat("cannot write the ready file ", path));
  }
  return absl::OkStatus();
}

}  // namespace sluice::node
