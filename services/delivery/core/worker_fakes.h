// What a worker meets, for its tests: a shard's stream, remote sites and a resolver, all in virtual
// time and under the test's hand.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/testing/manual_executor.h"
#include "services/delivery/core/worker.h"

namespace sluice::delivery::testing {

using DispatchStream = Stream<queue::v1::DispatchRequest, queue::v1::DispatchResponse>;

// One shard: keeps what the worker sent, says what the test says. Lifetime: outlives the worker.
class FakeShard final : public DispatchClient {
 public:
  std::shared_ptr<DispatchStream> Open(Executor&) override {
    ++opened;
    auto stream = std::make_shared<End>(*this);
    current_ = stream;
    return stream;
  }

  void Say(queue::v1::DispatchResponse response, std::vector<Body> bodies = {}) {
    Handler().OnFrame({std::move(response), std::move(bodies)});
  }
  void Hello(uint32_t lease_seconds) {
    queue::v1::DispatchResponse response;
    response.mutable_hello()->set_lease_seconds(lease_seconds);
    Say(response);
  }
  void Ready(uint64_t ref, uint32_t due, int64_t oldest_us = 0,
             const std::string& domain = "example.org", const std::string& vmta = "v",
             const std::string& rollup = {}) {
    queue::v1::DispatchResponse response;
    queue::v1::ReadyQueue* ready = response.add_ready();
    ready->set_queue_ref(ref);
    ready->set_domain(domain);
    ready->set_vmta(vmta);
    ready->set_due_estimate(due);
    ready->set_oldest_due_us(oldest_us);
    ready->set_rollup(rollup);
    Say(response);
  }
  void Lease(uint64_t id, uint64_t ref, int recipients = 1) {
    queue::v1::DispatchResponse response;
    queue::v1::Lease* lease = response.add_leases();
    lease->set_lease_id(id);
    lease->set_queue_ref(ref);
    lease->set_body_index(0);
    for (int i = 0; i < recipients; ++i) lease->add_deliveries();
    if (edit) edit(*lease);
    Say(response, {Body("text")});
  }
  void Break() { Handler().OnClosed(absl::UnavailableError("gone")); }

  // All that came since the last call, as one.
  queue::v1::DispatchRequest Take() {
    queue::v1::DispatchRequest all;
    for (const auto& each : std::exchange(sent_, {})) all.MergeFrom(each);
    return all;
  }

  int opened = 0;
  std::function<void(queue::v1::Lease&)> edit;  // called for each lease before it goes

 private:
  struct End final : DispatchStream {
    explicit End(FakeShard& shard) : shard(shard) {}
    void Start(DispatchStream::Handler* to) override { handler = to; }
    bool Send(Frame<queue::v1::DispatchRequest> frame) override {
      shard.sent_.push_back(std::move(frame.header));
      return true;
    }
    void Close(absl::Status) override {}
    void Cancel() override {}
    size_t queued_bytes() const override { return 0; }
    std::string peer() const override { return "test"; }
    FakeShard& shard;
    DispatchStream::Handler* handler = nullptr;
  };
  DispatchStream::Handler& Handler() { return *current_.lock()->handler; }

  std::weak_ptr<End> current_;
  std::vector<queue::v1::DispatchRequest> sent_;
};

// The remote sites. A connection stays in `open` until the worker drops it.
class FakeSites final : public ConnectionFactory {
 public:
  class Remote final : public Connection {
   public:
    Remote(FakeSites& sites, ConnectTarget target, ConnectionHandler* handler)
        : target(std::move(target)), handler(handler), sites_(sites) {
      sites_.open.push_back(this);
    }
    ~Remote() override { std::erase(sites_.open, this); }
    void Send(Transaction transaction) override {
      if (sites_.before_sending) sites_.before_sending();
      sites_.sends.push_back(
          {sites_.executor.clock().Now(), transaction.lease->deliveries_size(), target.source_ip});
      under_way.push_back(std::move(transaction));
    }
    void Quit() override { quit = true; }
    void Abort() override { aborted = true; }

    // The oldest transaction under way gets its result.
    void Answer(queue::v1::RecipientOutcome outcome, uint32_t code = 0,
                const std::string& text = {}) {
      common::v1::Reply reply;
      if (code != 0) reply.set_code(code);
      if (!text.empty()) reply.set_text(text);
      Answer(outcome, std::move(reply));
    }
    void Answer(queue::v1::RecipientOutcome outcome, common::v1::Reply reply) {
      queue::v1::GroupResult result;
      result.set_lease_id(under_way.front().lease->lease_id());
      result.set_outcome(outcome);
      *result.mutable_reply() = std::move(reply);
      under_way.erase(under_way.begin());
      handler->OnResult(std::move(result));
    }
    void Close(bool ready, uint32_t code = 0, std::string text = "closed") {
      ConnectionEnd end;
      end.ready = ready;
      if (!ready) {
        end.reply.set_stage(code == 0 ? common::v1::STAGE_CONNECT : common::v1::STAGE_GREETING);
      }
      end.reply.set_code(code);
      end.reply.set_text(std::move(text));
      handler->OnClosed(std::move(end));
    }

    const ConnectTarget target;
    ConnectionHandler* const handler;
    std::vector<Transaction> under_way;
    bool quit = false;
    bool greeted = false;  // by the test
    bool aborted = false;

   private:
    FakeSites& sites_;
  };

  explicit FakeSites(Executor& executor) : executor(executor) {}
  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override {
    if (before_sending) before_sending();
    connects.push_back(executor.clock().Now());
    return std::make_unique<Remote>(*this, target, handler);
  }

  struct Sent {
    MonotonicTime when;
    int recipients;
    std::string source_ip;
  };
  Executor& executor;
  std::function<void()> before_sending;  // called before a message or a connect is on the wire
  std::vector<Remote*> open;
  std::vector<Sent> sends;
  std::vector<MonotonicTime> connects;
};

class FakeResolver final : public MxResolver {
 public:
  void Resolve(std::string_view domain, Done done) override {
    ++asked;
    if (hold) {
      held.push_back(std::move(done));
      return;
    }
    const auto own = answers.find(domain);
    done(std::make_shared<MxResult>(own == answers.end() ? answer : own->second));
  }
  void ResolveHost(std::string_view, Done done) override {
    done(std::make_shared<MxResult>(answer));
  }
  void AnswerOldest() {
    Done done = std::move(held.front());
    held.erase(held.begin());
    done(std::make_shared<MxResult>(answer));
  }
  MxResult answer;
  std::map<std::string, MxResult, std::less<>> answers;  // of domains that have their own
  bool hold = false;
  std::vector<Done> held;
  int asked = 0;
};

}  // namespace sluice::delivery::testing
