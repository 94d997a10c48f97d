// What the admin API needs of shards and workers, wherever they run.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/rpc/unary.h"
#include "sluice/delivery/v1/delivery_service.pb.h"
#include "sluice/queue/v1/queue_control.pb.h"

namespace sluice::policy {

// QueueControlService of one shard. Methods are called on the admin's executor and answer there, in
// the call or later; a shard that cannot be reached is UNAVAILABLE.
class QueueControlClient {
 public:
  virtual ~QueueControlClient() = default;
  // As operators know the shard.
  virtual const std::string& name() const = 0;

  virtual void GetShardStatus(queue::v1::GetShardStatusRequest request,
                              Done<queue::v1::GetShardStatusResponse> done) = 0;
  virtual void ListQueues(queue::v1::ListQueuesRequest request,
                          Done<queue::v1::ListQueuesResponse> done) = 0;
  virtual void GetQueue(queue::v1::GetQueueRequest request,
                        Done<queue::v1::GetQueueResponse> done) = 0;
  virtual void ListMessages(queue::v1::ListMessagesRequest request,
                            Done<queue::v1::ListMessagesResponse> done) = 0;
  virtual void GetMessage(queue::v1::GetMessageRequest request,
                          Done<queue::v1::GetMessageResponse> done) = 0;
  virtual void DeleteMessages(queue::v1::DeleteMessagesRequest request,
                              Done<queue::v1::DeleteMessagesResponse> done) = 0;
  virtual void RetryQueues(queue::v1::RetryQueuesRequest request,
                           Done<queue::v1::RetryQueuesResponse> done) = 0;
  virtual void SetQueueMode(queue::v1::SetQueueModeRequest request,
                            Done<queue::v1::SetQueueModeResponse> done) = 0;
  virtual void SetQueueSource(queue::v1::SetQueueSourceRequest request,
                              Done<queue::v1::SetQueueSourceResponse> done) = 0;
  virtual void ConfirmClock(queue::v1::ConfirmClockRequest request,
                            Done<queue::v1::ConfirmClockResponse> done) = 0;
  virtual void RerouteMessages(queue::v1::RerouteMessagesRequest request,
                               Done<queue::v1::RerouteMessagesResponse> done) = 0;
  virtual void ReleaseMessages(queue::v1::ReleaseMessagesRequest request,
                               Done<queue::v1::ReleaseMessagesResponse> done) = 0;
  virtual void ReadEvents(queue::v1::ReadEventsRequest request,
                          Done<queue::v1::ReadEventsResponse> done) = 0;
};

// One delivery worker; the same rules.
class WorkerClient {
 public:
  virtual ~WorkerClient() = default;
  virtual const std::string& name() const = 0;
  virtual void GetWorkerStatus(delivery::v1::GetWorkerStatusRequest request,
                               Done<delivery::v1::GetWorkerStatusResponse> done) = 0;
};

// Who there is now. Asked anew for each admin call, on the admin's executor; shards always in the
// same order.
class AdminPeers {
 public:
  using Shards = std::vector<std::shared_ptr<QueueControlClient>>;
  using Workers = std::vector<std::shared_ptr<WorkerClient>>;
  virtual ~AdminPeers() = default;
  virtual Shards shards() = 0;
  virtual Workers workers() = 0;
};

// Peers that never change.
class FixedPeers final : public AdminPeers {
 public:
  FixedPeers(Shards shards, Workers workers)
      : shards_(std::move(shards)), workers_(std::move(workers)) {}
  Shards shards() override { return shards_; }
  Workers workers() override { return workers_; }

 private:
  const Shards shards_;
  const Workers workers_;
};

}  // namespace sluice::policy
