// The third transport: streams over a network that delays, stalls, breaks, and forgets to tell.
// Within one stream frames keep their order and come once or not at all, as stream.h says; between
// streams nothing is ordered: what a client sent on a stream that it has given up may still arrive,
// long after what it said on the next one, or after its process died. Headers travel serialised, so
// that no end sees what the other changes later; bodies are shared.
#pragma once

#include <algorithm>
#include <deque>
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

// One direction of a connection: what is under way arrives in order. It outlives its sender.
// Lifetime: shared; the world outlives it.
class Pipe : public std::enable_shared_from_this<Pipe> {
 public:
  explicit Pipe(World& world) : world_(world) {}

  // `arrive` runs after `latency`, and after all that was pushed before.
  void Push(Duration latency, World::Task arrive) {
    if (cut_ || sealed_) return;
    last_ = std::max(last_ + Duration(1), world_.now() + latency);
    under_way_.emplace_back(last_, std::move(arrive));
    Arm();
  }
  // Nothing arrives before `until`.
  void Stall(MonotonicTime until) { stalled_until_ = std::max(stalled_until_, until); }
  // What is under way is lost, and all that is pushed from now on.
  void Cut() {
    cut_ = true;
    const auto lost = std::exchange(under_way_, {});
  }
  bool cut() const { return cut_; }
  // Its sender is dead: nothing comes after what is under way.
  void Seal() { sealed_ = true; }

 private:
  void Arm() {
    if (under_way_.empty() || std::exchange(armed_, true)) return;
    world_.At(std::max(under_way_.front().first, stalled_until_), [self = shared_from_this()] {
      self->armed_ = false;
      self->Run();
    });
  }
  void Run() {
    while (!under_way_.empty() && under_way_.front().first <= world_.now() &&
           stalled_until_ <= world_.now()) {
      World::Task arrive = std::move(under_way_.front().second);
      under_way_.pop_front();
      arrive();
    }
    Arm();
  }

  World& world_;
  std::deque<std::pair<MonotonicTime, World::Task>> under_way_;
  MonotonicTime last_{};
  MonotonicTime stalled_until_{};
  bool armed_ = false;
  bool cut_ = false;
  bool sealed_ = false;
};

// What both ends of a stream share.
struct Wire {
  explicit Wire(World& world)
      : up(std::make_shared<Pipe>(world)), down(std::make_shared<Pipe>(world)) {}
  bool cut() const { return up->cut() && down->cut(); }
  void Cut() {
    up->Cut();
    down->Cut();
  }

  Executor* client = nullptr;
  Executor* server = nullptr;
  std::shared_ptr<Pipe> up;    // to the server
  std::shared_ptr<Pipe> down;  // to the client
  // Tell an end, if it is still there, that the stream is over.
  std::function<void(const absl::Status&)> end_client;
  std::function<void(const absl::Status&)> end_server;
};

struct NetworkFaults {
  Duration latency_min = std::chrono::microseconds(50);
  Duration latency_max = std::chrono::milliseconds(2);
  // What is told late is told this late at most.
  Duration late_max = std::chrono::seconds(90);
  // Of new streams, while faults are on: given up by the client before the server hears of them.
  double late_open = 0.05;
};

// Thread-safety: none. Lifetime: the world outlives it; it outlives its streams.
class Network {
 public:
  Network(World& world, const NetworkFaults& faults) : world_(world), faults_(faults) {}
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;
  ~Network() {
    for (const auto& weak : wires_) {
      if (const auto wire = weak.lock()) wire->Cut();
    }
  }

