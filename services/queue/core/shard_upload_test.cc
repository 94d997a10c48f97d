// Texts that were sent ahead of their message leave nothing behind where the message does not come,
// or is not taken.
#include <gtest/gtest.h>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class ShardUploadTest : public testing::PolicyShardFixture {
 protected:
  struct Handler final : Stream<v1::UploadRequest, v1::UploadResponse>::Handler {
    void OnFrame(Frame<v1::UploadResponse> frame) override {
      if (frame.header.has_opened()) id = frame.header.opened().upload_id();
      if (frame.header.has_progress()) chunks = frame.header.progress().chunks();
    }
    void OnClosed(absl::Status) override {}
    uint64_t id = 0;
    uint32_t chunks = 0;
  };
  auto Upload(Handler& handler, bool last) {
    InprocStreamClient<v1::UploadRequest, v1::UploadResponse> client(shard_->upload());
    auto stream = client.Open(executor_);
    stream->Start(&handler);
    Frame<v1::UploadRequest> open;
    open.header.mutable_open()->set_token(1);
    stream->Send(std::move(open));
    Run();
    Frame<v1::UploadRequest> chunk;
    chunk.header.mutable_chunk()->set_upload_id(handler.id);
    chunk.header.mutable_chunk()->set_last(last);
    chunk.bodies.emplace_back(std::string(200'000, 'x'));
    stream->Send(std::move(chunk));
    Run();
    EXPECT_EQ(handler.chunks, 1u);
    return stream;
  }
  // The message whose text was sent ahead.
  v1::EnqueueResult::Outcome SendWith(uint64_t upload, const std::string& key = "") {
    injector().edit = [upload](v1::NewMessage& message) { message.set_upload_id(upload); };
    const uint64_t token = injector().Send({"a@x.example"}, "", "", key);
    injector().edit = nullptr;
    Run();
    return injector().outcome(token);
  }
  size_t texts() { return store_.rows(Family::kBodies); }

  Handler handler_;
};

TEST_F(ShardUploadTest, OneThatBreaksOffIsRemoved) {
  auto stream = Upload(handler_, false);
  EXPECT_EQ(texts(), 1u);
  stream.reset();
  Run();
  EXPECT_EQ(texts(), 0u);
}

TEST_F(ShardUploadTest, ARestartRemovesOneThatNoMessageNamed) {
  auto stream = Upload(handler_, true);
  EXPECT_EQ(texts(), 1u);
  stream.reset();
  Kill();
  Open();
  Run(seconds(1));
  EXPECT_EQ(texts(), 0u) << "found by its row";
}

TEST_F(ShardUploadTest, OneThatNoMessageNamesIsRemovedWithoutARestart) {
  auto stream = Upload(handler_, true);
  Run(minutes(9));
  EXPECT_EQ(texts(), 1u) << "its message may be on its way";
  Run(minutes(2));
  EXPECT_EQ(texts(), 0u);
  EXPECT_EQ(SendWith(handler_.id), v1::EnqueueResult::OUTCOME_REFUSED_BUSY);
}

TEST_F(ShardUploadTest, OneThatIsNamedStays) {
  auto stream = Upload(handler_, true);
  EXPECT_EQ(SendWith(handler_.id), v1::EnqueueResult::OUTCOME_QUEUED);
  Run(minutes(20));
  EXPECT_EQ(texts(), 1u);
}

TEST_F(ShardUploadTest, ARefusedMessageTakesItsTextWithIt) {
  auto stream = Upload(handler_, true);
  store_.health().stalling = true;
  Run(seconds(1));
  EXPECT_EQ(SendWith(handler_.id), v1::EnqueueResult::OUTCOME_REFUSED_BUSY);
  EXPECT_EQ(texts(), 0u);
}

TEST_F(ShardUploadTest, ADuplicatesTextIsNotKept) {
  auto stream = Upload(handler_, true);
  EXPECT_EQ(SendWith(handler_.id, "key"), v1::EnqueueResult::OUTCOME_QUEUED);
  Handler again;
  auto second = Upload(again, true);
  EXPECT_EQ(texts(), 2u);
  EXPECT_EQ(SendWith(again.id, "key"), v1::EnqueueResult::OUTCOME_DUPLICATE);
  EXPECT_EQ(texts(), 1u);
}

}  // namespace
}  // namespace sluice::queue
