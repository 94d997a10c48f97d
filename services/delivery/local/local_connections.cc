#include "services/delivery/local/local_connections.h"

#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/delivery/local/local_job.h"

namespace sluice::delivery {

class LocalConnections::End final : public Connection {
 public:
  End(LocalConnections& owner, const ConnectTarget& target, ConnectionHandler* handler)
      : owner_(owner), target_(target), handler_(handler) {
    Later([this] { handler_->OnReady(); });
  }
  ~End() override {
    *alive_ = false;
    cancelled_->store(true, std::memory_order_relaxed);
    std::erase(owner_.waiting_, this);
    // What runs gives its room back when it ends.
    if (reading_) owner_.GiveRoom(size_);
  }

  void Send(Transaction transaction) override {
    given_.push_back(std::move(transaction));
    Pump();
  }
  void Quit() override {
    quitting_ = true;
    Pump();
  }

  // There may be room now.
  void Pump() {
    if (busy_) return;
    if (given_.empty()) {
      if (!std::exchange(closed_, quitting_ || closed_) && closed_) {
        Later([this] { handler_->OnClosed({.reply = {}, .ready = true}); });
      }
      return;
    }
    size_ = given_.front().lease->message().body_size();
    if (!owner_.TakeRoom(this, size_)) return;
    busy_ = true;
    reading_ = true;
    began_ = owner_.executor_.clock().Now();
    work_ = std::move(given_.front());
    given_.pop_front();
    body_.clear();
    if (work_.chunks == nullptr) {
      body_.push_back(work_.body);
      // Not inside the worker's call.
      Later([this] { Start(); });
    } else {
      Fetch();
    }
  }

 private:
  template <class Task>
  void Later(Task task) {
    owner_.executor_.Post([alive = alive_, task = std::move(task)]() mutable {
      if (*alive) task();
    });
  }

  void Fetch() {
    if (body_.size() == work_.lease->chunk_count()) return Start();
    work_.chunks->Fetch(static_cast<uint32_t>(body_.size()), [this](absl::StatusOr<Body> chunk) {
      if (chunk.ok()) {
        body_.push_back(*std::move(chunk));
        return Fetch();
      }
      Done(std::vector<LocalVerdict>(
          static_cast<size_t>(work_.lease->deliveries_size()),
          Transient("4.3.0", absl::StrCat("the shard gave no text: ",
                                          std::string(chunk.status().message())))));
    });
  }

  void Start() {
    if (!handler_->MayFinish(work_.lease->lease_id())) {
      return Done(std::vector<LocalVerdict>(
          static_cast<size_t>(work_.lease->deliveries_size()),
          MakeVerdict(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED, 0, "", "the lease ran out")));
    }
    reading_ = false;
    LocalJob job{target_.settings,
                 work_.lease,
                 std::exchange(body_, {}),
                 target_.ehlo_name,
                 owner_.executor_.clock().WallNow(),
                 cancelled_};
    // What the job waits for, where it hangs.
    const policy::v1::QueueSettings& settings = *target_.settings;
    const std::string end = absl::StrCat(settings.type(), "\n", settings.file_destination(), "\n",
                                         settings.command(), "\n", settings.http_delivery_url());
    owner_.pool_.Run(
        end, [this, alive = alive_, owner = &owner_, owner_alive = owner_.alive_, size = size_,
              executor = &owner_.executor_, job = std::move(job)]() mutable {
          std::vector<LocalVerdict> verdicts = RunLocalJob(job);
          job = LocalJob();
          executor->Post([this, alive, owner, owner_alive, size, verdicts = std::move(verdicts)] {
            if (*owner_alive) owner->GiveRoom(size);
            if (*alive) Done(verdicts);
          });
        });
  }

  void Done(const std::vector<LocalVerdict>& verdicts) {
    if (std::exchange(reading_, false)) owner_.GiveRoom(size_);
    body_.clear();
    queue::v1::GroupResult result;
    result.set_lease_id(work_.lease->lease_id());
    result.set_time_us(ToUnixMicros(owner_.executor_.clock().WallNow()));
    result.set_outcome(verdicts[0].outcome);
    *result.mutable_reply() = verdicts[0].reply;
    for (size_t i = 1; i < verdicts.size(); ++i) {
      if (verdicts[i].outcome == verdicts[0].outcome &&
          verdicts[i].reply.text() == verdicts[0].reply.text()) {
        continue;
      }
      auto* const recipient = result.add_recipients();
      recipient->set_position(static_cast<uint32_t>(i));
      recipient->set_outcome(verdicts[i].outcome);
      *recipient->mutable_reply() = verdicts[i].reply;
    }
    common::v1::Attempt* const attempt = result.mutable_attempt();
    attempt->set_delivery_type(target_.settings->type());
    attempt->set_destination_host(target_.host);
    attempt->set_source(target_.ehlo_name);
    attempt->set_size(work_.lease->message().body_size());
    attempt->mutable_times()->set_final_us(
        static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                  owner_.executor_.clock().Now() - began_)
                                  .count()));
    work_ = Transaction();
    busy_ = false;
    const std::shared_ptr<bool> alive = alive_;
    handler_->OnResult(std::move(result));
    if (*alive) Pump();
  }

  LocalConnections& owner_;
  const ConnectTarget target_;
  ConnectionHandler* const handler_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::shared_ptr<std::atomic<bool>> cancelled_ = std::make_shared<std::atomic<bool>>(false);
  std::deque<Transaction> given_;
  Transaction work_;
  std::vector<Body> body_;
  uint64_t size_ = 0;
  MonotonicTime began_{};
  bool busy_ = false;
  bool reading_ = false;  // its room is ours to give back
  bool quitting_ = false;
  bool closed_ = false;
};

LocalConnections::LocalConnections(Executor& executor, ConnectionFactory& remote,
                                   const LocalOptions& options)
    : executor_(executor),
      remote_(remote),
      options_(options),
      pool_(options.threads, options.threads_of_an_end) {}

LocalConnections::~LocalConnections() { *alive_ = false; }

std::unique_ptr<Connection> LocalConnections::Connect(const ConnectTarget& target,
                                                      ConnectionHandler* handler) {
  if (!IsLocalEnd(*target.settings)) return remote_.Connect(target, handler);
  return std::make_unique<End>(*this, target, handler);
}

bool LocalConnections::TakeRoom(End* end, uint64_t bytes) {
  if (body_bytes_ != 0 && body_bytes_ + bytes > options_.max_body_bytes) {
    std::erase(waiting_, end);
    waiting_.push_back(end);
    return false;
  }
  body_bytes_ += bytes;
  return true;
}

void LocalConnections::GiveRoom(uint64_t bytes) {
  body_bytes_ -= bytes;
  // Each that still finds no room goes back to the end of the line. What begins may end at once,
  // and whoever hears of that may give up others, which then are not in the line any more.
  for (size_t left = waiting_.size(); left > 0 && !waiting_.empty(); --left) {
    End* const end = waiting_.front();
    waiting_.pop_front();
    end->Pump();
  }
}

}  // namespace sluice::delivery
