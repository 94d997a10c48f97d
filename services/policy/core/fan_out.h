// One question to many, and all their answers.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/executor.h"
#include "services/base/rpc/unary.h"

namespace sluice::policy {

template <class Response>
struct Answer {
  std::string name;
  absl::StatusOr<Response> response = absl::DeadlineExceededError("no answer in time");
};

// In the order of the clients.
template <class Response>
using Answers = std::vector<Answer<Response>>;

// Calls `ask(client, done)` for each client and `finish` once, when all have answered or `timeout`
// is over; who has not is DEADLINE_EXCEEDED. Everything on `executor`, which outlives the calls.
template <class Response, class Client, class Ask>
void FanOut(Executor& executor, Duration timeout,
            const std::vector<std::shared_ptr<Client>>& clients, Ask ask,
            absl::AnyInvocable<void(Answers<Response>)> finish) {
  struct State {
    Answers<Response> answers;
    size_t missing = 0;
    TimerId timer = 0;
    absl::AnyInvocable<void(Answers<Response>)> finish;

    void Finish() { std::exchange(finish, nullptr)(std::move(answers)); }
  };
  auto state = std::make_shared<State>();
  state->finish = std::move(finish);
  // One more, so that answers in the call do not end it while clients are still to be asked.
  state->missing = clients.size() + 1;
  for (const auto& client : clients) state->answers.push_back({client->name()});
  const auto one_less = [state, &executor] {
    if (--state->missing > 0 || state->finish == nullptr) return;
    if (state->timer != 0) executor.Cancel(state->timer);
    state->Finish();
  };
  if (!clients.empty()) {
    state->timer = executor.After(timeout, [state] {
      state->timer = 0;
      if (state->finish != nullptr) state->Finish();
    });
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    // The client lives until it has answered.
    ask(*clients[i],
        [state, i, one_less, client = clients[i]](absl::StatusOr<Response> response) mutable {
          if (state->finish != nullptr) state->answers[i].response = std::move(response);
          one_less();
        });
  }
  one_less();
}

}  // namespace sluice::policy
