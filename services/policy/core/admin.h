// The operators' API: status, queues, messages and events of the whole cluster, pauses, and the
// configuration.
#pragma once

#include <string>

#include "services/base/executor.h"
#include "services/base/rpc/unary.h"
#include "services/policy/core/policy.h"
#include "services/policy/core/queue_control_client.h"
#include "sluice/admin/v1/admin_service.pb.h"

namespace sluice::policy {

struct AdminOptions {
  std::string version;  // of the programs, for status
  // How long a shard or worker may take to answer one call.
  Duration peer_timeout = std::chrono::seconds(10);
  // How long Pause and Resume wait for services to have the new snapshot.
  Duration control_wait = std::chrono::seconds(5);
};

// A shard that does not answer is named in `unreachable`; where the response has no such field, the
// call fails with UNAVAILABLE and says what was done all the same. A request that a shard finds
// wrong is wrong as a whole.
// Thread-safety: everything on the executor, answers too. Lifetime: executor, policy and peers
// outlive it and its calls.
class Admin {
 public:
  Admin(Executor& executor, Policy& policy, AdminPeers& peers, AdminOptions options);

  Executor& executor() { return executor_; }

  void GetStatus(admin::v1::GetStatusRequest request, Done<admin::v1::GetStatusResponse> done);
  void ListQueues(admin::v1::ListQueuesRequest request, Done<admin::v1::ListQueuesResponse> done);
  void GetQueue(admin::v1::GetQueueRequest request, Done<admin::v1::GetQueueResponse> done);
  // Shard by shard; the cursor says which shard and where in it.
  void ListMessages(admin::v1::ListMessagesRequest request,
                    Done<admin::v1::ListMessagesResponse> done);
  void GetMessage(admin::v1::GetMessageRequest request, Done<admin::v1::GetMessageResponse> done);
  // These change mail shard by shard until `limit` recipients, or all, are done.
  void DeleteMessages(admin::v1::DeleteMessagesRequest request,
                      Done<admin::v1::DeleteMessagesResponse> done);
  void RerouteMessages(admin::v1::RerouteMessagesRequest request,
                       Done<admin::v1::RerouteMessagesResponse> done);
  void ReleaseMessages(admin::v1::ReleaseMessagesRequest request,
                       Done<admin::v1::ReleaseMessagesResponse> done);
  void RetryQueues(admin::v1::RetryQueuesRequest request,
                   Done<admin::v1::RetryQueuesResponse> done);
  // In all shards alike: a queue that one shard has is named to those that do not have it.
  void SetQueueMode(admin::v1::SetQueueModeRequest request,
                    Done<admin::v1::SetQueueModeResponse> done);
  void SetQueueSource(admin::v1::SetQueueSourceRequest request,
                      Done<admin::v1::SetQueueSourceResponse> done);
  void ConfirmClock(admin::v1::ConfirmClockRequest request,
                    Done<admin::v1::ConfirmClockResponse> done);
  void ListEvents(admin::v1::ListEventsRequest request, Done<admin::v1::ListEventsResponse> done);

  void Pause(admin::v1::PauseRequest request, Done<admin::v1::PauseResponse> done);
  void Resume(admin::v1::ResumeRequest request, Done<admin::v1::ResumeResponse> done);
  void ListPauses(admin::v1::ListPausesRequest request, Done<admin::v1::ListPausesResponse> done);
  void ListOwners(admin::v1::ListOwnersRequest request, Done<admin::v1::ListOwnersResponse> done);
  void ReloadConfig(admin::v1::ReloadConfigRequest request,
                    Done<admin::v1::ReloadConfigResponse> done);
  void CheckConfig(admin::v1::CheckConfigRequest request,
                   Done<admin::v1::CheckConfigResponse> done);
  void ExplainConfig(admin::v1::ExplainConfigRequest request,
                     Done<admin::v1::ExplainConfigResponse> done);

 private:
  Executor& executor_;
  Policy& policy_;
  AdminPeers& peers_;
  const AdminOptions options_;
};

}  // namespace sluice::policy
