// The third transport: streams over a network that delays, stalls, breaks, and forgets to tell.
// Within one stream frames keep their order and come once or not at all, as stream.h says; between
// streams nothing is ordered. Headers travel serialised, so that no end sees what the other changes
// later; bodies are shared.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/check.h"
#include "services/base/rpc/stream.h"
#include "tests/simulation/world.h"

namespace sluice::simulation {

// What both ends of a stream share.
struct Wire {
  Executor* client = nullptr;
  Executor* server = nullptr;
  bool cut = false;
  MonotonicTime stalled_until{};
  // Ends both; each hears of it after its own delay. A dead process hears nothing.
  std::function<void(absl::Status, Duration client_hears, Duration server_hears)> on_cut;
};

struct NetworkFaults {
  Duration latency_min = std::chrono::microseconds(50);
  Duration latency_max = std::chrono::milliseconds(2);
};

// Thread-safety: none. Lifetime: the world outlives it; it outlives its streams.
class Network {
 public:
  Network(World& world, const NetworkFaults& faults) : world_(world), faults_(faults) {}

  World& world() { return world_; }
  Duration Latency() { return world_.random().Between(faults_.latency_min, faults_.latency_max); }
  void Add(const std::shared_ptr<Wire>& wire) { wires_.push_back(wire); }

  // Breaks one connection of those that stand. What is under way is lost. False: there is none.
  bool CutOne() {
    const auto wire = Pick();
    if (wire == nullptr) return false;
    Random& random = world_.random();
    // A peer that vanished is noticed by keepalive, much later than a reset.
    const auto hears = [&random] {
      return random.Chance(0.7) ? random.Between(Duration(0), std::chrono::milliseconds(5))
                                : random.Between(Duration(0), std::chrono::seconds(40));
    };
    const Duration client = hears();
    const Duration server = hears();
    wire->on_cut(absl::UnavailableError("the connection was lost"), client, server);
    return true;
  }
  // Nothing gets through for a while, and then all of it.
  bool StallOne(Duration time) {
    const auto wire = Pick();
    if (wire == nullptr) return false;
    wire->stalled_until = world_.now() + time;
    return true;
  }
  // Nothing gets from one process to the other, nor back, for a while; neither is told.
  void Isolate(Executor& a, Executor& b, Duration time) {
    const MonotonicTime until = world_.now() + time;
    isolated_[Pair(&a, &b)] = until;
    for (const auto& weak : wires_) {
      const auto wire = weak.lock();
      if (wire == nullptr || wire->cut || Pair(wire->client, wire->server) != Pair(&a, &b))
        continue;
      wire->stalled_until = std::max(wire->stalled_until, until);
    }
  }
  bool Isolated(Executor* a, Executor* b) const {
    const auto found = isolated_.find(Pair(a, b));
    return found != isolated_.end() && world_.now() < found->second;
  }
  // A process died: its peers hear of a reset.
  void Kill(Executor& process) {
    for (const auto& weak : std::exchange(wires_, {})) {
      const auto wire = weak.lock();
      if (wire == nullptr || wire->cut) continue;
      if (wire->client == &process || wire->server == &process) {
        wire->on_cut(absl::UnavailableError("the peer died"), Latency(), Latency());
      } else {
        wires_.push_back(weak);
      }
    }
  }

 private:
  std::shared_ptr<Wire> Pick() {
    std::erase_if(wires_, [](const auto& weak) {
      const auto wire = weak.lock();
      return wire == nullptr || wire->cut;
    });
    if (wires_.empty()) return nullptr;
    return wires_[world_.random().Below(wires_.size())].lock();
  }

  static std::pair<Executor*, Executor*> Pair(Executor* a, Executor* b) {
    return std::less<>()(a, b) ? std::pair(a, b) : std::pair(b, a);
  }

