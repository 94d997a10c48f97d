#include "services/node/run.h"

#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

#include "services/node/daemon.h"
#include "services/node/process.h"

namespace sluice::node {
namespace {

void Say(Role role, std::string_view text) {
  const std::string name(RoleName(role));
  std::fprintf(stderr, "%s: %.*s\n", name.c_str(), static_cast<int>(text.size()), text.data());
}

}  // namespace

int Run(Role role, int argc, char** argv) {
  auto options = ParseOptions(role, argc, argv);
  if (!options.ok()) {
    const bool help = options.status().code() == absl::StatusCode::kOutOfRange;
    std::fprintf(help ? stdout : stderr, "%s\n", std::string(options.status().message()).c_str());
    return help ? 0 : 2;
  }
  Signals signals;
  Daemon daemon(*std::move(options));
  if (absl::Status status = daemon.Start(); !status.ok()) {
    Say(role, std::string(status.message()));
    return 1;
  }
  Say(role, "ready");
  signals.WaitForStop([&] { Say(role, daemon.Reload()); });
  Say(role, daemon.failed() ? "the spool failed: stopping" : "stopping");
  std::thread([&signals] { signals.ExitOnNext(); }).detach();
  daemon.Stop();
  Say(role, "stopped");
  std::fflush(nullptr);
  _exit(daemon.failed() ? 1 : 0);
}

}  // namespace sluice::node
