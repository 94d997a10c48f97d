// The state of the cluster and what belongs to all of it: status, top, owners, connections, clocks.
#include "tools/ctl/command_parts.h"
#include "tools/ctl/json.h"
#include "tools/ctl/render.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {

int Status(Context& context) {
  admin::v1::GetStatusResponse response;
  const grpc::Status status = context.client.Call(admin::v1::GetStatusRequest(), &response);
  if (!status.ok()) return Failed(context, status, "status");
  Print(context, response, RenderStatus(response, context.env.now_us()));
  return Partly(response);
}

int Top(Context& context, const TopOptions& options) {
  admin::v1::GetStatusResponse before;
  grpc::Status status = context.client.Call(admin::v1::GetStatusRequest(), &before);
  int64_t before_us = context.env.now_us();
  while (status.ok()) {
    context.env.sleep_us(options.interval_us);
    admin::v1::GetStatusResponse now;
    status = context.client.Call(admin::v1::GetStatusRequest(), &now);
    if (!status.ok()) break;
    const int64_t now_us = context.env.now_us();
    admin::v1::ListQueuesRequest request;
    request.mutable_request()->set_limit(options.limit);
    admin::v1::ListQueuesResponse queues;
    status = context.client.Call(request, &queues);
    if (!status.ok()) break;
    if (context.json) {
      context.env.out << "{\"status\": " << ToJson(now, 0) << ", \"queues\": " << ToJson(queues, 0)
                      << "}\n";
    } else {
      // Home and clear, so that the screen is drawn over and not scrolled.
      if (context.env.out_is_terminal && !options.once) context.env.out << "\x1b[H\x1b[2J";
      context.env.out << RenderTop(before, now, now_us - before_us, queues, now_us);
    }
    context.env.out.flush();
    if (options.once) return Partly(now);
    if (!context.env.out) return kExitOk;  // whoever read it has gone
    before = std::move(now);
    before_us = now_us;
  }
  return Failed(context, status, "top");
}

int ListOwners(Context& context) {
  admin::v1::ListOwnersResponse response;
  const grpc::Status status = context.client.Call(admin::v1::ListOwnersRequest(), &response);
  if (!status.ok()) return Failed(context, status, "owners");
  Print(context, response, RenderOwners(response));
  return kExitOk;
}

int ListConnections(Context& context, const std::string& pattern) {
  admin::v1::GetStatusRequest request;
  request.set_with_connections(true);
  request.set_queue_pattern(pattern);
  admin::v1::GetStatusResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "connections");
  response.clear_shards();
  response.clear_watchers();
  response.clear_controls();
  Print(context, response, RenderConnections(response));
  return Partly(response);
}

int ShowClock(Context& context) {
  admin::v1::GetStatusResponse response;
  const grpc::Status status = context.client.Call(admin::v1::GetStatusRequest(), &response);
  if (!status.ok()) return Failed(context, status, "clock");
  Print(context, response, RenderClocks(response, context.env.now_us()));
  return Partly(response);
}

int ConfirmClock(Context& context, const std::string& author) {
  admin::v1::ConfirmClockRequest request;
  request.set_author(Author(context, author));
  admin::v1::ConfirmClockResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "clock confirm");
  std::string text;
  for (const auto& shard : response.shards()) {
    text +=
        PrintableText(shard.shard() + ": " + FormatTime(shard.wall_unix_us()) + " UTC is right") +
        (shard.was_frozen_us() > 0 ? ", mail expires again\n" : "; nothing waited for that\n");
  }
  for (const std::string& name : response.unreachable()) {
    text += "no answer from " + PrintableText(name) + ": nothing was confirmed there\n";
  }
  Print(context, response, text);
  return Partly(response);
}

}  // namespace sluice::ctl
