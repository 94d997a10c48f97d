// Ingest's connection to one shard: messages go out in one frame a turn of the loop, answers come
// back by token, large bodies go ahead in chunks. Connects again by itself.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "services/base/body.h"
#include "services/base/executor.h"
#include "services/base/log/log.h"
#include "services/base/log/outage_notice.h"
#include "services/base/rpc/stream.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::ingest {

using EnqueueClient = StreamClient<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>;
using UploadClient = StreamClient<queue::v1::UploadRequest, queue::v1::UploadResponse>;

enum class SubmitOutcome : uint8_t {
  kQueued,       // durable
  kDuplicate,    // by its idempotency key; message_id is the first one's
  kBusy,         // not accepted: the shard cannot now
  kFull,         // not accepted: spool limit
  kInvalid,      // not accepted, and never will be
  kStoreFailed,  // not accepted: the shard's disk failed
  kInFlight,     // the same idempotency key is being enqueued
  kUnreachable,  // not accepted: it was never sent
  kUnknown,      // sent, and no answer came
};

struct SubmitResult {
  SubmitOutcome outcome = SubmitOutcome::kUnknown;
  std::string message_id;  // 16 bytes
  std::string detail;
};

// Who waits for the answer to one message.
class SubmitWaiter {
 public:
  virtual void OnSubmitted(const SubmitResult& result) = 0;

 protected:
  ~SubmitWaiter() = default;
};

// Who sends a large body. None of these comes from within a call to the upload.
class UploadWaiter {
 public:
  // Less than kUploadWindowChunks are unacknowledged now; after the last chunk: all have been
  // taken, and upload_id() may go into a message.
  virtual void OnUploadProgress() = 0;
  // The body is lost; the upload is to be dropped.
  virtual void OnUploadFailed(std::string_view detail) = 0;

 protected:
  ~UploadWaiter() = default;
};

inline constexpr int kUploadWindowChunks = 2;

class ShardClient;

// One large body on its way. Thread-safety: as ShardClient. Lifetime: `waiter` and the client
// outlive it; destroying it before the message that names it was submitted aborts it.
class ShardUpload {
 public:
  ShardUpload(ShardClient& client, UploadWaiter& waiter);
  ~ShardUpload();
  ShardUpload(const ShardUpload&) = delete;
  ShardUpload& operator=(const ShardUpload&) = delete;

  // At most kMaxInlineBodyBytes; only while !full().
  void Send(Body chunk, bool last);
  bool full() const { return sent_ + held_.size() >= acknowledged_ + kUploadWindowChunks; }
  bool complete() const { return last_sent_ && held_.empty() && acknowledged_ == sent_; }
  uint64_t upload_id() const { return upload_id_; }
  // The message that names it is on its way: what happens to the chunks is the shard's concern now.
  void Commit() { committed_ = true; }

 private:
  friend class ShardClient;
  void Flush();

  ShardClient& client_;
  UploadWaiter& waiter_;
  uint64_t token_;
  uint64_t upload_id_ = 0;
  uint32_t sent_ = 0;
  uint32_t acknowledged_ = 0;
  bool last_given_ = false;
  bool last_sent_ = false;
  bool failed_ = false;
  bool committed_ = false;
  std::deque<Body> held_;  // until the shard has named the upload; at most the window
};

struct ShardClientOptions {
  // No answer for this long: outcome unknown.
  Duration answer_timeout = std::chrono::seconds(60);
  Duration backoff_min = std::chrono::milliseconds(100);
  Duration backoff_max = std::chrono::seconds(3);
  // A stream that has said nothing is taken for alive when it has stood this long.
  Duration proving_time = std::chrono::milliseconds(500);
  // Longer without an answer: other shards are preferred.
  Duration stall = std::chrono::milliseconds(250);
  // What a shard said of its load holds this long: one that is not asked does not say that it is
  // idle again.
  Duration load_age_max = std::chrono::milliseconds(100);
  // A shard that takes nothing is asked again this often.
  Duration ask_again = std::chrono::milliseconds(250);
  size_t max_frame_bytes = 1024 * 1024;
  Log* log = nullptr;  // outlives the client; none: silence
};

// Thread-safety: none; everything on the executor. Lifetime: clients and executor outlive it;
// destroying it gives waiters no answer.
class ShardClient {
 public:
  ShardClient(std::string name, Executor& executor, EnqueueClient& enqueue, UploadClient& upload,
              const ShardClientOptions& options);
  ~ShardClient();
  ShardClient(const ShardClient&) = delete;
  ShardClient& operator=(const ShardClient&) = delete;

