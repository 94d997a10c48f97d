#include "services/node/admin_part.h"

#include <string>
#include <utility>

namespace sluice::node {
namespace {

template <class Req, class Resp>
void Serve(RpcServer& server, Executor& executor, queue::Shard& shard, const std::string& name,
           void (queue::Shard::*method)(Req, Done<Resp>)) {
  server.AddUnary<Req, Resp>("/sluice.queue.v1.QueueControlService/" + name, executor,
                             [&shard, method](Req request, Done<Resp> done) {
                               (shard.*method)(std::move(request), std::move(done));
                             });
}

}  // namespace

void ServeQueueControl(RpcServer& server, Executor& executor, queue::Shard& shard) {
  using queue::Shard;
  Serve(server, executor, shard, "GetShardStatus", &Shard::GetShardStatus);
  Serve(server, executor, shard, "ListQueues", &Shard::ListQueues);
  Serve(server, executor, shard, "GetQueue", &Shard::GetQueue);
  Serve(server, executor, shard, "ListMessages", &Shard::ListMessages);
  Serve(server, executor, shard, "GetMessage", &Shard::GetMessage);
  Serve(server, executor, shard, "DeleteMessages", &Shard::DeleteMessages);
  Serve(server, executor, shard, "RetryQueues", &Shard::RetryQueues);
  Serve(server, executor, shard, "RerouteMessages", &Shard::RerouteMessages);
  Serve(server, executor, shard, "ReleaseMessages", &Shard::ReleaseMessages);
  Serve(server, executor, shard, "ReadEvents", &Shard::ReadEvents);
}

}  // namespace sluice::node
