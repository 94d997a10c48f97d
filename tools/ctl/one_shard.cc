#include "tools/ctl/one_shard.h"

#include <optional>
#include <string>

#include "services/mail/message_id.h"

namespace sluice::ctl {
namespace {

grpc::Status NoId() {
  return {grpc::StatusCode::INVALID_ARGUMENT, "a message id has 26 letters and digits"};
}

}  // namespace

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::GetStatusRequest&, admin::v1::GetStatusResponse* response) {
  queue::v1::GetShardStatusResponse* const status = response->add_shards();
  grpc::Status done = shard.GetShardStatus(context, {}, status);
  response->set_snapshot_version(status->snapshot_version());
  return done;
}

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::ListQueuesRequest& request,
                      admin::v1::ListQueuesResponse* response) {
  queue::v1::ListQueuesResponse answer;
  grpc::Status done = shard.ListQueues(context, request.request(), &answer);
  response->mutable_queues()->Swap(answer.mutable_queues());
  response->set_more(answer.more());
  return done;
}

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::GetQueueRequest& request,
                      admin::v1::GetQueueResponse* response) {
  queue::v1::GetQueueRequest query;
  query.set_name(request.name());
  queue::v1::GetQueueResponse answer;
  grpc::Status done = shard.GetQueue(context, query, &answer);
  if (done.ok()) response->add_per_shard()->Swap(answer.mutable_queue());
  return done;
}

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::ListMessagesRequest& request,
                      admin::v1::ListMessagesResponse* response) {
  queue::v1::ListMessagesResponse answer;
  grpc::Status done = shard.ListMessages(context, request.request(), &answer);
  response->mutable_recipients()->Swap(answer.mutable_recipients());
  response->set_after(answer.after());
  return done;
}

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::GetMessageRequest& request,
                      admin::v1::GetMessageResponse* response) {
  const std::optional<std::string> id = mail::ParseMessageId(request.message_id());
  if (!id) return NoId();
  queue::v1::GetMessageRequest query;
  query.set_message_id(*id);
  query.set_with_body(request.with_body());
  return shard.GetMessage(context, query, response->mutable_message());
}

grpc::Status AskShard(ShardStub& shard, grpc::ClientContext* context,
                      const admin::v1::ListEventsRequest& request,
                      admin::v1::ListEventsResponse* response) {
  const std::optional<std::string> id = mail::ParseMessageId(request.message_id());
  if (!id) return NoId();
  queue::v1::ReadEventsRequest query;
  query.set_message_id(*id);
  query.set_limit(request.limit());
  queue::v1::ReadEventsResponse answer;
  grpc::Status done = shard.ReadEvents(context, query, &answer);
  response->mutable_events()->Swap(answer.mutable_events());
  return done;
}

}  // namespace sluice::ctl
