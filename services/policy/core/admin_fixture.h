// The admin API between two shards and a worker that are the test's.
#pragma once

#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"
#include "services/config/files.h"
#include "services/mail/message_id.h"
#include "services/policy/core/admin.h"

namespace sluice::policy::testing {

inline const std::string& MessageId() {
  static const auto& kId = *new std::string(mail::FormatMessageId("0123456789abcdef"));
  return kId;
}

// A shard whose mail is numbers; cursors are indexes.
class FakeShard final : public QueueControlClient {
 public:
  explicit FakeShard(std::string name) : name_(std::move(name)) {}
  const std::string& name() const override { return name_; }

  enum class Mode { kUp, kDown, kSilent } mode = Mode::kUp;
  std::string calls_itself;  // empty: as the flags do
  int messages = 0;
  bool has_message = false;
  std::map<std::string, uint64_t> queues;  // recipients by name
  std::vector<int64_t> event_times;
  int calls = 0;

  // What kSilent kept back.
  void AnswerLate() {
    for (auto& answer : std::exchange(kept_, {})) answer();
  }

  void GetShardStatus(queue::v1::GetShardStatusRequest,
                      Done<queue::v1::GetShardStatusResponse> done) override {
    Answer(std::move(done), [&] {
      queue::v1::GetShardStatusResponse response;
      response.set_shard(calls_itself.empty() ? name_ : calls_itself);
      return response;
    });
  }
  void ListQueues(queue::v1::ListQueuesRequest request,
                  Done<queue::v1::ListQueuesResponse> done) override {
    Answer(std::move(done), [&] {
      queue::v1::ListQueuesResponse response;
      for (const auto& [name, recipients] : queues) {
        if (name <= request.after()) continue;
        if (response.queues_size() == static_cast<int>(request.limit())) {
          response.set_more(true);
          break;
        }
        auto* const queue = response.add_queues();
        queue->set_name(name);
        queue->set_recipients(recipients);
        queue->set_mode("normal");
      }
      return response;
    });
  }
  void GetQueue(queue::v1::GetQueueRequest request,
                Done<queue::v1::GetQueueResponse> done) override {
    const auto found = queues.find(request.name());
    if (mode == Mode::kUp && found == queues.end()) return done(absl::NotFoundError("none"));
    Answer(std::move(done), [&] {
      queue::v1::GetQueueResponse response;
      response.mutable_queue()->set_name(found->first);
      return response;
    });
  }
  void ListMessages(queue::v1::ListMessagesRequest request,
                    Done<queue::v1::ListMessagesResponse> done) override {
    Answer(std::move(done), [&] {
      queue::v1::ListMessagesResponse response;
      int at = request.after().empty() ? 0 : std::stoi(request.after());
      for (; at < messages && response.recipients_size() < static_cast<int>(request.limit());
           ++at) {
        response.add_recipients()->set_message_id(name_ + std::to_string(at));
      }
      if (at < messages) response.set_after(std::to_string(at));
      return response;
    });
  }
  void GetMessage(queue::v1::GetMessageRequest, Done<queue::v1::GetMessageResponse> done) override {
    if (mode == Mode::kUp && !has_message) return done(absl::NotFoundError("none"));
    Answer(std::move(done), [&] {
      queue::v1::GetMessageResponse response;
      response.add_recipients();
      return response;
    });
  }
  void DeleteMessages(queue::v1::DeleteMessagesRequest request,
                      Done<queue::v1::DeleteMessagesResponse> done) override {
    if (request.filter().ByteSizeLong() == 0) return done(absl::InvalidArgumentError("empty"));
    Answer(std::move(done), [&] {
      const int deleted = std::min(messages, static_cast<int>(request.limit()));
      messages -= deleted;
      queue::v1::DeleteMessagesResponse response;
      response.set_recipients(static_cast<uint64_t>(deleted));
      response.set_more(messages > 0);
      return response;
    });
  }
  void RetryQueues(queue::v1::RetryQueuesRequest,
                   Done<queue::v1::RetryQueuesResponse> done) override {
    Answer(std::move(done), [&] {
      queue::v1::RetryQueuesResponse response;
      response.set_queues(queues.size());
      return response;
    });
  }
  // Of queues as `queues` says, and of all named ones whose virtual MTA is v.
  void SetQueueMode(queue::v1::SetQueueModeRequest request,
                    Done<queue::v1::SetQueueModeResponse> done) override {
    queue::v1::SetQueueModeResponse response;
    for (const std::string& name : request.names()) {
      if (!queues.contains(name) && !name.ends_with("/v")) {
        return done(absl::NotFoundError("there is no virtual MTA of that name"));
      }
      response.set_queues(response.queues() + 1);
      if (request.backoff() != backoff.contains(name)) response.add_changed(name);
      named.push_back(name);
    }
    for (const auto& [name, recipients] : queues) {
      if (!request.pattern().starts_with('*') && request.pattern() != name) continue;
      response.set_queues(response.queues() + 1);
      if (request.backoff() != backoff.contains(name)) response.add_changed(name);
    }
    if (mode == Mode::kUp && response.queues() == 0) return done(absl::NotFoundError("none"));
    Answer(std::move(done), [&] { return response; });
  }
  void SetQueueSource(queue::v1::SetQueueSourceRequest request,
                      Done<queue::v1::SetQueueSourceResponse> done) override {
    source = request.ip();
    Answer(std::move(done), [&] {
      queue::v1::SetQueueSourceResponse response;
      response.add_changed("a.test/v");
      return response;
    });
  }
  void ConfirmClock(queue::v1::ConfirmClockRequest request,
                    Done<queue::v1::ConfirmClockResponse> done) override {
    Answer(std::move(done), [&] {
      queue::v1::ConfirmClockResponse response;
      response.set_was_frozen_us(request.author() == "olive" ? 7 : 0);
      return response;
    });
  }
  std::set<std::string> backoff;
  std::vector<std::string> named;  // of requests
  std::string source;
  std::string target = "v1";  // that it knows
  void RerouteMessages(queue::v1::RerouteMessagesRequest request,
                       Done<queue::v1::RerouteMessagesResponse> done) override {
    if (mode == Mode::kUp && request.target() != target) {
      return done(absl::NotFoundError("there is no virtual MTA or pool named " + request.target()));
    }
    Answer(std::move(done), [] { return queue::v1::RerouteMessagesResponse(); });
  }
  void ReleaseMessages(queue::v1::ReleaseMessagesRequest,
                       Done<queue::v1::ReleaseMessagesResponse> done) override {
    Answer(std::move(done), [] { return queue::v1::ReleaseMessagesResponse(); });
  }
  void ReadEvents(queue::v1::ReadEventsRequest request,
                  Done<queue::v1::ReadEventsResponse> done) override {
    // One record a call, so that callers have to go on.
    Answer(std::move(done), [&] {
      queue::v1::ReadEventsResponse response;
      const uint64_t at = request.from_sequence();
      if (at < event_times.size()) response.add_events()->set_time_us(event_times[at]);
      response.set_next_sequence(at + 1);
      response.set_more(at + 1 < event_times.size());
      return response;
    });
  }

