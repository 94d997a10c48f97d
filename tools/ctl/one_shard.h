// While the policy service is away nobody serves the admin API; each shard still says what it
// holds. Calls of the admin API as one shard answers them.
#pragma once

#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "sluice/admin/v1/admin_service.pb.h"
#include "sluice/queue/v1/queue_control.grpc.pb.h"

namespace sluice::ctl {

using ShardStub = queue::v1::QueueControlService::Stub;

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::GetStatusRequest& request,
                      admin::v1::GetStatusResponse* response);
grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::ListQueuesRequest& request,
                      admin::v1::ListQueuesResponse* response);
grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::GetQueueRequest& request,
                      admin::v1::GetQueueResponse* response);
grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::ListMessagesRequest& request,
                      admin::v1::ListMessagesResponse* response);
grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::GetMessageRequest& request,
                      admin::v1::GetMessageResponse* response);
grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::ListEventsRequest& request,
                      admin::v1::ListEventsResponse* response);

}  // namespace sluice::ctl
