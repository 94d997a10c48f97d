// What the session and the data reader cost for one message, beside the kernel.
//   bazel run -c opt //services/mail:smtp_server_session_benchmark
#include <string>

#include "benchmark/benchmark.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {
namespace {

class Handler final : public SmtpServerHandler {
 public:
  void OnHello(std::string_view, bool) override {}
  std::optional<ServerReply> OnMail(const MailCommand&) override {
    return ServerReply{250, {2, 1, 0}, "Sender OK"};
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand&) override {
    return ServerReply{250, {2, 1, 5}, "Recipient OK"};
  }
  std::optional<ServerReply> OnData() override {
    body.clear();
    body.reserve(16 * 1024);
    return ServerReply{354, {}, "go"};
  }
  void OnBody(std::string_view text) override { body.append(text); }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts&) override {
    return ServerReply{250, {2, 0, 0}, "OK"};
  }
  void OnReset() override {}
  std::string body;
};

std::string Text(size_t bytes) {
  std::string text = "From: a@b.test\r\nTo: c@d.test\r\nSubject: test\r\n\r\n";
  while (text.size() < bytes) text += std::string(76, 'x') + "\r\n";
  return text;
}

// One transaction: envelope in one read, text and end in another.
void BM_Transaction(benchmark::State& state) {
  const std::string envelope =
      "MAIL FROM:<bounce-12345@sender.example.com> SIZE=10240\r\n"
      "RCPT TO:<somebody.somewhere@receiver.example.org>\r\nDATA\r\n";
  const std::string text = Text(static_cast<size_t>(state.range(0))) + ".\r\n";
  SmtpServerOptions options;
  Handler handler;
  SmtpServerSession session(handler, options);
  MonotonicTime now{std::chrono::seconds(1)};
  const auto drain = [&] { session.Sent(now, session.output().size()); };
  session.Start(now);
  session.OnBytes(now, "EHLO client.example.com\r\n");
  drain();
  for (auto _ : state) {
    session.OnBytes(now, envelope);
    drain();
    session.OnBytes(now, text);
    drain();
    benchmark::DoNotOptimize(handler.body.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK(BM_Transaction)->Arg(1 << 10)->Arg(10 << 10)->Arg(100 << 10);

void BM_DataReader(benchmark::State& state) {
  const std::string text = Text(static_cast<size_t>(state.range(0))) + ".\r\n";
  for (auto _ : state) {
    DataReader reader({});
    size_t bytes = 0;
    reader.Feed(text, [&](std::string_view s) { bytes += s.size(); });
    benchmark::DoNotOptimize(bytes);
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(text.size()));
}
BENCHMARK(BM_DataReader)->Arg(10 << 10);

}  // namespace
}  // namespace sluice::mail

BENCHMARK_MAIN();
