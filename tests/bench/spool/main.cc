// sluice-spool: fills the spool of a queue service, and measures how it empties.

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>

#include "services/base/cpu_seconds.h"
#include "tests/bench/spool/spool.h"

namespace sluice::bench {
namespace {

nlohmann::json Latency(const sink::LatencyHistogram& latency) {
  return {{"count", latency.count()},
          {"p50_us", latency.PercentileUs(0.5)},
          {"p99_us", latency.PercentileUs(0.99)},
          {"max_us", latency.max_us()}};
}

int Main(int argc, char** argv) {
  FillOptions options;
  uint64_t window = 20'000;
  uint32_t credits = 20;
  bool head = false;
  bool killed = false;
  CLI::App app{"Fills the spool of a queue service and prints the costs as JSON.", "sluice-spool"};
  app.add_option("--data-dir", options.data_dir, "of the queue service, which must not run")
      ->required();
  app.add_option("--messages", options.messages, "with one recipient each")->capture_default_str();
  app.add_option("--queues", options.queues, "number of queues: d1.bench.test/VMTA, ...")
      ->check(CLI::Range(uint64_t{1}, uint64_t{100'000'000}))
      ->capture_default_str();
  app.add_option("--size", options.size_bytes, "bytes of a message")->capture_default_str();
  app.add_option("--vmta", options.vmta, "virtual MTA")->capture_default_str();
  app.add_flag("--head", head,
               "then delivers everything, and compares the first --window dequeues with the last");
  app.add_option("--window", window, "messages")->capture_default_str();
  app.add_option("--credits", credits, "outstanding")->capture_default_str();
  app.add_flag("--kill", killed, "ends by kill -9, with the log as a crash leaves it");
  CLI11_PARSE(app, argc, argv);

  const auto filled = Fill(options);
  if (!filled.ok()) {
    std::cerr << "sluice-spool: " << filled.status() << std::endl;
    return 1;
  }
  nlohmann::json out = {{"accepted", filled->accepted},
                        {"seconds", filled->seconds},
                        {"cpu_us_per_message", CpuSeconds() * 1e6 / options.messages}};
  if (head) {
    const double cpu = CpuSeconds();
    const auto emptied = ConsumeHead(options, window, credits);
    if (!emptied.ok()) {
      std::cerr << "sluice-spool: " << emptied.status() << std::endl;
      return 1;
    }
    out["delivered"] = emptied->delivered;
    out["dequeue_cpu_us_per_message"] = (CpuSeconds() - cpu) * 1e6 / options.messages;
    out["first"] = Latency(emptied->first);
    out["last"] = Latency(emptied->last);
  }
  std::cout << out.dump(2) << std::endl;
  if (killed) std::raise(SIGKILL);
  return 0;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) { return sluice::bench::Main(argc, argv); }
