// The shard's side of each stream. Private to the shard.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "services/queue/core/shard.h"

namespace sluice::queue {

// Each recipient gets a text or a sender of its own, so that each goes alone in its transaction.
inline bool EachAlone(const common::v1::Message& message) {
  return message.is_template() || message.verp();
}

struct Shard::EnqueueSession final : EnqueueStream::Handler {
  EnqueueSession(Shard& shard, std::shared_ptr<EnqueueStream> stream)
      : shard(shard), stream(std::move(stream)) {}
  void OnFrame(Frame<v1::EnqueueRequest> frame) override {
    shard.OnEnqueue(*this, std::move(frame));
  }
  void OnClosed(absl::Status status) override;
  // Goes out with the next flush.
  void Answer(uint64_t token, v1::EnqueueResult::Outcome outcome, std::string_view message_id,
              std::string_view detail);

  Shard& shard;
  std::shared_ptr<EnqueueStream> stream;
  Frame<v1::EnqueueResponse> out;
  bool dirty = false;
  std::shared_ptr<EnqueueSession*> self = std::make_shared<EnqueueSession*>(this);
};

struct Shard::UploadSession final : UploadStream::Handler {
  UploadSession(Shard& shard, std::shared_ptr<UploadStream> stream)
      : shard(shard), stream(std::move(stream)) {}
  void OnFrame(Frame<v1::UploadRequest> frame) override { shard.OnUpload(*this, std::move(frame)); }
  void OnClosed(absl::Status status) override;

  Shard& shard;
  std::shared_ptr<UploadStream> stream;
  std::shared_ptr<UploadSession*> self = std::make_shared<UploadSession*>(this);
};

struct Shard::FetchSession final : FetchStream::Handler {
  FetchSession(Shard& shard, std::shared_ptr<FetchStream> stream)
      : shard(shard), stream(std::move(stream)) {}
  void OnFrame(Frame<v1::FetchBodyRequest> frame) override {
    shard.OnFetch(*this, std::move(frame));
  }
  void OnClosed(absl::Status status) override;

  Shard& shard;
  std::shared_ptr<FetchStream> stream;
};

// What a worker stands ready to take of one queue.
struct Standing {
  uint32_t groups = 0;
  uint32_t max_recipients = 0;
  uint64_t max_bytes = 0;
  bool answered = false;  // the announcement
  bool in_line = false;   // counted in WorkerSession::lines
  MonotonicTime announced{};
};

// Queues of one virtual MTA at a worker.
struct WorkerLine {
  size_t unanswered = 0;  // announcements
  size_t in_line = 0;     // for a limit of all of them
  std::string limit;      // as the worker said last

  bool IsFull(size_t most) const { return in_line > 0 && in_line + unanswered >= most; }
};

struct WorkerSession final : DispatchStream::Handler {
  WorkerSession(Shard& shard, std::shared_ptr<DispatchStream> stream)
      : shard(shard), stream(std::move(stream)) {}
  void OnFrame(Frame<v1::DispatchRequest> frame) override {
    shard.OnDispatch(*this, std::move(frame));
  }
  void OnWritable() override;
  void OnClosed(absl::Status status) override;

  Shard& shard;
  std::shared_ptr<DispatchStream> stream;
  std::string worker;
  uint64_t incarnation = 0;
  std::set<std::string, std::less<>> vmtas;
  bool draining = false;
  bool congested = false;
  size_t unanswered = 0;
  std::map<std::string, WorkerLine, std::less<>> lines;  // by virtual MTA; none is empty

  WorkerLine& LineOf(std::string_view vmta) {
    const auto found = lines.find(vmta);
    return found != lines.end() ? found->second : lines[std::string(vmta)];
  }
  void ForgetLine(std::string_view vmta) {
    const auto found = lines.find(vmta);
    if (found->second.unanswered == 0 && found->second.in_line == 0) lines.erase(found);
  }
  absl::flat_hash_map<uint64_t, Standing> standing;  // by queue_ref
  absl::flat_hash_set<uint64_t> leases;              // ids it holds
  Frame<v1::DispatchResponse> out;
  std::deque<uint64_t> to_send;  // ids of durable leases that are not in a frame yet
  bool dirty = false;
};

}  // namespace sluice::queue
