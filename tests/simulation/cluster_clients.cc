// What clients and operators ask: unary calls, over the same network.
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "services/mail/message_id.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/simulated_cluster.h"

namespace sluice::simulation {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

void Cluster::PlanInjections(Duration busy) {
  Random& random = world_.random();
  // Where sources change hands, there is mail for them on all shards, all the time.
  const bool dense = PolicyIsLongAway();
  const size_t count = dense ? 100 + random.Below(300) : 5 + random.Below(60);
  const uint64_t domains = dense ? 2 : kDomains;
  const bool burst = random.Chance(0.3);
  for (size_t i = 0; i < count; ++i) {
    auto injection = std::make_shared<Injection>();
    auto& request = injection->request;
    request.set_mail_from("sender@from.test");
    const size_t rcpts = random.Chance(0.8) ? 1 : 1 + random.Below(6);
    const uint64_t domain = random.Below(domains);
    for (size_t r = 0; r < rcpts; ++r) {
      const uint64_t of = random.Chance(0.7) ? domain : random.Below(domains);
      injection->rcpts.push_back("u" + std::to_string(i) + "." + std::to_string(r) + "@d" +
                                 std::to_string(of) + ".test");
      request.add_recipients()->set_address(injection->rcpts.back());
    }
    std::string text = "Subject: " + std::to_string(i) + "\r\n\r\n";
    text.append(random.Chance(0.03) ? 300'000 + random.Below(400'000) : random.Below(2000), 'x');
    request.set_content(text + "\r\n");
    request.set_virtual_mta(random.Chance(dense ? 0.9 : 0.4) ? "both"
                            : random.Chance(0.5)             ? "v1"
                                                             : "v2");
    if (random.Chance(0.2)) request.set_job_id("job" + std::to_string(random.Below(3)));
    request.set_idempotency_key("key" + std::to_string(i));
    const Duration when =
        burst ? random.Between(Duration(0), seconds(1)) : random.Between(Duration(0), busy);
    world_.At(world_.now() + when, [this, injection] { Inject(injection); });
  }
}

// A request comes late, twice or not at all, while faults are on: who asks does so again when no
// answer came, and who asked may be gone.
void Cluster::Call(const std::function<void()>& execute) {
  Random& random = world_.random();
  const auto arrive = [&](Duration after) {
    world_.At(world_.now() + after, [execute] { execute(); });
  };
  const bool bad = network_.faulty();
  if (bad && random.Chance(0.05)) return;
  arrive(bad && random.Chance(0.1) ? network_.Late() : network_.Latency());
  if (bad && random.Chance(0.1)) arrive(random.Chance(0.5) ? network_.Late() : network_.Latency());
}

void Cluster::Inject(const std::shared_ptr<Injection>& injection) {
  ++open_injections_;
  ++injection->tries;
  // No answer for a while: the client asks again, with the same key, perhaps another ingest.
  auto open = std::make_shared<bool>(true);
  const auto again = [this, injection, open] {
    if (!std::exchange(*open, false)) return;
    --open_injections_;
    if (injection->answered || injection->tries > 40) return;
    ++open_injections_;
    world_.At(world_.now() + world_.random().Between(seconds(1), seconds(30)), [this, injection] {
      --open_injections_;
      Inject(injection);
    });
  };
  const Duration patience = network_.faulty()
                                ? world_.random().Between(milliseconds(100), minutes(2))
                                : Duration(minutes(2));
  world_.At(world_.now() + patience, again);
  IngestNode& node = *ingests_[world_.random().Below(ingests_.size())];
  const auto answered = [this, injection, open,
                         again](const absl::StatusOr<ingest::v1::InjectResponse>& response) {
    if (response.ok()) {
      if (std::exchange(*open, false)) --open_injections_;
      Accepted(*injection, *response);
      return;
    }
    Log("refused: " + response.status().ToString());
    if (absl::IsUnavailable(response.status()) || absl::IsResourceExhausted(response.status()) ||
        absl::IsAborted(response.status())) {
      again();
      return;
    }
    ledger_.Fail("not injected: " + response.status().ToString());
    if (std::exchange(*open, false)) --open_injections_;
  };
  Call([this, &node, injection, again, answered] {
    if (node.inject == nullptr) {
      again();
      return;
    }
    node.inject->Inject(
        injection->request, [this, answered](absl::StatusOr<ingest::v1::InjectResponse> response) {
          if (network_.faulty() && world_.random().Chance(0.1)) return;  // the answer is lost
          world_.At(world_.now() + network_.Latency(),
                    [answered, response = std::move(response)] { answered(response); });
        });
  });
}

void Cluster::Accepted(Injection& injection, const ingest::v1::InjectResponse& response) {
  const auto id = mail::ParseMessageId(response.message_id());
  if (!id) {
    ledger_.Fail("no message id: " + response.message_id());
    return;
  }
  Log("accepted " + response.message_id());
  if (!injection.id.empty() && injection.id != *id) {
    ledger_.Fail("one key, two messages: " + mail::FormatMessageId(injection.id) + " and " +
                 response.message_id());
  }
  injection.answered = true;
  injection.id = *id;
  ledger_.Accepted(*id, injection.rcpts);
}

}  // namespace sluice::simulation
