#include "services/policy/core/admin.h"

#include <stdlib.h>

#include <fstream>
#include <map>
#include <optional>
#include <set>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/config/files.h"
#include "services/mail/message_id.h"

namespace sluice::policy {
namespace {

using std::chrono::seconds;

const std::string kId = mail::FormatMessageId("0123456789abcdef");

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
  void RerouteMessages(queue::v1::RerouteMessagesRequest,
                       Done<queue::v1::RerouteMessagesResponse> done) override {
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
    std::string folder = ::testing::TempDir() + "/admin.XXXXXX";
    folder_ = mkdtemp(folder.data());
    Write("host-name one.test\n");
    policy_.emplace(executor_, PolicyOptions{folder_, {folder_ + "/a.conf"}}, files_);
    EXPECT_TRUE(policy_->Load().ok);
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
    if (!got) executor_.Advance(seconds(60));
    EXPECT_TRUE(got.has_value());
    return *got;
  }

  testing::ManualExecutor executor_;
  config::DiskFiles files_;
  std::string folder_;
  std::optional<Policy> policy_;
  std::shared_ptr<FakeShard> s0_ = std::make_shared<FakeShard>("s0");
  std::shared_ptr<FakeShard> s1_ = std::make_shared<FakeShard>("s1");
  std::shared_ptr<FakeWorker> worker_ = std::make_shared<FakeWorker>();
  FixedPeers peers_{{s0_, s1_}, {worker_}};
  std::optional<Admin> admin_{std::in_place, executor_, *policy_, peers_,
                              AdminOptions{.version = "test"}};
};

TEST_F(AdminTest, StatusNamesWhoDoesNotAnswer) {
  s1_->mode = FakeShard::Mode::kSilent;
  const auto status = Call(&Admin::GetStatus, admin::v1::GetStatusRequest());
  ASSERT_TRUE(status.ok());
  ASSERT_EQ(status->shards_size(), 1);
  EXPECT_EQ(status->shards(0).shard(), "s0");
  EXPECT_EQ(status->workers_size(), 1);
  ASSERT_EQ(status->unreachable_size(), 1);
  EXPECT_EQ(status->unreachable(0), "s1");
  EXPECT_EQ(status->snapshot_version(), 1u);
  EXPECT_EQ(status->version(), "test");
  s1_->AnswerLate();
  executor_.RunPosted();
}

TEST_F(AdminTest, WorkersAreAskedForTheConnectionsThatAreWanted) {
  admin::v1::GetStatusRequest request;
  ASSERT_TRUE(Call(&Admin::GetStatus, request).ok());
  EXPECT_FALSE(worker_->asked.with_connections());
  request.set_with_connections(true);
  request.set_queue_pattern("a.test/*");
  ASSERT_TRUE(Call(&Admin::GetStatus, request).ok());
  EXPECT_TRUE(worker_->asked.with_connections());
  EXPECT_EQ(worker_->asked.queue_pattern(), "a.test/*");
}

// An address in the flags that is another shard's.
TEST_F(AdminTest, StatusNamesAShardThatIsAnotherOne) {
  s1_->calls_itself = "s7";
  const auto status = Call(&Admin::GetStatus, admin::v1::GetStatusRequest());
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->shards_size(), 1);
  ASSERT_EQ(status->unreachable_size(), 1);
  EXPECT_EQ(status->unreachable(0), "s1 (at its address is shard s7)");
}

TEST_F(AdminTest, QueuesAreMergedByNameAndSorted) {
  s0_->queues = {{"a/v", 5}, {"b/v", 6}};
  s1_->queues = {{"a/v", 5}, {"c/v", 1}};
  admin::v1::ListQueuesRequest request;
  request.mutable_request()->set_limit(2);
  const auto list = Call(&Admin::ListQueues, request);
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->queues_size(), 2);
  EXPECT_EQ(list->queues(0).name(), "a/v");
  EXPECT_EQ(list->queues(0).recipients(), 10u);
  EXPECT_EQ(list->queues(1).name(), "b/v");
  EXPECT_TRUE(list->more());
}

