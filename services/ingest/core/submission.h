// One message on its way to a shard: small ones inline, large ones chunk by chunk while they are
// still coming in.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "services/ingest/core/shard_client.h"

namespace sluice::ingest {

// Thread-safety: none. Lifetime: shard and owner outlive it; destroying it aborts an upload and
// forgets the answer to a message that is out.
class Submission final : private SubmitWaiter, private UploadWaiter {
 public:
  // None of these comes from within a call to the submission, which may be destroyed in them.
  class Owner {
   public:
    // congested() has become false.
    virtual void OnSubmissionWritable() = 0;
    // The outcome, once; before Finish only where the upload failed (kUnreachable).
    virtual void OnSubmissionDone(const SubmitResult& result) = 0;

   protected:
    ~Owner() = default;
  };

  Submission(ShardClient& shard, Owner& owner) : shard_(shard), owner_(owner) {}
  ~Submission();
  Submission(const Submission&) = delete;
  Submission& operator=(const Submission&) = delete;

  ShardClient& shard() { return shard_; }

  // Not the last piece, of at most kMaxInlineBodyBytes. Turns the body into an upload.
  void AddChunk(std::string chunk);
  // More than the shard takes at once lies here.
  bool congested() const { return chunks_.size() > 1; }

  // `rest` is the whole body, or its last piece after AddChunk (which may be empty); at most
  // kMaxInlineBodyBytes.
  void Finish(queue::v1::NewMessage message, std::string rest);

 private:
  void OnSubmitted(const SubmitResult& result) override;
  void OnUploadProgress() override;
  void OnUploadFailed(std::string_view detail) override;
  void Pump();
  void SubmitLarge();

  ShardClient& shard_;
  Owner& owner_;
  std::optional<ShardUpload> upload_;
  std::deque<Body> chunks_;  // one is held back, so that the last one can be told
  bool finished_ = false;
  queue::v1::NewMessage message_;  // while the upload is not complete
  uint64_t token_ = 0;             // of the message that is out
};

}  // namespace sluice::ingest