  World& world_;
  const NetworkFaults faults_;
  std::map<std::pair<Executor*, Executor*>, MonotonicTime> isolated_;
  std::vector<std::weak_ptr<Wire>> wires_;
};

template <class Out, class In>
class SimEnd final : public Stream<Out, In>, public std::enable_shared_from_this<SimEnd<Out, In>> {
 public:
  using Handler = typename Stream<Out, In>::Handler;
  using Peer = SimEnd<In, Out>;
  using Tap = std::function<void(const Out&)>;

  SimEnd(Network& network, Executor& executor, std::shared_ptr<Wire> wire, Tap tap)
      : network_(network), executor_(executor), wire_(std::move(wire)), tap_(std::move(tap)) {}
  ~SimEnd() override {
    if (!finished_ && !closed_) TellPeer(absl::CancelledError("the other end dropped the stream"));
  }

  void set_peer(std::weak_ptr<Peer> peer) { peer_ = std::move(peer); }

  void Start(Handler* handler) override {
    SLUICE_CHECK(handler_ == nullptr);
    handler_ = handler;
    executor_.Post([weak = this->weak_from_this()] {
      const auto self = weak.lock();
      if (self == nullptr) return;
      self->started_ = true;
      self->Drain(self);
    });
  }

  bool Send(Frame<Out> frame) override {
    if (finished_ || closed_) return true;
    if (tap_) tap_(frame.header);
    if (wire_->cut) return true;  // nobody has told us yet
    auto text = std::make_shared<std::string>(frame.header.SerializeAsString());
    size_t size = text->size();
    for (const Body& body : frame.bodies) size += body.size();
    queued_ += size;
    if (queued_ > kStreamHardLimitBytes) {
      Break(absl::ResourceExhaustedError("the stream's queue is full: the peer does not read"));
      return false;
    }
    network_.world().At(NextArrival(), [wire = wire_, weak = this->weak_from_this(), peer = peer_,
                                        text, size, bodies = std::move(frame.bodies)]() mutable {
      if (wire->cut) return;
      if (const auto self = weak.lock()) self->Arrived(size);
      const auto other = peer.lock();
      if (other == nullptr) return;
      Frame<Out> copy;
      SLUICE_CHECK(copy.header.ParseFromString(*text));
      copy.bodies = std::move(bodies);
      other->Take(std::move(copy));
    });
    waits_ |= queued_ > kStreamHighWaterBytes;
    return queued_ <= kStreamHighWaterBytes;
  }

  void Close(absl::Status status) override {
    if (finished_ || closed_) return;
    closed_ = true;
    TellPeer(status);
    FinishAt(NextArrival(), std::move(status));
  }
  void Cancel() override {
    if (!finished_) Break(absl::CancelledError("the stream was cancelled"));
  }
  size_t queued_bytes() const override { return queued_; }
  std::string peer() const override { return "simulated"; }

  // Ends this end after what came before; from any event.
  void FinishAt(MonotonicTime when, absl::Status status) {
    network_.world().At(when, [weak = this->weak_from_this(), status = std::move(status)] {
      if (const auto self = weak.lock()) self->End(self, status);
    });
  }
  void Take(Frame<In> frame) {
    if (finished_ || ending_) return;
    arrived_.push_back(std::move(frame));
    if (std::exchange(draining_, true)) return;
    executor_.Post([weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->Drain(self);
    });
  }
  // The peer has ended the stream.
  void End(const std::shared_ptr<SimEnd>& self, absl::Status status) {
    if (finished_ || ending_) return;
    ending_ = std::make_unique<absl::Status>(std::move(status));
    if (std::exchange(draining_, true)) return;
    executor_.Post([weak = self->weak_from_this()] {
      if (const auto end = weak.lock()) end->Drain(end);
    });
  }
  MonotonicTime NextArrival() {
    last_arrival_ = std::max({last_arrival_ + Duration(1),
                              network_.world().now() + network_.Latency(), wire_->stalled_until});
    return last_arrival_;
  }