  void Start();

  // Called when healthy() may have changed.
  void set_on_change(absl::AnyInvocable<void()> on_change) { on_change_ = std::move(on_change); }

  const std::string& name() const { return name_; }
  bool connected() const { return enqueue_stream_ != nullptr; }
  // Takes messages, as far as can be known.
  bool healthy() const;
  // Why not, for people.
  std::string unhealthy_reason() const;
  // Bytes that wait in front of a new message; compared between shards.
  uint64_t load() const;
  // The oldest message waits for its answer for too long: the shard may be dead, and whoever is
  // given to it stuck until that is sure.
  bool stalled() const;
  uint64_t unanswered_messages() const { return pending_.size(); }

  // Sends the message at the end of this turn, and answers `waiter` once, never from within this
  // call. The token that is returned can be given to Forget. `body` is empty where the message
  // names an upload. A message that was sent is never sent again.
  uint64_t Submit(queue::v1::NewMessage message, Body body, SubmitWaiter* waiter);
  // The answer no longer interests; the message goes its way.
  void Forget(uint64_t token);

 private:
  friend class ShardUpload;
  using EnqueueStream = EnqueueClient::ClientStream;
  using UploadStream = UploadClient::ClientStream;

  struct EnqueueHandler final : EnqueueStream::Handler {
    explicit EnqueueHandler(ShardClient* client) : client(client) {}
    void OnFrame(Frame<queue::v1::EnqueueResponse> frame) override {
      client->OnEnqueueFrame(frame.header);
    }
    void OnWritable() override { client->OnEnqueueWritable(); }
    void OnClosed(absl::Status status) override { client->OnEnqueueClosed(status); }
    ShardClient* client;
  };
  struct UploadHandler final : UploadStream::Handler {
    explicit UploadHandler(ShardClient* client) : client(client) {}
    void OnFrame(Frame<queue::v1::UploadResponse> frame) override {
      client->OnUploadFrame(frame.header);
    }
    void OnClosed(absl::Status status) override { client->OnUploadClosed(status); }
    ShardClient* client;
  };
  struct Pending {
    SubmitWaiter* waiter;
    uint64_t bytes;
    bool sent;
  };

  void Connect();
  void ConnectLater();
  void AskAgain();
  void Flush();
  void SendFrame();
  void OnEnqueueFrame(const queue::v1::EnqueueResponse& response);
  void OnEnqueueWritable();
  void OnEnqueueClosed(const absl::Status& status);
  void OnUploadFrame(const queue::v1::UploadResponse& response);
  void OnUploadClosed(const absl::Status& status);
  void Answer(uint64_t token, const SubmitResult& result);
  void ArmTimeout();
  void OnTimeout();
  void FailUploads(std::string_view detail);
  void Changed() {
    if (on_change_) on_change_();
  }

  const std::string name_;
  Executor& executor_;
  EnqueueClient& enqueue_client_;
  UploadClient& upload_client_;
  const ShardClientOptions options_;
  absl::AnyInvocable<void()> on_change_;

  EnqueueHandler enqueue_handler_{this};
  UploadHandler upload_handler_{this};
  std::shared_ptr<EnqueueStream> enqueue_stream_;
  std::shared_ptr<UploadStream> upload_stream_;
  bool spoke_ = false;
  OutageNotice outage_;  // the shard has answered on this stream
  MonotonicTime opened_at_;
  Duration backoff_{0};
  TimerId reconnect_timer_ = 0;
  TimerId proving_timer_ = 0;
  TimerId ask_timer_ = 0;
  std::string last_error_;

  bool accepting_ = true;
  bool congested_ = false;
  std::string not_accepting_reason_;
  uint64_t shard_queued_bytes_ = 0;
  MonotonicTime load_said_at_{};

  uint64_t next_token_ = 1;
  absl::flat_hash_map<uint64_t, Pending> pending_;
  uint64_t unanswered_bytes_ = 0;
  Frame<queue::v1::EnqueueRequest> frame_;
  size_t frame_bytes_ = 0;
  bool flush_posted_ = false;
  std::deque<std::pair<MonotonicTime, uint64_t>> timeouts_;  // in order of both
  TimerId timeout_timer_ = 0;

  absl::flat_hash_map<uint64_t, ShardUpload*> uploads_by_token_;
  absl::flat_hash_map<uint64_t, ShardUpload*> uploads_by_id_;
  // Tells posted tasks that the client is gone.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::ingest
