// The admin API put together: the ways from policy to shards and workers, in this process or over
// gRPC, and both services on a server.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "services/base/rpc/rpc_server.h"
#include "services/delivery/core/worker.h"
#include "services/policy/core/admin.h"
#include "services/policy/core/queue_control_client.h"
#include "services/queue/core/shard.h"

namespace sluice::node {

// Each method of QueueControlService is a method of the shard.
void ServeQueueControl(RpcServer& server, Executor& executor, queue::Shard& shard);
void ServeAdmin(RpcServer& server, policy::Admin& admin);

// Lifetime of all: executors, shard and worker outlive them. Answers run on `admin`, the executor
// that asks.
std::shared_ptr<policy::QueueControlClient> LocalShard(Executor& admin, Executor& executor,
                                                       queue::Shard& shard);
std::shared_ptr<policy::QueueControlClient> RemoteShard(Executor& admin, std::string name,
                                                        std::shared_ptr<grpc::Channel> channel);
std::shared_ptr<policy::WorkerClient> LocalWorker(Executor& admin, Executor& executor,
                                                  delivery::Worker& worker, std::string name);
std::shared_ptr<policy::WorkerClient> RemoteWorker(Executor& admin, std::string name,
                                                   std::shared_ptr<grpc::Channel> channel);

}  // namespace sluice::node
