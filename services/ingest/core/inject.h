// IngestService.Inject and InjectStream: messages by gRPC or by direct call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/rpc/stream.h"
#include "services/base/rpc/unary.h"
#include "services/ingest/core/ingest.h"
#include "sluice/ingest/v1/ingest_service.pb.h"

namespace sluice::ingest {

// By which door a message comes that is not SMTP's.
struct InjectOrigin {
  common::v1::SourceType type = common::v1::SOURCE_TYPE_GRPC;
  std::string protocol = "gRPC";     // in Received
  std::vector<std::string> sources;  // named sources that hold over the network's settings
  std::string client_ip = {};        // where it is known
  // Nobody has vouched for the caller: what its network may do by SMTP it may do here, and no more.
  bool by_network = false;
};

// The settings of the client network 127.0.0.1 hold for callers of this machine and for those that
// the transport has authenticated, those of its own network for everybody else; what the request
// says itself wins over control fields in the header.
// Thread-safety: none; everything on the ingest's executor. Lifetime: the ingest outlives it, and
// it outlives its streams.
class InjectService final
    : public StreamService<v1::InjectStreamRequest, v1::InjectStreamResponse> {
 public:
  // `authenticated`: nobody calls from another machine without a certificate that was verified.
  explicit InjectService(Ingest& ingest, bool authenticated = false);
  ~InjectService() override;

  // Takes one message; `done` runs on the executor, never from within this call. A call whose
  // answer nobody awaits any more goes its way.
  void Inject(v1::InjectRequest request, Done<v1::InjectResponse> done) {
    InjectFrom(InjectOrigin(), std::move(request), std::move(done));
  }
  // Of a caller by gRPC, as gRPC calls it (peer.h).
  InjectOrigin OriginOf(std::string_view peer) const;
  void InjectFrom(InjectOrigin origin, v1::InjectRequest request, Done<v1::InjectResponse> done);

  // InjectStream.
  Executor& executor() override { return ingest_.executor(); }
  void OnStream(std::shared_ptr<ServerStream> stream) override;

 private:
  class Call;
  class StreamSession;

  void Remove(Call* call);
  void Remove(StreamSession* session);

  Ingest& ingest_;
  const bool authenticated_;
  absl::flat_hash_map<Call*, std::unique_ptr<Call>> calls_;
  absl::flat_hash_map<StreamSession*, std::unique_ptr<StreamSession>> sessions_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// Brings text to CR LF line ends, the last line closed. False where it has a NUL or a bare CR.
bool NormalizeLineEnds(std::string_view text, std::string& out);

}  // namespace sluice::ingest
