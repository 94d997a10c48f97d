// Large bodies: chunks written ahead of the message that names them, and read by workers.
#include <algorithm>

#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {
constexpr uint32_t kMaxChunks = 16'384;  // 4 GiB
constexpr uint32_t kMaxChunksPerFetch = 2;
// How long a finished body waits for the message that names it: its ingest may be gone.
constexpr Duration kWaitForMessage = std::chrono::minutes(10);
}  // namespace

void Shard::UploadSession::OnClosed(absl::Status) {
  *self = nullptr;
  std::vector<uint64_t> mine;
  for (const auto& [id, upload] : shard.uploads_) {
    if (upload.session == this && !upload.complete) mine.push_back(id);
  }
  for (uint64_t id : mine) shard.AbortUpload(id);
  // A finished upload may still be named by an enqueue that is under way on another stream.
  for (auto& [id, upload] : shard.uploads_) {
    if (upload.session == this) upload.session = nullptr;
  }
  shard.upload_sessions_.remove_if([this](const auto& each) { return each.get() == this; });
}

void Shard::AbortUpload(uint64_t id) {
  const auto found = uploads_.find(id);
  if (found == uploads_.end()) return;
  const uint64_t key = found->second.storage_key;
  journal_.batch().DeleteRange(Family::kBodies, U64Key(key), U64Key(key + 1));
  journal_.batch().Delete(Family::kMeta, UploadRowKey(key));
  uploads_.erase(found);
}

void Shard::DropUnnamedUploads() {
  const MonotonicTime now = executor_.clock().Now();
  std::vector<uint64_t> old;
  for (const auto& [id, upload] : uploads_) {
    if (upload.complete && now >= upload.finished + kWaitForMessage) old.push_back(id);
  }
  for (uint64_t id : old) AbortUpload(id);
}

void Shard::OnUpload(UploadSession& session, Frame<v1::UploadRequest> frame) {
  v1::UploadRequest& request = frame.header;
  auto answer = [&session](v1::UploadResponse response) {
    Frame<v1::UploadResponse> out;
    out.header = std::move(response);
    session.stream->Send(std::move(out));
  };
  if (request.has_open()) {
    v1::UploadResponse response;
    response.mutable_opened()->set_token(request.open().token());
    std::string detail;
    if (Refusal(&detail) != v1::EnqueueResult::OUTCOME_UNSPECIFIED) {
      response.mutable_opened()->set_detail(detail);
    } else {
      const uint64_t key = NextStorageKey();
      uploads_[key] = Upload{key, 0, false, {}, &session};
      v1::UploadRow row;
      row.set_started_us(NowUs());
      journal_.batch().Put(Family::kMeta, UploadRowKey(key), row.SerializeAsString());
      response.mutable_opened()->set_upload_id(key);
    }
    answer(std::move(response));
    return;
  }
  if (request.has_abort()) {
    AbortUpload(request.abort().upload_id());
    return;
  }
  if (!request.has_chunk()) return;
  const uint64_t id = request.chunk().upload_id();
  const auto found = uploads_.find(id);
  std::string problem;
  if (found == uploads_.end() || found->second.complete) {
    problem = "no such upload is open";
  } else if (request.chunk().index() != found->second.chunks) {
    problem = "chunks must come in order, each once";
  } else if (frame.bodies.size() != 1 || frame.bodies[0].size() > kMaxInlineBodyBytes ||
             request.chunk().index() >= kMaxChunks) {
    problem = "a chunk frame carries one body of at most 256 KiB, and an upload at most 4 GiB";
  }
  if (!problem.empty()) {
    v1::UploadResponse response;
    response.mutable_progress()->set_upload_id(id);
    response.mutable_progress()->set_failed(true);
    response.mutable_progress()->set_detail(problem);
    answer(std::move(response));
    return;
  }
  Upload& upload = found->second;
  journal_.batch().Put(Family::kBodies, BodyChunkKey(upload.storage_key, upload.chunks),
                       frame.bodies[0].view());
  bytes_since_health_ += frame.bodies[0].size();
  ++upload.chunks;
  upload.complete = request.chunk().last();
  if (upload.complete) upload.finished = executor_.clock().Now();
  journal_.WhenDurable([weak = std::weak_ptr<UploadSession*>(session.self), id,
                        chunks = upload.chunks](const absl::Status& status) {
    const auto session = weak.lock();
    if (session == nullptr || *session == nullptr) return;
    Frame<v1::UploadResponse> out;
    v1::UploadProgress* progress = out.header.mutable_progress();
    progress->set_upload_id(id);
    progress->set_chunks(chunks);
    progress->set_failed(!status.ok());
    (*session)->stream->Send(std::move(out));
  });
}

void Shard::OnFetch(FetchSession& session, Frame<v1::FetchBodyRequest> frame) {
  const v1::FetchBodyRequest& request = frame.header;
  const uint32_t count = std::min(std::max<uint32_t>(1, request.count()), kMaxChunksPerFetch);
  for (uint32_t i = 0; i < count; ++i) {
    Frame<v1::FetchBodyResponse> out;
    out.header.set_token(request.token());
    out.header.set_chunk(request.first_chunk() + i);
    std::string chunk;
    if (store_
            .Get(Family::kBodies, BodyChunkKey(request.large_body_id(), request.first_chunk() + i),
                 &chunk)
            .ok()) {
      out.bodies.emplace_back(std::move(chunk));
    } else {
      out.header.set_missing(true);
      out.header.set_detail("no such chunk: the message is gone, or its lease was taken back");
    }
    session.stream->Send(std::move(out));
  }
}

}  // namespace sluice::queue
