// What the benchmarks' worker says: groups that were delivered, credits for more.
#pragma once

#include <cstdint>

#include "services/base/rpc/stream.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::queue::testing {

inline void AddCredit(Frame<v1::DispatchRequest>& out, uint64_t queue_ref, uint32_t groups) {
  v1::Credit* credit = out.header.add_credits();
  credit->set_queue_ref(queue_ref);
  credit->set_groups(groups);
}

// Every group of `in` was taken by its site and makes room for another one; every queue that is
// ready gets `first_credits`. Returns the number of groups.
inline int AnswerDelivered(const v1::DispatchResponse& in, uint32_t first_credits,
                           Frame<v1::DispatchRequest>& out) {
  for (const auto& ready : in.ready()) AddCredit(out, ready.queue_ref(), first_credits);
  for (const auto& lease : in.leases()) {
    v1::GroupResult* result = out.header.add_results();
    result->set_lease_id(lease.lease_id());
    result->set_outcome(v1::RECIPIENT_OUTCOME_DELIVERED);
    result->mutable_reply()->set_code(250);
    result->mutable_reply()->set_text("2.0.0 Ok: queued as 4F2A1B");
    result->mutable_reply()->set_stage(common::v1::STAGE_FINAL_DOT);
    result->mutable_attempt()->set_source_ip("127.0.0.2");
    result->mutable_attempt()->set_destination_ip("127.0.0.9");
    AddCredit(out, lease.queue_ref(), 1);
  }
  return in.leases_size();
}

// A worker that sends from the default virtual MTA.
inline Frame<v1::DispatchRequest> Hello() {
  Frame<v1::DispatchRequest> hello;
  hello.header.mutable_hello()->set_worker("w");
  hello.header.mutable_hello()->set_incarnation(1);
  hello.header.mutable_hello()->add_vmtas("default");
  return hello;
}

}  // namespace sluice::queue::testing
