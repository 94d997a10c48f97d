// A two-way stream of frames between services: the one asynchronous interface that every service
// contract is built on. Two transports implement it, direct calls in one process (inproc_stream.h)
// and gRPC (grpc_stream.h); the contract suite (stream_contract.h) holds both to the comments here,
// and the simulation brings a third one with faults.
//
// A frame is a proto header plus message bodies that are shared, not copied. On gRPC's wire the
// bodies are the repeated bytes field 15 of the header's own proto, written last.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/base/body.h"
#include "services/base/executor.h"

namespace sluice {

template <class Header>
struct Frame {
  Header header;
  std::vector<Body> bodies;
};

// Bounds of one direction of one stream, in bytes of header and bodies.
inline constexpr size_t kStreamHighWaterBytes = 4 * 1024 * 1024;
inline constexpr size_t kStreamLowWaterBytes = 1 * 1024 * 1024;
inline constexpr size_t kStreamHardLimitBytes = 64 * 1024 * 1024;

// One end of a stream that sends Out and receives In.
// Thread-safety: everything is called, and calls back, on the executor that the end was opened
// with. Lifetime: shared; a stream that is dropped without Close behaves as if closed with
// CANCELLED.
template <class Out, class In>
class Stream {
 public:
  // Order of calls: OnFrame and OnWritable any number of times, then OnClosed exactly once, nothing
  // after it. Never from inside Start, Send or Close.
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void OnFrame(Frame<In> frame) = 0;
    // Serving side only: the client has closed with OK. It sends nothing more, and takes what it is
    // still owed. True: this handler answers, and then calls Close itself. False: the stream closes
    // with OK, after what is queued now was sent.
    virtual bool OnClientDone() { return false; }
    // What was queued fell below kStreamLowWaterBytes after Send had returned false.
    virtual void OnWritable() {}
    // The stream is over: OK where the peer closed in good order, UNAVAILABLE where the connection
    // was lost, otherwise the peer's status. Frames that were sent and not answered may or may not
    // have arrived.
    virtual void OnClosed(absl::Status status) = 0;
  };

  virtual ~Stream() = default;

  // Begins delivery of events. Called once, before anything else. `handler` stays alive until
  // OnClosed, or until the stream is dropped.
  virtual void Start(Handler* handler) = 0;

  // Queues a frame; frames arrive in order, once, or not at all. False where more than
  // kStreamHighWaterBytes are now queued: the frame is taken all the same, and the caller should
  // wait for OnWritable. Past kStreamHardLimitBytes the stream closes with RESOURCE_EXHAUSTED.
  // After Close or OnClosed a frame is dropped.
  virtual bool Send(Frame<Out> frame) = 0;

  // Ends the stream after what is queued was sent; the peer's OnClosed gets `status`, ours follows
  // with the same. OK from the calling side ends its own direction only (gRPC's WritesDone): frames
  // come until the server has closed, with the server's status.
  virtual void Close(absl::Status status) = 0;

  // Ends the stream now, dropping what is queued; both ends get CANCELLED.
  virtual void Cancel() = 0;

  virtual size_t queued_bytes() const = 0;

  // For logs: "inproc" or the peer's address.
  virtual std::string peer() const = 0;
};

// The calling side of one stream RPC.
template <class Request, class Response>
class StreamClient {
 public:
  using ClientStream = Stream<Request, Response>;
  virtual ~StreamClient() = default;
  // Never fails: a stream that cannot be opened says so by OnClosed(UNAVAILABLE). `executor` runs
  // the handler.
  virtual std::shared_ptr<ClientStream> Open(Executor& executor) = 0;
};

// The serving side of one stream RPC. OnStream is called on executor(); it keeps the stream and
// calls Start.
template <class Request, class Response>
class StreamService {
 public:
  using ServerStream = Stream<Response, Request>;
  virtual ~StreamService() = default;
  virtual Executor& executor() = 0;
  virtual void OnStream(std::shared_ptr<ServerStream> stream) = 0;
};

}  // namespace sluice
