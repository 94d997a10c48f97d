// Queues: listing, pausing, retrying, their modes and sources.
#include <algorithm>

#include "tools/ctl/command_parts.h"
#include "tools/ctl/render.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

// One call a pattern; those that came before a failure hold.
template <typename Request, typename Response>
int ChangeQueues(Context& context, const QueueModeOptions& options, Request request,
                 std::string_view command, const std::string& what) {
  request.mutable_request()->set_author(Author(context, options.author));
  request.mutable_request()->set_reason(options.reason);
  if (!options.span.empty()) {
    const std::optional<int64_t> span_us = ParseSpanUs(options.span);
    if (!span_us.has_value() || *span_us <= 0) {
      return Usage(context, "--for " + PrintableText(options.span) +
                                ": give a time such as 90s, 15m or 4d12h");
    }
    request.mutable_request()->set_until_us(context.env.now_us() + *span_us);
  }
  Response total;
  int result = kExitOk;
  for (const std::string& pattern : options.patterns) {
    request.mutable_request()->set_pattern(pattern);
    Response response;
    const grpc::Status status = context.client.Call(request, &response);
    if (!status.ok()) {
      result = Failed(context, status, std::string(command) + " " + PrintableText(pattern));
      break;
    }
    total.set_queues(total.queues() + response.queues());
    total.mutable_names()->MergeFrom(response.names());
    for (const std::string& note : response.notes()) {
      if (std::find(total.notes().begin(), total.notes().end(), note) == total.notes().end()) {
        total.add_notes(note);
      }
    }
    for (const std::string& name : response.unreachable()) {
      const auto& known = total.unreachable();
      if (std::find(known.begin(), known.end(), name) == known.end()) total.add_unreachable(name);
    }
  }
  if (result != kExitOk && total.queues() == 0) return result;
  std::string text = Count(total.queues(), "queue") + " " + what + "\n";
  constexpr int kMostLines = 20;
  for (int i = 0; i < total.names_size() && i < kMostLines; ++i) {
    text += "  " + PrintableText(total.names(i)) + "\n";
  }
  if (total.queues() > kMostLines) text += "  ...\n";
  for (const std::string& note : total.notes()) text += PrintableText(note) + "\n";
  for (const std::string& name : total.unreachable()) {
    text += "no answer from " + PrintableText(name) +
            ": it has not heard of this; repeat the command when it is back\n";
  }
  Print(context, total, text);
  return result == kExitOk ? Partly(total) : result;
}

}  // namespace

int ListQueues(Context& context, const QueueListOptions& options) {
  admin::v1::ListQueuesRequest request;
  request.mutable_request()->set_pattern(options.pattern);
  request.mutable_request()->set_limit(options.limit);
  request.mutable_request()->set_after(options.after);
  request.mutable_request()->set_sort(options.sort);
  request.mutable_request()->set_paused_only(options.paused_only);
  request.mutable_request()->set_mode(options.mode);
  admin::v1::ListQueuesResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "queues");
  Print(context, response, RenderQueues(response, context.env.now_us()));
  return Partly(response);
}

int ShowQueue(Context& context, const std::string& name) {
  admin::v1::GetQueueRequest request;
  request.set_name(name);
  admin::v1::GetQueueResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "queues show " + PrintableText(name));
  Print(context, response, RenderQueue(response, context.env.now_us()));
  return kExitOk;
}

int Pause(Context& context, const PauseOptions& options) {
  admin::v1::PauseRequest request;
  request.set_queue_pattern(options.pattern);
  request.set_job_id(options.job);
  request.set_reason(options.reason);
  request.set_author(Author(context, options.author));
  if (options.pattern.empty() && options.job.empty()) {
    return Usage(context, "pause what? Give queues as DOMAIN/VMTA (with * and ?), or --job ID");
  }
  if (!options.span.empty()) {
    const std::optional<int64_t> span_us = ParseSpanUs(options.span);
    if (!span_us.has_value() || *span_us <= 0) {
      return Usage(context, "--for " + PrintableText(options.span) +
                                ": give a time such as 90s, 15m or 4d12h");
    }
    request.set_until_us(context.env.now_us() + *span_us);
  }
  admin::v1::PauseResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "pause");
  const auto& entry = response.entry();
  Print(context, response,
        "paused " + PrintableText(entry.queue_pattern().empty() ? "*/*" : entry.queue_pattern()) +
            (entry.job_id().empty() ? "" : " job " + PrintableText(entry.job_id())) +
            "; resume it by: sluicectl resume --id " + PrintableText(entry.id()) + "\n");
  return kExitOk;
}

int Resume(Context& context, const PauseOptions& options) {
  admin::v1::ResumeRequest request;
  request.set_queue_pattern(options.pattern);
  request.set_id(options.id);
  request.set_job_id(options.job);
  if (options.pattern.empty() && options.id.empty() && options.job.empty()) {
    return Usage(context,
                 "resume what? Give the queues exactly as they were paused, --job or --id; "
                 "`sluicectl pauses` lists them");
  }
  admin::v1::ResumeResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "resume");
  Print(context, response, Count(response.resumed(), "pause") + " lifted\n");
  if (response.resumed() != 0) return kExitOk;
  context.env.err << "sluicectl: resume: no such pause; `sluicectl pauses` lists them\n";
  return kExitNotFound;
}

int ListPauses(Context& context) {
  admin::v1::ListPausesResponse response;
  const grpc::Status status = context.client.Call(admin::v1::ListPausesRequest(), &response);
  if (!status.ok()) return Failed(context, status, "pauses");
  Print(context, response, RenderPauses(response, context.env.now_us()));
  return kExitOk;
}

int RetryQueues(Context& context, const std::string& pattern, bool recipients) {
  admin::v1::RetryQueuesRequest request;
  request.mutable_request()->set_pattern(pattern);
  request.mutable_request()->set_recipients(recipients);
  admin::v1::RetryQueuesResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "queues retry");
  Print(context, response, Count(response.queues(), "queue") + " tried again\n");
  return kExitOk;
}

int SetQueueMode(Context& context, bool backoff, const QueueModeOptions& options) {
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_backoff(backoff);
  return ChangeQueues<admin::v1::SetQueueModeRequest, admin::v1::SetQueueModeResponse>(
      context, options, request, backoff ? "queues backoff" : "queues normal",
      backoff ? "in backoff mode" : "back in normal mode");
}

int SetQueueSource(Context& context, bool disable, const QueueModeOptions& options) {
  admin::v1::SetQueueSourceRequest request;
  request.mutable_request()->set_disable(disable);
  request.mutable_request()->set_ip(options.source);
  return ChangeQueues<admin::v1::SetQueueSourceRequest, admin::v1::SetQueueSourceResponse>(
      context, options, request, disable ? "queues disable-source" : "queues enable-source",
      (disable ? "without source " : "with source ") + PrintableText(options.source));
}

}  // namespace sluice::ctl