TEST_F(AdminTest, PagesByNameMissNoQueue) {
  s0_->queues = {{"a", 1}, {"b", 1}, {"c", 1}};
  s1_->queues = {{"b", 1}, {"x", 1}, {"y", 1}};
  admin::v1::ListQueuesRequest request;
  request.mutable_request()->set_sort("name");
  request.mutable_request()->set_limit(2);
  std::string seen;
  for (int page = 0; page < 10; ++page) {
    const auto list = Call(&Admin::ListQueues, request);
    ASSERT_TRUE(list.ok());
    for (const auto& queue : list->queues()) {
      seen += queue.name() + std::to_string(queue.recipients());
    }
    if (!list->more()) break;
    ASSERT_FALSE(list->queues().empty());
    request.mutable_request()->set_after(list->queues().rbegin()->name());
  }
  EXPECT_EQ(seen, "a1b2c1x1y1");
}

TEST_F(AdminTest, AModeIsSetInAllShardsAlsoWhereThereIsNoMailNow) {
  s0_->queues = {{"a.test/v", 5}, {"b.test/v", 5}};
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_backoff(true);
  request.mutable_request()->set_pattern("*/v");
  auto answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->queues(), 2u);
  EXPECT_EQ(answer->names(0), "a.test/v");
  EXPECT_EQ(s1_->named, (std::vector<std::string>{"a.test/v", "b.test/v"})) << "it has none";
  EXPECT_TRUE(s0_->named.empty());
  s1_->named.clear();
  // Nobody has this one: all of them make it.
  request.mutable_request()->set_pattern("new.test/v");
  answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->queues(), 1u);
  EXPECT_EQ(s0_->named, s1_->named);
  EXPECT_EQ(s0_->named, (std::vector<std::string>{"new.test/v"}));
  // What is normal needs no row; and there is no such virtual MTA.
  request.mutable_request()->set_backoff(false);
  EXPECT_EQ(Call(&Admin::SetQueueMode, request).status().message(),
            "no shard has a queue that matches new.test/v, so nothing is to be undone");
  request.mutable_request()->set_backoff(true);
  request.mutable_request()->set_pattern("a.test/none");
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::SetQueueMode, request).status()));
  request.mutable_request()->set_pattern("a.test");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::SetQueueMode, request).status()));
}

TEST_F(AdminTest, NormalIsToldToShardsThatDoNotHaveTheQueue) {
  s0_->queues = {{"a.test/v", 5}, {"b.test/v", 5}};
  s0_->backoff = {"a.test/v"};
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_pattern("*/*");
  auto answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->queues(), 1u) << "the other one is normal";
  EXPECT_EQ(s1_->named, (std::vector<std::string>{"a.test/v"}));
  request.mutable_request()->set_pattern("A.Test/v");
  answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << "as queues are named: " << answer.status();
}

TEST_F(AdminTest, AShardThatDoesNotHearOfAModeIsNamed) {
  s0_->queues = {{"a.test/v", 5}};
  s1_->mode = FakeShard::Mode::kDown;
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_backoff(true);
  request.mutable_request()->set_pattern("a.test/v");
  auto answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->unreachable_size(), 1);
  EXPECT_EQ(answer->unreachable(0), "s1");
  s0_->mode = FakeShard::Mode::kDown;
  EXPECT_TRUE(absl::IsUnavailable(Call(&Admin::SetQueueMode, request).status()));
}

TEST_F(AdminTest, TheClockIsConfirmedInEveryShardThatAnswers) {
  s1_->mode = FakeShard::Mode::kDown;
  admin::v1::ConfirmClockRequest request;
  request.set_author("olive");
  const auto answer = Call(&Admin::ConfirmClock, request);
  ASSERT_TRUE(answer.ok());
  ASSERT_EQ(answer->shards_size(), 1);
  EXPECT_EQ(answer->shards(0).shard(), "s0");
  EXPECT_EQ(answer->shards(0).was_frozen_us(), 7);
  EXPECT_EQ(answer->unreachable(0), "s1");
}

