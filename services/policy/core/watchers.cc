#include "services/policy/core/watchers.h"

#include <algorithm>

#include "services/config/snapshot_delta.h"
#include "services/config/snapshot_hash.h"

namespace sluice::policy {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr size_t kHistory = 8;
// A snapshot larger than this is not kept for differences.
constexpr size_t kHistorySections = 200'000;
constexpr size_t kMaxGone = 1'000;

}  // namespace

class Watchers::Session final : public ServerStream::Handler {
 public:
  Session(Watchers& watchers, std::shared_ptr<ServerStream> stream)
      : watchers_(watchers), stream_(std::move(stream)) {}

  void Start() { stream_->Start(this); }

  void OnFrame(Frame<v1::WatchPolicyRequest> frame) override {
    v1::WatchPolicyRequest& request = frame.header;
    if (request.has_hello() == said_hello_) {
      return stream_->Close(absl::InvalidArgumentError("hello comes first, and once"));
    }
    if (request.has_hello()) {
      OnHello(request.hello());
    } else if (request.has_ack()) {
      acked_ = request.ack().version();
      watchers_.Acknowledged(this, request.ack());
    } else if (request.has_report()) {
      OnReport(std::move(*request.mutable_report()));
    }
  }
  void OnWritable() override { SendSome(); }
  void OnClosed(absl::Status) override { watchers_.Forget(this); }

  bool said_hello() const { return said_hello_; }
  uint64_t acked() const { return acked_; }
  const Key& key() const { return key_; }

  // Sends what leads from `base`, which the service has, to the current snapshot.
  void SendFrom(const v1::PolicySnapshot& base) {
    auto chunks = config::SplitDelta(config::MakeDelta(base, watchers_.current_), kChunkBytes);
    for (size_t i = 0; i < chunks.size(); ++i) {
      Frame<v1::WatchPolicyResponse> frame;
      *frame.header.mutable_delta() = std::move(chunks[i]);
      frame.header.set_last_chunk(i + 1 == chunks.size());
      waiting_.push_back(std::move(frame));
    }
    sent_version_ = watchers_.current_.version();
    SendSome();
  }
  void SendOwners() {
    if (watchers_.current_.owners().epoch() == 0) return;
    Frame<v1::WatchPolicyResponse> frame;
    *frame.header.mutable_owners() = watchers_.current_.owners();
    waiting_.push_back(std::move(frame));
    SendSome();
  }
  uint64_t sent_version() const { return sent_version_; }

 private:
  void OnHello(const v1::WatcherHello& hello) {
    said_hello_ = true;
    key_ = {hello.service(), hello.instance()};
    WatcherState& state = watchers_.states_[key_];
    state.service = hello.service();
    state.instance = hello.instance();
    state.address = hello.address();
    state.hello = hello;
    state.connected = true;
    state.error.clear();
    state.acked_version = hello.have_version();
    if (hello.have_version() > watchers_.current_.version() && watchers_.on_newer_ != nullptr) {
      watchers_.on_newer_(hello.have_version());
    }
    if (hello.service() == "queue" && watchers_.on_shard_hello_ != nullptr) {
      watchers_.on_shard_hello_(hello.instance(), hello.keeps_owners());
    }
    // on_newer_ may have published a version, which this session has then been sent.
    if (sent_version_ != watchers_.current_.version()) SendFrom(BaseOf(hello));
    SendOwners();
  }

  void OnReport(v1::ServiceReport report) {
    std::optional<v1::SourceLease> lease;
    if (key_.first == "delivery" && watchers_.on_report_ != nullptr) {
      lease = watchers_.on_report_(key_.second, report);
    }
    if (key_.first == "queue" && watchers_.on_shard_report_ != nullptr) {
      watchers_.on_shard_report_(report);
    }
    watchers_.states_[key_].report = std::move(report);
    if (!lease) return;
    Frame<v1::WatchPolicyResponse> frame;
    *frame.header.mutable_lease() = *std::move(lease);
    waiting_.push_back(std::move(frame));
    SendSome();
  }

  const v1::PolicySnapshot& BaseOf(const v1::WatcherHello& hello) const {
    static const auto* const nothing = new v1::PolicySnapshot;
    if (hello.have_version() == 0 || hello.have_sections_hash() == 0) return *nothing;
    const auto is_it = [&](const v1::PolicySnapshot& snapshot) {
      return snapshot.version() == hello.have_version() &&
             config::SectionsHash(snapshot) == hello.have_sections_hash();
    };
    if (is_it(watchers_.current_)) return watchers_.current_;
    for (const v1::PolicySnapshot& snapshot : watchers_.history_) {
      if (is_it(snapshot)) return snapshot;
    }
    return *nothing;
  }