 private:
  void TellPeer(absl::Status status) {
    if (wire_->cut) return;
    network_.world().At(NextArrival(),
                        [wire = wire_, peer = peer_, status = std::move(status)]() mutable {
                          const auto other = peer.lock();
                          if (other != nullptr && !wire->cut) other->End(other, std::move(status));
                        });
  }
  void Break(const absl::Status& status) {
    closed_ = true;
    wire_->on_cut(status, Duration(0), network_.Latency());
  }
  void Arrived(size_t size) {
    queued_ -= size;
    if (!waits_ || queued_ >= kStreamLowWaterBytes) return;
    waits_ = false;
    executor_.Post([weak = this->weak_from_this()] {
      const auto self = weak.lock();
      if (self != nullptr && !self->finished_ && !self->closed_) self->handler_->OnWritable();
    });
  }
  void Drain(const std::shared_ptr<SimEnd>& self) {
    draining_ = false;
    if (!started_ || finished_) return;
    auto frames = std::exchange(arrived_, {});
    for (Frame<In>& frame : frames) {
      if (finished_) return;
      handler_->OnFrame(std::move(frame));
      if (self.use_count() == 1) return;
    }
    if (ending_ == nullptr || finished_) return;
    finished_ = true;
    handler_->OnClosed(*ending_);
  }

  Network& network_;
  Executor& executor_;
  std::shared_ptr<Wire> wire_;
  Tap tap_;
  std::weak_ptr<Peer> peer_;
  Handler* handler_ = nullptr;
  std::vector<Frame<In>> arrived_;
  std::unique_ptr<absl::Status> ending_;
  MonotonicTime last_arrival_{};
  size_t queued_ = 0;
  bool started_ = false;
  bool waits_ = false;
  bool draining_ = false;
  bool closed_ = false;
  bool finished_ = false;
};

// Opens streams to whatever serves at the moment. Lifetime: `server` and `network` outlive it.
template <class Request, class Response>
class SimStreamClient final : public StreamClient<Request, Response> {
 public:
  using Service = StreamService<Request, Response>;
  using Tap = std::function<void(const Response&)>;

  // `find`: nullptr while the server is down. `tap` sees what the server sends, as it sends it.
  SimStreamClient(Network& network, Executor& server, std::function<Service*()> find, Tap tap = {})
      : network_(network), server_(server), find_(std::move(find)), tap_(std::move(tap)) {}

  std::shared_ptr<Stream<Request, Response>> Open(Executor& executor) override {
    auto wire = std::make_shared<Wire>();
    wire->client = &executor;
    wire->server = &server_;
    using Client = SimEnd<Request, Response>;
    using Server = SimEnd<Response, Request>;
    auto client = std::make_shared<Client>(network_, executor, wire, nullptr);
    auto server = std::make_shared<Server>(network_, server_, wire, tap_);
    client->set_peer(server);
    server->set_peer(client);
    wire->on_cut = [wire = wire.get(), c = std::weak_ptr<Client>(client),
                    s = std::weak_ptr<Server>(server), &world = network_.world()](
                       absl::Status status, Duration client_hears, Duration server_hears) {
      if (std::exchange(wire->cut, true)) return;
      if (auto end = c.lock()) end->FinishAt(world.now() + client_hears, status);
      if (auto end = s.lock()) end->FinishAt(world.now() + server_hears, status);
    };
    network_.Add(wire);
    network_.world().At(client->NextArrival(), [this, wire, server = std::move(server)]() mutable {
      if (wire->cut) return;
      Service* service = find_();
      if (service == nullptr || network_.Isolated(wire->client, wire->server)) {
        wire->on_cut(absl::UnavailableError("nobody listens"), network_.Latency(), Duration(0));
        return;
      }
      server_.Post([this, wire, server = std::move(server)]() mutable {
        Service* now = find_();
        if (now != nullptr && !wire->cut) now->OnStream(std::move(server));
      });
    });
    return client;
  }

 private:
  Network& network_;
  Executor& server_;
  std::function<Service*()> find_;
  Tap tap_;
};

}  // namespace sluice::simulation
