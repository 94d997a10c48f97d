// One bidirectional gRPC stream of byte buffers, either end, with the water marks of stream.h. The
// typed streams of grpc_stream.h are thin shells around it.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/base/executor.h"

namespace sluice {

class RawStreamHandler {
 public:
  virtual void OnRawMessage(grpc::ByteBuffer message) = 0;
  virtual void OnRawWritable() = 0;
  virtual bool OnRawClientDone() = 0;
  virtual void OnRawClosed(absl::Status status) = 0;

 protected:
  ~RawStreamHandler() = default;
};

// Thread-safety: the functions of the owner on its executor; those of the reactor from gRPC's
// threads. Lifetime: shared between the owner's stream and gRPC's reactor.
class RawStream : public std::enable_shared_from_this<RawStream> {
 public:
  // `writes_end_with_reads`: a client's call is over when its reads are; a server still answers.
  RawStream(Executor& executor, bool writes_end_with_reads)
      : executor_(executor), writes_end_with_reads_(writes_end_with_reads) {}
  virtual ~RawStream() = default;

  // ---- owner
  void Start(RawStreamHandler* handler);
  bool Send(grpc::ByteBuffer message);
  void Close(absl::Status status);
  void Cancel();
  // The owner is gone: no callback follows.
  void Detach();
  size_t queued_bytes() const;
  virtual std::string peer() const = 0;

 protected:
  // ---- reactor; called without the lock, one at a time of each kind
  void ReadDone(bool ok, grpc::ByteBuffer message);
  void WriteDone(bool ok);
  // The call is over, or was cancelled.
  void Ended(absl::Status status);

  virtual void DoRead() = 0;
  virtual void DoWrite(const grpc::ByteBuffer& message) = 0;
  // All was written: end our side. DoRead, DoWrite and DoFinish are called with the lock, so that
  // none begins after the call is over.
  virtual void DoFinish(const absl::Status& status) = 0;
  virtual void DoCancel() = 0;
  // No further read succeeds.
  virtual void ReadsEnded() = 0;
  // A server's: the client has closed in good order, which its owner is told after all messages.
  void ClientDone();
  // Ends our side with `status` without waiting for what is queued. Once; false where it was ended.
  bool FinishNow(const absl::Status& status);

 private:
  void WriteNext();
  void ResumeReads();  // with the lock
  void Deliver();
  void EndOnce(absl::Status status);

  Executor& executor_;
  const bool writes_end_with_reads_;
  RawStreamHandler* handler_ = nullptr;  // executor only
  bool closed_by_us_ = false;            // executor only
  bool told_closed_ = false;             // executor only
  bool told_client_done_ = false;        // executor only

  mutable std::mutex mutex_;
  std::deque<grpc::ByteBuffer> out_;
  size_t out_bytes_ = 0;
  bool writing_ = false;
  bool owner_waits_ = false;
  bool finishing_ = false;  // DoFinish after the last write
  bool finished_ = false;
  absl::Status finish_status_;
  bool ended_ = false;
  absl::Status end_status_;
  absl::Status our_status_;  // overrides what gRPC says, where we ended it
  bool have_our_status_ = false;
  std::vector<grpc::ByteBuffer> in_;
  size_t in_bytes_ = 0;
  bool delivery_posted_ = false;
  bool read_paused_ = false;
  bool reads_ended_ = false;
  bool client_done_ = false;
  bool started_ = false;
  bool detached_ = false;
};

absl::Status FromGrpc(int code, const std::string& message);

}  // namespace sluice
