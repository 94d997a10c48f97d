// The admin API put together: the ways from policy to shards and workers, in this process or over
// gRPC, and both services on a server.
#pragma once

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>

#include "services/base/rpc/rpc_server.h"
#include "services/policy/core/admin.h"
#include "services/policy/core/queue_control_client.h"
#include "services/queue/core/shard.h"
#include "sluice/delivery/v1/delivery_service.pb.h"

namespace sluice::node {

// Each method of QueueControlService is a method of the shard.
void ServeQueueControl(RpcServer& server, Executor& executor, queue::Shard& shard);
void ServeAdmin(RpcServer& server, policy::Admin& admin);

// Called on the worker's executor.
using WorkerStatus = std::function<delivery::v1::GetWorkerStatusResponse(
    const delivery::v1::GetWorkerStatusRequest&)>;

// Lifetime of all: executors, shard and what WorkerStatus asks outlive them. Answers run on
// `admin`, the executor that asks.
std::shared_ptr<policy::QueueControlClient> LocalShard(Executor& admin, Executor& executor,
                                                       queue::Shard& shard);
std::shared_ptr<policy::QueueControlClient> RemoteShard(Executor& admin, std::string name,
                                                        std::shared_ptr<grpc::Channel> channel);
std::shared_ptr<policy::WorkerClient> LocalWorker(Executor& admin, Executor& executor,
                                                  WorkerStatus status, std::string name);
std::shared_ptr<policy::WorkerClient> RemoteWorker(Executor& admin, std::string name,
                                                   std::shared_ptr<grpc::Channel> channel);

}  // namespace sluice::node