  void SendSome() {
    while (!waiting_.empty()) {
      Frame<v1::WatchPolicyResponse> frame = std::move(waiting_.front());
      waiting_.pop_front();
      if (!stream_->Send(std::move(frame))) return;
    }
  }

  Watchers& watchers_;
  const std::shared_ptr<ServerStream> stream_;
  bool said_hello_ = false;
  Key key_;
  uint64_t acked_ = 0;
  uint64_t sent_version_ = 0;
  std::deque<Frame<v1::WatchPolicyResponse>> waiting_;
};

Watchers::Watchers(Executor& executor, const v1::PolicySnapshot& current)
    : executor_(executor), current_(current) {}

Watchers::~Watchers() {
  for (auto& [id, waiter] : waiters_) executor_.Cancel(waiter.timer);
}

void Watchers::OnStream(std::shared_ptr<ServerStream> stream) {
  sessions_.push_back(std::make_unique<Session>(*this, std::move(stream)));
  sessions_.back()->Start();
}

void Watchers::Changed(const v1::PolicySnapshot& before) {
  if (before.sections_size() <= static_cast<int>(kHistorySections)) history_.push_front(before);
  if (history_.size() > kHistory) history_.pop_back();
  for (const auto& session : sessions_) {
    if (!session->said_hello()) continue;
    static const auto* const nothing = new v1::PolicySnapshot;
    session->SendFrom(session->sent_version() == before.version() ? before : *nothing);
  }
}

void Watchers::OwnersChanged() {
  for (const auto& session : sessions_) {
    if (session->said_hello()) session->SendOwners();
  }
}

std::vector<WatcherState> Watchers::states() const {
  std::vector<WatcherState> states;
  for (const auto& [key, state] : states_) states.push_back(state);
  return states;
}

void Watchers::Forget(Session* session) {
  const auto found = std::find_if(sessions_.begin(), sessions_.end(),
                                  [&](const auto& other) { return other.get() == session; });
  const std::unique_ptr<Session> gone = std::move(*found);
  sessions_.erase(found);
  if (!gone->said_hello()) return;
  // The service may have come back on another stream before this one was seen to end.
  const bool again = std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& other) {
    return other->said_hello() && other->key() == gone->key();
  });
  if (!again) {
    states_[gone->key()].connected = false;
    if (gone->key().first == "delivery" && on_worker_gone_ != nullptr) {
      on_worker_gone_(gone->key().second);
    }
    if (gone->key().first == "queue" && on_shard_gone_ != nullptr) {
      on_shard_gone_(gone->key().second);
    }
  }
  size_t gone_count = 0;
  for (auto it = states_.begin(); it != states_.end();) {
    const bool drop = !it->second.connected && ++gone_count > kMaxGone;
    it = drop ? states_.erase(it) : std::next(it);
  }
  CallWaiters();
}

void Watchers::Acknowledged(Session* session, const v1::SnapshotAck& ack) {
  WatcherState& state = states_[session->key()];
  state.error = ack.error();
  if (ack.error().empty()) state.acked_version = ack.version();
  CallWaiters();
}

bool Watchers::AllHave(uint64_t version) const {
  const auto has = [version](const auto& session) { return session->acked() >= version; };
  return std::all_of(sessions_.begin(), sessions_.end(), [&](const auto& session) {
    if (!session->said_hello() || has(session)) return true;
    // A stream that its service has given up is never answered; a later one of it was.
    return std::any_of(sessions_.begin(), sessions_.end(), [&](const auto& other) {
      return other->said_hello() && other->key() == session->key() && has(other);
    });
  });
}

void Watchers::WhenAcknowledged(uint64_t version, Duration timeout,
                                absl::AnyInvocable<void()> done) {
  const uint64_t id = ++last_waiter_;
  const TimerId timer = executor_.After(timeout, [this, id] {
    auto node = waiters_.extract(id);
    node.mapped().done();
  });
  waiters_.emplace(id, Waiter{version, std::move(done), timer});
  CallWaiters();
}

void Watchers::CallWaiters() {
  std::vector<absl::AnyInvocable<void()>> ready;
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (!AllHave(it->second.version)) {
      ++it;
      continue;
    }
    executor_.Cancel(it->second.timer);
    ready.push_back(std::move(it->second.done));
    it = waiters_.erase(it);
  }
  for (auto& done : ready) done();
}

}  // namespace sluice::policy
