// QueueControl over gRPC: each method of the service is a method of the shard.
#pragma once

#include "services/base/rpc/rpc_server.h"
#include "services/queue/core/shard.h"

namespace sluice::node {

void ServeQueueControl(RpcServer& server, Executor& executor, queue::Shard& shard);

}  // namespace sluice::node
