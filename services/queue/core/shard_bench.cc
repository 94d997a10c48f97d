// CPU of the shard alone, over memory and in virtual time: a message in, leased, delivered, gone.
//   bazel run //services/queue/core:shard_bench -- [messages] [domains] [fresh|backlog]

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "services/base/cpu_seconds.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/base/testing/manual_executor.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/core/shard.h"
#include "services/queue/testing/delivered.h"
#include "services/queue/testing/virtual_committer.h"

namespace sluice::queue {
namespace {

struct Injector final : Stream<v1::EnqueueRequest, v1::EnqueueResponse>::Handler {
  void OnFrame(Frame<v1::EnqueueResponse> frame) override {
    answered += frame.header.results_size();
  }
  void OnClosed(absl::Status) override {}
  int answered = 0;
};

struct Worker final : Stream<v1::DispatchRequest, v1::DispatchResponse>::Handler {
  void OnFrame(Frame<v1::DispatchResponse> frame) override {
    Frame<v1::DispatchRequest> out;
    delivered += testing::AnswerDelivered(frame.header, 4, out);
    if (out.header.ByteSizeLong() > 0) stream->Send(std::move(out));
  }
  void OnClosed(absl::Status) override {}
  std::shared_ptr<Stream<v1::DispatchRequest, v1::DispatchResponse>> stream;
  int delivered = 0;
};

int Run(int messages, int domains, bool backlog) {
  sluice::testing::ManualExecutor executor;
  MemoryStore store;
  testing::VirtualCommitter committer(executor, store);
  Shard shard({}, executor, store, committer);
  if (!shard.Start().ok()) return 1;
  InprocStreamClient<v1::EnqueueRequest, v1::EnqueueResponse> enqueue(shard.enqueue());
  InprocStreamClient<v1::DispatchRequest, v1::DispatchResponse> dispatch(shard.dispatch());
  Injector injector;
  auto in = enqueue.Open(executor);
  in->Start(&injector);
  Worker worker;
  auto connect = [&] {
    worker.stream = dispatch.Open(executor);
    worker.stream->Start(&worker);
    worker.stream->Send(testing::Hello());
  };
  if (!backlog) connect();
  const Body body(std::string(10240, 'x'));
  constexpr int kBatch = 20;
  double cpu = CpuSeconds();
  for (int sent = 0; sent < messages;) {
    Frame<v1::EnqueueRequest> frame;
    for (int i = 0; i < kBatch; ++i, ++sent) {
      v1::NewMessage* message = frame.header.add_messages();
      message->set_token(static_cast<uint64_t>(sent) + 1);
      std::string id(16, '\0');
      std::memcpy(id.data(), &sent, sizeof(sent));
      auto* envelope = message->mutable_message();
      envelope->set_id(id);
      envelope->set_mail_from("sender@from.example");
      envelope->set_client_ip("127.0.0.1");
      envelope->set_client_name("client.example");
      auto* delivery = message->add_deliveries()->mutable_delivery();
      delivery->set_rcpt("r" + std::to_string(sent) + "@d" + std::to_string(sent % domains) +
                         ".example");
      delivery->set_rcpt_given(delivery->rcpt());
      delivery->set_vmta("default");
      message->set_body_index(0);
    }
    frame.bodies.push_back(body);
    in->Send(std::move(frame));
    executor.Advance(std::chrono::milliseconds(2));
  }
  executor.Advance(std::chrono::milliseconds(100));
  if (backlog) {
    std::printf("enqueue alone: %.2f us a message\n", (CpuSeconds() - cpu) * 1e6 / messages);
    executor.Advance(std::chrono::minutes(2));
    cpu = CpuSeconds();
    connect();
    for (int i = 0; i < 100'000 && worker.delivered < messages; ++i) {
      executor.Advance(std::chrono::milliseconds(2));
    }
  }
  executor.Advance(std::chrono::milliseconds(100));
  std::printf(
      "%s: %d accepted, %d delivered, %.2f us of CPU a message, store and transport of "
      "the test included\n",
      backlog ? "backlog" : "fresh", injector.answered, worker.delivered,
      (CpuSeconds() - cpu) * 1e6 / messages);
  return worker.delivered == messages ? 0 : 1;
}

}  // namespace
}  // namespace sluice::queue

int main(int argc, char** argv) {
  const int messages = argc > 1 ? std::atoi(argv[1]) : 200'000;
  const int domains = argc > 2 ? std::atoi(argv[2]) : 100;
  return sluice::queue::Run(messages, domains, argc > 3 && !std::strcmp(argv[3], "backlog"));
}
