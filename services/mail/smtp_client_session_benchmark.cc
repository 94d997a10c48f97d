// What the client session and the dot stuffer cost for one message, beside the kernel.
//   bazel run -c opt //services/mail:smtp_client_session_benchmark
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::mail {
namespace {

class Handler final : public SmtpClientHandler {
 public:
  void OnOutput(std::string_view text) override { bytes += text.size(); }
  void OnReady() override {}
  void OnWantBody(uint64_t) override {
    session->SendBody(body, true, [this](std::string_view slice) { bytes += slice.size(); });
  }
  bool MayFinish(uint64_t) override { return true; }
  void OnResult(uint64_t, std::vector<RecipientVerdict> recipients) override {
    delivered += recipients[0].verdict == Verdict::kDelivered;
  }
  void OnEnd(const RecipientVerdict&) override {}

  SmtpClientSession* session = nullptr;
  std::string body;
  size_t bytes = 0;
  int64_t delivered = 0;
};

// One transaction to one recipient, the replies in two reads, as over a pipelining connection.
void Transactions(benchmark::State& state, bool chunking) {
  Handler handler;
  handler.body = "From: a@b.test\r\nTo: c@d.test\r\nSubject: test\r\n\r\n";
  while (handler.body.size() < static_cast<size_t>(state.range(0))) {
    handler.body +=
        "Two dots a line, as text and links have them, see https://www.example.com/x\r\n";
  }
  SmtpClientOptions options;
  SmtpClientSession session(handler, options);
  handler.session = &session;
  session.OnBytes("220 mx\r\n");
  session.OnBytes("250-mx\r\n250-PIPELINING\r\n250-SIZE 10485760\r\n");
  session.OnBytes(chunking ? "250 CHUNKING\r\n" : "250 8BITMIME\r\n");
  uint64_t id = 0;
  for (auto _ : state) {
    ClientTransaction transaction;
    transaction.id = ++id;
    transaction.mail_from = "bounce-12345@sender.example.com";
    transaction.recipients.emplace_back("somebody.somewhere@receiver.example.org");
    transaction.size = handler.body.size();
    session.Begin(std::move(transaction));
    session.OnBytes(chunking ? "250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n"
                             : "250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n354 go\r\n");
    session.OnBytes("250 2.0.0 Ok: queued as 4F6B21C0A3\r\n");
  }
  if (handler.delivered != state.iterations()) state.SkipWithError("not every message was taken");
  state.SetBytesProcessed(static_cast<int64_t>(handler.bytes));
}
void BM_Transaction(benchmark::State& state) { Transactions(state, false); }
void BM_Chunked(benchmark::State& state) { Transactions(state, true); }
BENCHMARK(BM_Chunked)->Arg(10 << 10);
BENCHMARK(BM_Transaction)->Arg(1 << 10)->Arg(10 << 10)->Arg(100 << 10);

}  // namespace
}  // namespace sluice::mail

BENCHMARK_MAIN();