  World& world() { return world_; }
  Duration Latency() { return world_.random().Between(faults_.latency_min, faults_.latency_max); }
  void set_faulty(bool faulty) { faulty_ = faulty; }
  bool faulty() const { return faulty_; }
  Duration Late() { return world_.random().Between(faults_.latency_min, faults_.late_max); }
  void Add(const std::shared_ptr<Wire>& wire) {
    wires_.push_back(wire);
    if (faulty_ && world_.random().Chance(faults_.late_open)) LoseClient(*wire);
  }

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
    Break(*wire, absl::UnavailableError("the connection was lost"), client, server);
    return true;
  }
  // The client loses one connection and goes on with another one; the server gets what was said on
  // the first one late, perhaps after what is said on the second.
  bool LoseOne() {
    const auto wire = Pick();
    if (wire == nullptr) return false;
    LoseClient(*wire);
    return true;
  }
  // Nothing gets through for a while, and then all of it.
  bool StallOne(Duration time) {
    const auto wire = Pick();
    if (wire == nullptr) return false;
    wire->up->Stall(world_.now() + time);
    wire->down->Stall(world_.now() + time);
    return true;
  }
  // Nothing gets from one process to the other, nor back, for a while; neither is told.
  void Isolate(Executor& a, Executor& b, Duration time) {
    const MonotonicTime until = world_.now() + time;
    isolated_[Pair(&a, &b)] = until;
    for (const auto& weak : wires_) {
      const auto wire = weak.lock();
      if (wire == nullptr || Pair(wire->client, wire->server) != Pair(&a, &b)) continue;
      wire->up->Stall(until);
      wire->down->Stall(until);
    }
  }
  bool Isolated(Executor* a, Executor* b) const {
    const auto found = isolated_.find(Pair(a, b));
    return found != isolated_.end() && world_.now() < found->second;
  }
  // A process died: its peers hear of a reset, some of them after what it had said, and late.
  void Kill(Executor& process) {
    for (const auto& weak : std::exchange(wires_, {})) {
      const auto wire = weak.lock();
      if (wire == nullptr || wire->cut()) continue;
      const bool is_client = wire->client == &process;
      if (!is_client && wire->server != &process) {
        wires_.push_back(weak);
        continue;
      }
      const absl::Status status = absl::UnavailableError("the peer died");
      const auto& lives_on = is_client ? wire->up : wire->down;
      (is_client ? wire->down : wire->up)->Cut();
      lives_on->Seal();
      Duration hears = Latency();
      if (!faulty_ || world_.random().Chance(0.5)) {
        lives_on->Cut();
      } else if (is_client && world_.random().Chance(0.3)) {
        const Duration late = Late();
        lives_on->Stall(world_.now() + late);
        hears += late;
      }
      wires_.push_back(weak);
      world_.At(world_.now() + hears, [wire, lives_on, is_client, status] {
        lives_on->Cut();
        (is_client ? wire->end_server : wire->end_client)(status);
      });
    }
  }
  // Ends both; each hears of it after its own delay. A dead process hears nothing.
  void Break(Wire& wire, const absl::Status& status, Duration client_hears, Duration server_hears) {
    if (wire.cut()) return;
    wire.Cut();
    world_.At(world_.now() + client_hears, [end = wire.end_client, status] { end(status); });
    world_.At(world_.now() + server_hears, [end = wire.end_server, status] { end(status); });
  }

 private:
  void LoseClient(Wire& wire) {
    const absl::Status status = absl::UnavailableError("the connection was lost");
    const Duration late = Late();
    const Duration hears = world_.random().Between(Duration(0), late);
    wire.down->Cut();
    wire.up->Stall(world_.now() + late);
    const bool told = world_.random().Chance(0.5);  // or by keepalive
    const Duration notices = told ? Latency() : late + Late();
    world_.At(world_.now() + hears, [up = wire.up, end_client = wire.end_client,
                                     end_server = wire.end_server, status, notices] {
      end_client(status);
      up->Push(notices, [pipe = up.get(), end_server, status] {
        pipe->Cut();
        end_server(status);
      });
    });
  }

  std::shared_ptr<Wire> Pick() {
    std::erase_if(wires_, [](const auto& weak) {
      const auto wire = weak.lock();
      return wire == nullptr || wire->cut();
    });
    if (wires_.empty()) return nullptr;
    return wires_[world_.random().Below(wires_.size())].lock();
  }

  static std::pair<Executor*, Executor*> Pair(Executor* a, Executor* b) {
    return std::less<>()(a, b) ? std::pair(a, b) : std::pair(b, a);
  }

  World& world_;
  const NetworkFaults faults_;
  bool faulty_ = false;
  std::map<std::pair<Executor*, Executor*>, MonotonicTime> isolated_;
  std::vector<std::weak_ptr<Wire>> wires_;
};