 private:
  template <class Response, class Make>
  void Answer(Done<Response> done, Make make) {
    ++calls;
    if (mode == Mode::kSilent) {
      kept_.push_back([done = std::move(done)]() mutable { done(absl::CancelledError("late")); });
    } else if (mode == Mode::kDown) {
      done(absl::UnavailableError("down"));
    } else {
      done(make());
    }
  }

  const std::string name_;
  std::vector<absl::AnyInvocable<void()>> kept_;
};

class FakeWorker final : public WorkerClient {
 public:
  const std::string& name() const override { return name_; }
  void GetWorkerStatus(delivery::v1::GetWorkerStatusRequest request,
                       Done<delivery::v1::GetWorkerStatusResponse> done) override {
    asked = request;
    delivery::v1::GetWorkerStatusResponse response;
    response.set_worker(name_);
    response.add_blocked()->set_queue("a.test/v");
    done(std::move(response));
  }

  delivery::v1::GetWorkerStatusRequest asked;

 private:
  const std::string name_ = "worker-0";
};

class AdminTest : public ::testing::Test {
 protected:
  AdminTest() {
    Write("host-name one.test\n");
    policy_.emplace(executor_, PolicyOptions{folder_, {folder_ + "/a.conf"}}, files_);
    EXPECT_TRUE(policy_->Load().ok);
    admin_.emplace(executor_, *policy_, peers_, AdminOptions{.version = "test"});
    executor_.RunPosted();
  }
  void Write(const std::string& text) { std::ofstream(folder_ + "/a.conf") << text; }

  template <class Request, class Response>
  absl::StatusOr<Response> Call(void (Admin::*method)(Request, Done<Response>), Request request) {
    std::optional<absl::StatusOr<Response>> got;
    ((*admin_).*method)(std::move(request), [&](absl::StatusOr<Response> response) {
      EXPECT_FALSE(got.has_value());
      got = std::move(response);
    });
    executor_.RunPosted();
    if (!got) executor_.Advance(std::chrono::seconds(60));
    EXPECT_TRUE(got.has_value());
    return *got;
  }

  sluice::testing::ManualExecutor executor_;
  config::DiskFiles files_;
  const sluice::testing::TempFolder temp_{"admin"};
  const std::string folder_ = temp_.path();
  std::optional<Policy> policy_;
  std::shared_ptr<FakeShard> s0_ = std::make_shared<FakeShard>("s0");
  std::shared_ptr<FakeShard> s1_ = std::make_shared<FakeShard>("s1");
  std::shared_ptr<FakeWorker> worker_ = std::make_shared<FakeWorker>();
  FixedPeers peers_{{s0_, s1_}, {worker_}};
  std::optional<Admin> admin_;
};

}  // namespace sluice::policy::testing
