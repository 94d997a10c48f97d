// Runs seeds of the simulation and says which failed.
//   simulate [--first N] [--seeds N] [--jobs N] [--policy away|dead] [--verbose]
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/simulation/cluster.h"

int main(int argc, char** argv) {
  using sluice::simulation::RunReport;
  uint64_t first = 1;
  uint64_t seeds = 1000;
  unsigned jobs = std::max(1U, std::thread::hardware_concurrency());
  sluice::simulation::RunOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const bool has_value = i + 1 < argc;
    if (arg == "--verbose") {
      options.verbose = true;
    } else if (arg == "--policy" && has_value && std::string_view(argv[i + 1]) == "away") {
      options.policy = sluice::simulation::RunOptions::PolicyFaults::kLong;
      ++i;
    } else if (arg == "--policy" && has_value && std::string_view(argv[i + 1]) == "dead") {
      options.policy = sluice::simulation::RunOptions::PolicyFaults::kForGood;
      ++i;
    } else if (arg == "--first" && has_value) {
      first = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--seeds" && has_value) {
      seeds = std::strtoull(argv[++i], nullptr, 10);
    } else if (arg == "--jobs" && has_value) {
      jobs = static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10));
    } else {
      std::fprintf(
          stderr, "usage: %s [--first N] [--seeds N] [--jobs N] [--policy away|dead] [--verbose]\n",
          argv[0]);
      return 2;
    }
  }
  const auto began = std::chrono::steady_clock::now();
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  uint64_t failed = 0;
  size_t accepted = 0;
  size_t taken = 0;
  size_t duplicates = 0;
  size_t reported = 0;
  size_t faults = 0;
  double slowest = 0;
  const auto work = [&] {
    for (uint64_t i = next++; i < seeds; i = next++) {
      auto mine = options;
      mine.seed = first + i;
      const auto start = std::chrono::steady_clock::now();
      const RunReport report = sluice::simulation::Run(mine);
      const double took =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::lock_guard lock(mutex);
      slowest = std::max(slowest, took);
      accepted += report.accepted;
      taken += report.taken;
      duplicates += report.duplicates;
      reported += report.reported;
      faults += report.faults;
      if (options.verbose) {
        std::printf("seed %lu: %zu accepted, %zu taken, %lu steps, %.0f virtual s, %.3f s\n",
                    report.seed, report.accepted, report.taken, report.steps,
                    report.virtual_seconds, took);
      }
      if (report.failures.empty()) continue;
      ++failed;
      for (const auto& failure : report.failures) {
        std::printf("seed %lu: %s\n", report.seed, failure.c_str());
      }
      std::fflush(stdout);
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < jobs; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf(
      "%lu seeds, %lu failed; recipients: %zu accepted, %zu taken by sites, %zu of these twice, "
      "%zu reported to the sender; %zu faults; %.1f s, %.1f seeds/s, slowest %.2f s\n",
      seeds, failed, accepted, taken, duplicates, reported, faults, seconds,
      static_cast<double>(seeds) / seconds, slowest);
  return failed == 0 ? 0 : 1;
}
