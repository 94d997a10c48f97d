#include "services/node/run.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "services/base/log/log.h"
#include "services/base/log/log_file.h"
#include "services/node/daemon.h"
#include "services/node/process.h"

#ifdef SLUICE_SANITIZER
extern "C" void __lsan_do_leak_check() __attribute__((weak));
#endif

// jemalloc reads it at its start; MALLOC_CONF goes before it. What has been free for a second goes
// back to the system (its own: ten), and a thread of jemalloc's sees to it: measured, a tenth less
// memory after a start with 200,000 queues, and no more CPU.
extern "C" {
const char* malloc_conf = "dirty_decay_ms:1000,background_thread:true";
}

namespace sluice::node {
namespace {

LogOptions LogOptionsOf(Role role, const Options& options) {
  LogOptions log;
  log.service = RoleName(role);
  log.level = ParseLogLevel(options.log_level).value_or(LogLevel::kInfo);
  log.json = options.log_json;
  return log;
}

}  // namespace

int Run(Role role, int argc, char** argv) {
  auto options = ParseOptions(role, argc, argv);
  if (!options.ok()) {
    const bool help = options.status().code() == absl::StatusCode::kOutOfRange;
    std::fprintf(help ? stdout : stderr, "%s\n", std::string(options.status().message()).c_str());
    return help ? 0 : 2;
  }
  // Mail and passwords are in what we write: for nobody but the owner and its group.
  umask(umask(0) | 0027);
  Signals signals;
  // What goes wrong with a connection or an address is told by us; GRPC_VERBOSITY asks for more.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  RaiseFileLimit();
  LogFile log_file(Clock::Real());
  Log log(LogOptionsOf(role, *options), Clock::Real());
  log.SetSink([&log_file](std::string_view line) { return log_file.Write(line); });
  options->log = &log;
  options->log_file = &log_file;
  Daemon daemon(*std::move(options));
  if (absl::Status status = daemon.Start(); !status.ok()) {
    daemon.Stop();
    // For the person who started it, whatever the log's form; the last line.
    std::fprintf(stderr, "%s: %s\n", std::string(RoleName(role)).c_str(),
                 std::string(status.message()).c_str());
    return 1;
  }
  log.Info("ready", "", {{"pid", static_cast<int64_t>(getpid())}});
  signals.WaitForStop([&] { log.Info("reloaded", daemon.Reload()); });
  if (daemon.failed()) {
    log.Error("spool_failed", "the spool failed: stopping");
  } else {
    log.Info("stopping", "");
  }
  std::thread([&signals] { signals.ExitOnNext(); }).detach();
  daemon.Stop();
  log.Info("stopped", "");
  std::fflush(nullptr);
#ifdef SLUICE_SANITIZER
  // Which a return would do, and _exit does not.
  if (__lsan_do_leak_check != nullptr) __lsan_do_leak_check();
#endif
  _exit(daemon.failed() ? 1 : 0);
}

}  // namespace sluice::node
