// What a reload costs with 50,000 <domain> sections, and what one changed domain sends.
#include "absl/strings/str_cat.h"
#include "benchmark/benchmark.h"
#include "services/base/check.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/snapshot_delta.h"
#include "services/config/snapshot_hash.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

constexpr int kDomains = 50'000;

std::string Text(int connections_of_the_last) {
  std::string text = "<virtual-mta news>\n  smtp-source-host 192.0.2.1 news.test\n</virtual-mta>\n";
  for (int i = 0; i < kDomains; ++i) {
    absl::StrAppend(&text, "<domain d", i, ".example.test>\n  max-smtp-out ",
                    i + 1 == kDomains ? connections_of_the_last : i % 50 + 1,
                    "\n  max-msg-rate 1000/h\n  retry-after 10m,30m,1h\n</domain>\n");
  }
  return text;
}

policy::v1::PolicySnapshot CompileOrDie(const std::string& text, uint64_t version) {
  MemoryFiles files;
  Compiled compiled = CompileText("a.conf", text, files);
  SLUICE_CHECK(compiled.ok());
  compiled.snapshot.set_version(version);
  return std::move(compiled.snapshot);
}

void BM_Compile(benchmark::State& state) {
  const std::string text = Text(7);
  for (auto _ : state) benchmark::DoNotOptimize(CompileOrDie(text, 1));
}
BENCHMARK(BM_Compile)->Unit(benchmark::kMillisecond);

// A reload in which one domain changed: the others are not compiled again.
void BM_CompileAgain(benchmark::State& state) {
  MemoryFiles files;
  CompileCache cache;
  CompileOptions options;
  options.cache = &cache;
  const std::string texts[] = {Text(7), Text(8)};
  int round = 0;
  CompileText("a.conf", texts[0], files, options);
  for (auto _ : state) {
    benchmark::DoNotOptimize(CompileText("a.conf", texts[++round % 2], files, options));
  }
}
BENCHMARK(BM_CompileAgain)->Unit(benchmark::kMillisecond);

void BM_BuildView(benchmark::State& state) {
  const auto snapshot = CompileOrDie(Text(7), 1);
  for (auto _ : state) benchmark::DoNotOptimize(*PolicyView::Build(snapshot));
}
BENCHMARK(BM_BuildView)->Unit(benchmark::kMillisecond);

void BM_DeltaOfOneDomain(benchmark::State& state) {
  const auto before = CompileOrDie(Text(7), 1);
  const auto after = CompileOrDie(Text(8), 2);
  size_t bytes = 0;
  for (auto _ : state) bytes = MakeDelta(before, after).ByteSizeLong();
  state.counters["bytes"] = static_cast<double>(bytes);
}
BENCHMARK(BM_DeltaOfOneDomain)->Unit(benchmark::kMillisecond);

void BM_QueueSettingsFirstTime(benchmark::State& state) {
  const auto view = *PolicyView::Build(CompileOrDie(Text(7), 1));
  int i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        view->ForQueue(absl::StrCat("d", i++ % kDomains, ".example.test"), "news", ""));
  }
}
BENCHMARK(BM_QueueSettingsFirstTime)->Iterations(kDomains);

void BM_QueueSettingsAgain(benchmark::State& state) {
  const auto view = *PolicyView::Build(CompileOrDie(Text(7), 1));
  for (auto _ : state) benchmark::DoNotOptimize(view->ForQueue("d7.example.test", "news", ""));
}
BENCHMARK(BM_QueueSettingsAgain);

}  // namespace
}  // namespace sluice::config

BENCHMARK_MAIN();
