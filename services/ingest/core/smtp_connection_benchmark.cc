// What ingest's own code costs for one message from SMTP to the shard's frame and back, beside the
// kernel and the shard, and how many allocations it makes.
//   bazel run -c opt //services/ingest/core:smtp_connection_benchmark
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include "benchmark/benchmark.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/core/smtp_connection.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/instant_shard.h"

namespace {
uint64_t g_allocations = 0;
}  // namespace

// Never inlined: gcc would see one half of a pair, and take it for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  ++g_allocations;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace sluice::ingest {
namespace {

class NoUploads final : public UploadClient {
 public:
  class UploadStream final : public ClientStream {
   public:
    void Start(Handler*) override {}
    bool Send(Frame<queue::v1::UploadRequest>) override { return true; }
    void Close(absl::Status) override {}
    void Cancel() override {}
    size_t queued_bytes() const override { return 0; }
    std::string peer() const override { return "instant"; }
  };
  std::shared_ptr<ClientStream> Open(Executor&) override {
    return std::make_shared<UploadStream>();
  }
};

struct Driver final : SmtpConnection::Driver {
  void OnWake() override {}
};

void BM_Message(benchmark::State& state) {
  sluice::testing::ManualExecutor executor;
  testing::InstantShard shard;
  NoUploads uploads;
  IngestOptions options;
  Ingest ingest(executor, options, {{"s", &shard, &uploads}},
                std::make_shared<testing::FakePolicy>());
  ingest.Start();
  executor.Advance(std::chrono::seconds(1));
  {
    Driver driver;
    SmtpConnection connection(ingest, {"127.0.0.1", "127.0.0.1", "127.0.0.1:25"}, driver);
    mail::SmtpServerSession& session = connection.session();
    const MonotonicTime now = executor.clock().Now();
    const auto drain = [&] { session.Sent(now, session.output().size()); };
    connection.Start();
    session.OnBytes(now, "EHLO client.example.com\r\n");
    drain();
    const std::string envelope =
        "MAIL FROM:<bounce-12345@sender.example.com> SIZE=10240\r\n"
        "RCPT TO:<somebody.somewhere@receiver.example.org>\r\nDATA\r\n";
    std::string text =
        "From: A <a@sender.example.com>\r\nTo: c@d.test\r\nSubject: a test message\r\n"
        "Message-ID: <12345.67890@sender.example.com>\r\nDate: Sat, 21 Nov 2026 05:00:00 +0000\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n";
    while (text.size() < static_cast<size_t>(state.range(0))) text += std::string(76, 'x') + "\r\n";
    text += ".\r\n";
    const uint64_t allocations_before = g_allocations;
    for (auto _ : state) {
      session.OnBytes(now, envelope);
      drain();
      session.OnBytes(now, text);
      executor.RunPosted();
      drain();
    }
    state.counters["allocations"] =
        static_cast<double>(g_allocations - allocations_before) / state.iterations();
    if (ingest.counters().messages_accepted != static_cast<uint64_t>(state.iterations())) {
      state.SkipWithError("a message was not accepted");
    }
  }
}
BENCHMARK(BM_Message)->Arg(1 << 10)->Arg(10 << 10)->Arg(100 << 10);

}  // namespace
}  // namespace sluice::ingest

BENCHMARK_MAIN();