template <class Out, class In>
class SimEnd final : public Stream<Out, In>, public std::enable_shared_from_this<SimEnd<Out, In>> {
 public:
  using Handler = typename Stream<Out, In>::Handler;
  using Peer = SimEnd<In, Out>;
  using Tap = std::function<void(const Out&)>;

  SimEnd(Network& network, Executor& executor, std::shared_ptr<Wire> wire,
         std::shared_ptr<Pipe> out, Tap tap)
      : network_(network),
        executor_(executor),
        wire_(std::move(wire)),
        out_(std::move(out)),
        tap_(std::move(tap)) {}
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
    if (out_->cut()) return true;  // nobody has told us yet
    auto text = std::make_shared<std::string>(frame.header.SerializeAsString());
    size_t size = text->size();
    for (const Body& body : frame.bodies) size += body.size();
    queued_ += size;
    if (queued_ > kStreamHardLimitBytes) {
      Break(absl::ResourceExhaustedError("the stream's queue is full: the peer does not read"));
      return false;
    }
    out_->Push(network_.Latency(), [weak = this->weak_from_this(), peer = peer_, text, size,
                                    bodies = std::move(frame.bodies)]() mutable {
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
    network_.world().At(network_.world().now() + network_.Latency(),
                        [weak = this->weak_from_this(), status = std::move(status)] {
                          if (const auto self = weak.lock()) self->End(self, status);
                        });
  }
  void Cancel() override {
    if (!finished_) Break(absl::CancelledError("the stream was cancelled"));
  }
  size_t queued_bytes() const override { return queued_; }
  std::string peer() const override { return "simulated"; }

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

 private:
  void TellPeer(absl::Status status) {
    out_->Push(network_.Latency(), [peer = peer_, status = std::move(status)]() mutable {
      if (const auto other = peer.lock()) other->End(other, std::move(status));
    });
  }
  void Break(const absl::Status& status) {
    closed_ = true;
    const bool client = out_ == wire_->up;
    const Duration peer_hears = network_.Latency();
    network_.Break(*wire_, status, client ? Duration(0) : peer_hears,
                   client ? peer_hears : Duration(0));
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
  std::shared_ptr<Pipe> out_;
  Tap tap_;
  std::weak_ptr<Peer> peer_;
  Handler* handler_ = nullptr;
  std::vector<Frame<In>> arrived_;
  std::unique_ptr<absl::Status> ending_;
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
    auto wire = std::make_shared<Wire>(network_.world());
    wire->client = &executor;
    wire->server = &server_;
    using Client = SimEnd<Request, Response>;
    using Server = SimEnd<Response, Request>;
    auto client = std::make_shared<Client>(network_, executor, wire, wire->up, nullptr);
    auto server = std::make_shared<Server>(network_, server_, wire, wire->down, tap_);
    client->set_peer(server);
    server->set_peer(client);
    wire->end_client = [weak = std::weak_ptr<Client>(client)](const absl::Status& status) {
      if (const auto end = weak.lock()) end->End(end, status);
    };
    wire->end_server = [weak = std::weak_ptr<Server>(server)](const absl::Status& status) {
      if (const auto end = weak.lock()) end->End(end, status);
    };
    network_.Add(wire);
    wire->up->Push(network_.Latency(), [this, wire, server = std::move(server)]() mutable {
      Service* service = find_();
      if (service == nullptr || network_.Isolated(wire->client, wire->server)) {
        network_.Break(*wire, absl::UnavailableError("nobody listens"), network_.Latency(),
                       Duration(0));
        return;
      }
      server_.Post([this, wire, server = std::move(server)]() mutable {
        Service* now = find_();
        if (now != nullptr && !wire->up->cut()) now->OnStream(std::move(server));
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