TEST_F(AdminTest, ASourceIsNamedAsItIsKept) {
  admin::v1::SetQueueSourceRequest request;
  request.mutable_request()->set_pattern("a.test/v");
  request.mutable_request()->set_disable(true);
  request.mutable_request()->set_ip("2001:DB8:0:0::1");
  ASSERT_TRUE(Call(&Admin::SetQueueSource, request).ok());
  EXPECT_EQ(s1_->source, "2001:db8::1");
  request.mutable_request()->set_ip("out1.test");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::SetQueueSource, request).status()));
}

TEST_F(AdminTest, OneQueueIsShownByShardWithWhatBlocksIt) {
  s1_->queues = {{"a.test/v", 5}};
  admin::v1::GetQueueRequest request;
  request.set_name("a.test/v");
  const auto queue = Call(&Admin::GetQueue, request);
  ASSERT_TRUE(queue.ok());
  ASSERT_EQ(queue->per_shard_size(), 1);
  EXPECT_EQ(queue->per_shard(0).shard(), "s1");
  EXPECT_EQ(queue->blocked_size(), 1);
  request.set_name("none/v");
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::GetQueue, request).status()));
  s0_->mode = FakeShard::Mode::kDown;
  EXPECT_TRUE(absl::IsUnavailable(Call(&Admin::GetQueue, request).status()));
}

TEST_F(AdminTest, PagesOfMessagesGoThroughAllShards) {
  s0_->messages = 5;
  s1_->messages = 4;
  admin::v1::ListMessagesRequest request;
  request.mutable_request()->set_limit(2);
  int seen = 0;
  int pages = 0;
  do {
    const auto page = Call(&Admin::ListMessages, request);
    ASSERT_TRUE(page.ok()) << page.status().message();
    seen += page->recipients_size();
    request.mutable_request()->set_after(page->after());
    ASSERT_LT(++pages, 10);
  } while (!request.request().after().empty());
  EXPECT_EQ(seen, 9);
  request.mutable_request()->set_after("nonsense");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::ListMessages, request).status()));
}

TEST_F(AdminTest, DeletesEverywhereOrUpToTheLimit) {
  s0_->messages = 25'000;
  s1_->messages = 7;
  admin::v1::DeleteMessagesRequest request;
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::DeleteMessages, request).status()));
  request.mutable_request()->mutable_filter()->set_all(true);
  request.mutable_request()->set_limit(5);
  EXPECT_EQ(Call(&Admin::DeleteMessages, request)->recipients(), 5u);
  request.mutable_request()->set_limit(0);
  EXPECT_EQ(Call(&Admin::DeleteMessages, request)->recipients(), 25'002u);
  EXPECT_EQ(s0_->messages + s1_->messages, 0);
  s0_->mode = FakeShard::Mode::kDown;
  EXPECT_EQ(Call(&Admin::DeleteMessages, request)->unreachable(0), "s0");
}

TEST_F(AdminTest, WhatWasDoneInPartSaysSo) {
  s0_->queues = {{"a", 1}, {"b", 1}};
  s1_->mode = FakeShard::Mode::kDown;
  const auto done = Call(&Admin::RetryQueues, admin::v1::RetryQueuesRequest());
  EXPECT_TRUE(absl::IsUnavailable(done.status()));
  EXPECT_EQ(done.status().message(), "no answer from s1; 2 queues changed elsewhere");
}

TEST_F(AdminTest, MessagesAndEventsOfAllShards) {
  admin::v1::GetMessageRequest request;
  request.set_message_id(kId);
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::GetMessage, request).status()));
  s1_->has_message = true;
  EXPECT_EQ(Call(&Admin::GetMessage, request)->message().recipients(0).shard(), "s1");
  request.set_message_id("short");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::GetMessage, request).status()));

  s0_->event_times = {1, 5};
  s1_->event_times = {3, 4, 9};
  admin::v1::ListEventsRequest events;
  events.set_message_id(kId);
  const auto list = Call(&Admin::ListEvents, events);
  ASSERT_TRUE(list.ok());
  std::string times;
  for (const auto& event : list->events()) times += std::to_string(event.time_us());
  EXPECT_EQ(times, "13459");
}

