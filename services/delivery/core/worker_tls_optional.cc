// Mail with "TLS-Required: No" (RFC 8689 section 4.2.2), which shards keep in a queue beside the
// domain's own (config/queue_mark.h). Here both are one queue, so that what they share is limited
// once. Its connections are held to what the domain publishes of TLS, for all mail, as long as that
// can be had. Where every host fails it, the domain's other mail waits as it does anyway, and the
// connections that follow are for mail that does not insist: TLS where the host offers it.
#include <algorithm>
#include <limits>

#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

constexpr uint64_t kStale = std::numeric_limits<uint64_t>::max();  // of Queue::policy_version

}  // namespace

// Of reports on TLS, what an operator demands goes as well: they would never be told.
void Worker::DropTlsPolicy(Queue& queue) {
  auto settings = std::make_shared<policy::v1::QueueSettings>(*queue.settings);
  settings->set_use_dane(false);
  settings->set_use_mta_sts(false);
  if (queue.tls_reports) settings->set_require_starttls(false);
  queue.settings = std::move(settings);
}

// The queue reached nobody. True: for want of what the domain publishes of TLS, and there is mail
// that goes on without; the rest of the queue has failed.
bool Worker::WaiveTlsPolicy(Queue& queue, const common::v1::Reply& reply) {
  const auto insists = [](const Ref& ref) { return !ref.tls_optional; };
  const bool policed = queue.settings->use_dane() || queue.settings->use_mta_sts();
  if (!policed || !queue.tls_refused || draining_ ||
      std::all_of(queue.refs.begin(), queue.refs.end(), insists)) {
    return false;
  }
  queue::v1::QueueFailure failure;
  *failure.mutable_reply() = reply;
  for (const Ref& ref : queue.refs) {
    if (insists(ref)) TellFailure(ref, failure);
  }
  std::erase_if(queue.refs, insists);
  ++stats_.tls_waived;
  if (options_.log != nullptr) {
    options_.log->Info("tls_policy_waived", std::string(reply.text()),
                       {{"queue", queue.name}, {"host", std::string(reply.host())}});
  }
  queue.tls_waived = true;
  queue.tls_refused = false;
  queue.useless = 0;
  queue.search.reset();
  queue.policy_version = kStale;
  RefreshQueue(queue);
  TrimCredits(queue);
  WakeAt(queue, executor_.clock().Now());
  return true;
}

// There is mail again that insists: what was made without the policy takes nothing more.
void Worker::RestoreTlsPolicy(Queue& queue) {
  queue.tls_waived = false;
  queue.tls_refused = false;
  queue.policy_version = kStale;
}

}  // namespace sluice::delivery
