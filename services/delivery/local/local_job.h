// A message for recipients whose mail ends on this machine: what is to be done, and what came of
// it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "services/base/body.h"
#include "services/base/clock.h"
#include "sluice/policy/v1/settings.pb.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::delivery {

struct LocalJob {
  std::shared_ptr<const policy::v1::QueueSettings> settings;
  std::shared_ptr<const queue::v1::Lease> lease;
  std::vector<Body> body;  // the text, in pieces
  std::string host_name;   // of this system
  WallTime now{};
  // Set while the job runs: nobody waits for it any more. A program or a request that takes long
  // is ended; what is being written is finished.
  std::shared_ptr<const std::atomic<bool>> cancelled;

  bool is_cancelled() const { return cancelled && cancelled->load(std::memory_order_relaxed); }
};

struct LocalVerdict {
  queue::v1::RecipientOutcome outcome = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
  common::v1::Reply reply;
};

inline LocalVerdict MakeVerdict(queue::v1::RecipientOutcome outcome, uint32_t code,
                                std::string enhanced, std::string text) {
  constexpr size_t kMaxTextBytes = 2048;
  LocalVerdict verdict;
  verdict.outcome = outcome;
  verdict.reply.set_code(code);
  verdict.reply.set_enhanced(std::move(enhanced));
  if (text.size() > kMaxTextBytes) text.resize(kMaxTextBytes);
  verdict.reply.set_text(std::move(text));
  verdict.reply.set_stage(common::v1::STAGE_FINAL_DOT);
  verdict.reply.set_local(true);
  return verdict;
}
inline LocalVerdict Delivered(std::string text) {
  return MakeVerdict(queue::v1::RECIPIENT_OUTCOME_DELIVERED, 250, "2.0.0", std::move(text));
}
inline LocalVerdict Transient(std::string enhanced, std::string text) {
  return MakeVerdict(queue::v1::RECIPIENT_OUTCOME_TRANSIENT, 450, std::move(enhanced),
                     std::move(text));
}
inline LocalVerdict Permanent(std::string enhanced, std::string text) {
  return MakeVerdict(queue::v1::RECIPIENT_OUTCOME_PERMANENT, 550, std::move(enhanced),
                     std::move(text));
}

// Does it, and blocks while it does. One verdict for each of the lease's deliveries, in order.
// Thread-safety: any thread, several at once.
std::vector<LocalVerdict> RunLocalJob(const LocalJob& job);

// The ends, one for each type. Each stands in a file of its own name.
std::vector<LocalVerdict> DeliverToFile(const LocalJob& job);
std::vector<LocalVerdict> DeliverToPipe(const LocalJob& job);
std::vector<LocalVerdict> DeliverByHttp(const LocalJob& job);

}  // namespace sluice::delivery