TEST_F(AdminTest, PauseAndResume) {
  admin::v1::PauseRequest pause;
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::Pause, pause).status()));
  pause.set_queue_pattern("A.test/*");
  pause.set_author("ann");
  const auto paused = Call(&Admin::Pause, pause);
  ASSERT_TRUE(paused.ok());
  EXPECT_EQ(paused->entry().queue_pattern(), "a.test/*");
  EXPECT_EQ(Call(&Admin::ListPauses, admin::v1::ListPausesRequest())->entries_size(), 1);
  admin::v1::ResumeRequest resume;
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::Resume, resume).status()));
  resume.set_queue_pattern("b.test/*");
  EXPECT_EQ(Call(&Admin::Resume, resume)->resumed(), 0u);
  resume.set_queue_pattern("a.test/*");
  EXPECT_EQ(Call(&Admin::Resume, resume)->resumed(), 1u);
}

TEST_F(AdminTest, ReloadAndCheck) {
  Write("no-such-directive yes\n");
  const auto bad = Call(&Admin::ReloadConfig, admin::v1::ReloadConfigRequest());
  EXPECT_TRUE(absl::IsFailedPrecondition(bad.status()));
  EXPECT_NE(bad.status().message().find("a.conf:1:1: error: "), std::string::npos);
  EXPECT_FALSE(Call(&Admin::CheckConfig, admin::v1::CheckConfigRequest())->loads());
  Write("host-name two.test\n<source 127.0.0.1>\nlog-data yes\n</source>\n");
  const auto good = Call(&Admin::ReloadConfig, admin::v1::ReloadConfigRequest());
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(good->changed());
  EXPECT_EQ(good->version(), 2u);
  EXPECT_EQ(good->warnings_size(), 1);
  EXPECT_TRUE(Call(&Admin::CheckConfig, admin::v1::CheckConfigRequest())->loads());
}

// Operators see what services were sent, whatever the files say by now, and the lines that said it.
TEST_F(AdminTest, WhatIsInForceIsExplained) {
  Write("host-name two.test\n<domain a.test>\nmax-smtp-out 5\nauth-password hidden\n</domain>\n");
  ASSERT_TRUE(Call(&Admin::ReloadConfig, admin::v1::ReloadConfigRequest()).ok());
  admin::v1::ExplainConfigRequest request;
  request.set_domain("a.test");
  const auto rows = [&] {
    const auto response = Call(&Admin::ExplainConfig, request);
    EXPECT_TRUE(response.ok());
    std::string text;
    for (const auto& setting : response->subjects(0).settings()) {
      if (setting.is_default()) continue;
      const std::string& where = setting.where();
      text += setting.directive() + " " + setting.value() + " " + setting.section() + " " +
              where.substr(where.rfind('/') + 1) + "\n";
    }
    for (const std::string& note : response->notes()) text += note + "\n";
    return text;
  };
  EXPECT_EQ(rows(),
            "max-smtp-out 5 <domain a.test> a.conf:3\n"
            "auth-password (secret) <domain a.test> a.conf:4\n");
  // Not loaded yet: the old value holds, and no line says it.
  Write("host-name two.test\n\n<domain a.test>\nmax-smtp-out 6\n</domain>\n");
  EXPECT_EQ(rows(),
            "max-smtp-out 5 <domain a.test> \n"
            "auth-password (secret) <domain a.test> \n"
            "1 sections are different in the files by now; a reload brings them into force\n");
  Write("nonsense\n");
  EXPECT_NE(rows().find("max-smtp-out 5"), std::string::npos);
  EXPECT_NE(rows().find("the files do not load by now"), std::string::npos);
  request.set_vmta("nobody");
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::ExplainConfig, request).status()));
}

}  // namespace
}  // namespace sluice::policy
