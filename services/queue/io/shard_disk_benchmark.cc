// CPU, bytes and commits of a shard on a real disk, without SMTP: messages of 10 KiB in, leased,
// delivered after a while, gone, in a closed loop like that of the relay's sessions.
//   bazel run -c opt //services/queue/io:shard_disk_benchmark -- FOLDER [messages] [outstanding]
//       [delivery ms]
// FOLDER must be on a disk: on tmpfs a sync costs nothing. A spool is made in it, and removed.
#include <dirent.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "services/base/cpu_seconds.h"
#include "services/base/net/event_loop.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/queue/core/shard.h"
#include "services/queue/io/rocksdb_store.h"
#include "services/queue/io/writer_thread.h"
#include "services/queue/testing/delivered.h"

namespace sluice::queue {
namespace {

constexpr size_t kBodyBytes = 10'240;
constexpr size_t kHeaderBytes = 220;  // what ingest puts before it

uint64_t WrittenBytes() {
  std::ifstream io("/proc/self/io");
  std::string name;
  uint64_t value = 0;
  while (io >> name >> value) {
    if (name == "write_bytes:") return value;
  }
  return 0;
}

// Seconds of CPU by thread name.
std::map<std::string, double> CpuByThread() {
  std::map<std::string, double> cpu;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    uint64_t ns = 0;
    std::getline(std::ifstream(entry.path() / "comm") >> std::ws, name);
    std::ifstream(entry.path() / "schedstat") >> ns;
    cpu[name] += 1e-9 * static_cast<double>(ns);
  }
  return cpu;
}

struct Load final : Stream<v1::EnqueueRequest, v1::EnqueueResponse>::Handler,
                    Stream<v1::DispatchRequest, v1::DispatchResponse>::Handler {
  Load(EventLoop& loop, int messages, Duration delivery)
      : loop(loop),
        messages(messages),
        delivery(delivery),
        body(std::string(kHeaderBytes + kBodyBytes, 'x')) {}

  void SendMessages(int count) {
    Frame<v1::EnqueueRequest> frame;
    for (; count > 0 && sent < messages; --count, ++sent) {
      v1::NewMessage* message = frame.header.add_messages();
      message->set_token(static_cast<uint64_t>(sent) + 1);
      std::string id(16, '\0');
      std::memcpy(id.data(), &sent, sizeof(sent));
      auto* envelope = message->mutable_message();
      envelope->set_id(id);
      envelope->set_mail_from("sender@from.bench.test");
      envelope->set_client_ip("127.0.0.1");
      envelope->set_client_name("client.bench.test");
      envelope->set_local_ip("127.0.0.1");
      envelope->set_listener("127.0.0.1:2525");
      for (const char* name : {"From", "Subject", "Message-ID"}) {
        auto* header = envelope->add_captured_headers();
        header->set_name(name);
        header->set_value("a value as long as most of them are <here>");
      }
      auto* added = message->add_deliveries()->mutable_delivery();
      added->set_rcpt("r" + std::to_string(sent) + "@bench.test");
      added->set_rcpt_given(added->rcpt());
      added->set_vmta("default");
      message->set_body_index(0);
    }
    frame.bodies.push_back(body);
    if (frame.header.messages_size() > 0) in->Send(std::move(frame));
  }

  void OnFrame(Frame<v1::EnqueueResponse> frame) override {
    for (const auto& result : frame.header.results()) {
      accepted += result.outcome() == v1::EnqueueResult::OUTCOME_QUEUED ? 1 : 0;
    }
    SendMessages(frame.header.results_size());
  }

  void OnFrame(Frame<v1::DispatchResponse> frame) override {
    Frame<v1::DispatchRequest> out;
    delivered += testing::AnswerDelivered(frame.header, 40, out);
    if (delivered == messages) loop.Stop();
    if (out.header.ByteSizeLong() == 0) return;
    loop.After(delivery,
               [this, out = std::move(out)]() mutable { dispatch->Send(std::move(out)); });
  }
  void OnClosed(absl::Status) override { loop.Stop(); }

  EventLoop& loop;
  const int messages;
  const Duration delivery;
  const Body body;
  std::shared_ptr<Stream<v1::EnqueueRequest, v1::EnqueueResponse>> in;
  std::shared_ptr<Stream<v1::DispatchRequest, v1::DispatchResponse>> dispatch;
  int sent = 0;
  int accepted = 0;
  int delivered = 0;
};

int Run(const std::string& folder, int messages, int outstanding, int delivery_ms) {
  RocksdbOptions options;
  options.folder = folder + "/shard-disk-benchmark";
  options.ballast_bytes = 0;
  std::filesystem::remove_all(options.folder);
  auto store = OpenRocksdbStore(options);
  if (!store.ok()) {
    std::fprintf(stderr, "%s\n", std::string(store.status().message()).c_str());
    return 1;
  }
  EventLoop loop;
  Load load(loop, messages, std::chrono::milliseconds(delivery_ms));
  {
    WriterThread writer(loop, **store);
    Shard shard({}, loop, **store, writer);
    if (!shard.Start().ok()) return 1;
    InprocStreamClient<v1::EnqueueRequest, v1::EnqueueResponse> enqueue(shard.enqueue());
    InprocStreamClient<v1::DispatchRequest, v1::DispatchResponse> dispatch(shard.dispatch());
    load.dispatch = dispatch.Open(loop);
    load.dispatch->Start(&load);
    load.dispatch->Send(testing::Hello());
    load.in = enqueue.Open(loop);
    load.in->Start(&load);
    const double cpu = CpuSeconds();
    const uint64_t written = WrittenBytes();
    const auto threads = CpuByThread();
    const MonotonicTime begin = loop.clock().Now();
    load.SendMessages(outstanding);
    loop.Run();
    const double seconds = 1e-6 * static_cast<double>((loop.clock().Now() - begin).count());
    const double each = 1.0 / messages;
    std::printf(
        "%d accepted, %d delivered: %.0f a second, %.1f us of CPU, %.0f bytes written, "
        "%.3f commits a message\n",
        load.accepted, load.delivered, messages / seconds, (CpuSeconds() - cpu) * 1e6 * each,
        static_cast<double>(WrittenBytes() - written) * each,
        static_cast<double>(writer.stats().syncs) * each);
    for (const auto& [name, after] : CpuByThread()) {
      const auto before = threads.find(name);
      const double used = after - (before == threads.end() ? 0 : before->second);
      if (used > 0) std::printf("  %-16s %6.1f us\n", name.c_str(), used * 1e6 * each);
    }
    load.in.reset();
    load.dispatch.reset();
  }
  store->reset();
  std::filesystem::remove_all(options.folder);
  return load.accepted == messages && load.delivered == messages ? 0 : 1;
}

}  // namespace
}  // namespace sluice::queue

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FOLDER [messages] [outstanding] [delivery ms]\n", argv[0]);
    return 2;
  }
  const auto number = [&](int i, int otherwise) {
    return argc > i ? std::atoi(argv[i]) : otherwise;
  };
  return sluice::queue::Run(argv[1], number(2, 200'000), number(3, 40), number(4, 10));
}
