#include "tools/ctl/commands.h"

#include <algorithm>
#include <optional>

#include "services/mail/message_id.h"
#include "tools/ctl/json.h"
#include "tools/ctl/render.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

// Recipients a call; a listing or a deletion of more is cut into calls.
constexpr uint32_t kListPage = 1'000;
constexpr uint32_t kChangePage = 10'000;

void Print(Context& context, const google::protobuf::Message& message, const std::string& text) {
  context.env.out << (context.json ? ToJson(message) + "\n" : text);
}

int Failed(Context& context, const grpc::Status& status, std::string_view what) {
  return ReportFailure(status, what, context.client.options().server, context.client.connected(),
                       context.env);
}

int Usage(Context& context, std::string_view what) {
  context.env.err << "sluicectl: " << what << "\n";
  return kExitUsage;
}

template <typename Response>
int Partly(const Response& response) {
  return response.unreachable().empty() ? kExitOk : kExitPartly;
}

std::string Author(const Context& context, const std::string& given) {
  return given.empty() ? context.env.user : given;
}

std::optional<std::string> IdBytes(Context& context, const std::string& text) {
  std::optional<std::string> bytes = mail::ParseMessageId(text);
  if (!bytes.has_value()) {
    Usage(context, PrintableText(text) +
                       " is no message id: 26 letters and digits, as the 250 "
                       "reply, `messages list` and the logs show it");
  }
  return bytes;
}

// False, with the error told, where an argument cannot be read.
bool FillFilter(Context& context, const FilterOptions& options, queue::v1::MessageFilter& filter) {
  if (!options.id.empty()) {
    const std::optional<std::string> id = IdBytes(context, options.id);
    if (!id.has_value()) return false;
    filter.set_message_id(*id);
  }
  if (!options.older_than.empty()) {
    const std::optional<int64_t> span_us = ParseSpanUs(options.older_than);
    if (!span_us.has_value() || *span_us <= 0) {
      Usage(context, "--older-than " + PrintableText(options.older_than) +
                         ": give a time such as 90s, 15m or 4d12h");
      return false;
    }
    filter.set_older_than_us(*span_us);
  }
  filter.set_queue_pattern(options.queue);
  filter.set_sender(options.sender);
  filter.set_rcpt(options.rcpt);
  filter.set_job_id(options.job);
  filter.set_envid(options.envid);
  filter.set_vmta(options.vmta);
  filter.set_held_only(options.held);
  return true;
}

bool IsEmpty(const queue::v1::MessageFilter& filter) { return filter.ByteSizeLong() == 0; }

// As FillFilter, and mail is only changed on an explicit choice.
bool FillChangeFilter(Context& context, const FilterOptions& options,
                      queue::v1::MessageFilter& filter) {
  if (!FillFilter(context, options, filter)) return false;
  if (IsEmpty(filter) && !options.all) {
    Usage(context, "which messages? Give a filter (--help lists them), or --all");
    return false;
  }
  if (!IsEmpty(filter) && options.all) {
    Usage(context, "--all and a filter contradict each other");
    return false;
  }
  filter.set_all(options.all);
  return true;
}

// Calls until nothing matches any more, or `limit` recipients are done. `call` takes the size of a
// step and returns how many were done, or nothing where it failed.
template <typename CallOne>
bool InSteps(uint64_t limit, CallOne call) {
  uint64_t done = 0;
  while (limit == 0 || done < limit) {
    const auto step = static_cast<uint32_t>(
        limit == 0 ? kChangePage : std::min<uint64_t>(kChangePage, limit - done));
    const std::optional<uint64_t> n = call(step);
    if (!n.has_value()) return false;
    if (*n < step) break;
    done += *n;
  }
  return true;
}

std::string Count(uint64_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

}  // namespace

int Status(Context& context) {
  admin::v1::GetStatusResponse response;
  const grpc::Status status = context.client.Call(admin::v1::GetStatusRequest(), &response);
  if (!status.ok()) return Failed(context, status, "status");
  Print(context, response, RenderStatus(response, context.env.now_us()));
  return Partly(response);
}

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

int CheckConfig(Context& context, const std::vector<std::string>& files, bool strict) {
  admin::v1::CheckConfigRequest request;
  request.mutable_files()->Assign(files.begin(), files.end());
  admin::v1::CheckConfigResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "config check");
  Print(context, response, RenderCheck(response));
  if (!response.loads() || (strict && response.diagnostics_size() > 0)) return 2;
  return response.diagnostics_size() > 0 ? 1 : 0;
}

int ExplainRunning(Context& context, const ConfigOptions& options) {
  admin::v1::ExplainConfigRequest request;
  request.set_domain(options.domain);
  request.set_vmta(options.vmta);
  request.set_pool(options.pool);
  request.set_source(options.source);
  request.set_client(options.client);
  admin::v1::ExplainConfigResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "config explain --running");
  config::Explanation answer;
  for (const auto& subject : response.subjects()) {
    auto& settings = answer.subjects.emplace_back(subject.subject(), 0).second;
    for (const auto& setting : subject.settings()) {
      settings.push_back({setting.directive(), setting.value(), setting.section(), setting.where(),
                          setting.is_default()});
    }
  }
  answer.notes = {response.notes().begin(), response.notes().end()};
  PrintExplanation(context.env, answer, options.all, context.json);
  return kExitOk;
}

bool OwnedAddresses(Context& context, std::set<std::string>* addresses) {
  admin::v1::GetStatusResponse response;
  const grpc::Status status = context.client.Call(admin::v1::GetStatusRequest(), &response);
  if (!status.ok()) {
    Failed(context, status, "config check --live");
    return false;
  }
  for (const auto& worker : response.workers()) {
    for (const auto& source : worker.sources()) {
      if (source.owned()) addresses->insert(source.ip());
    }
    // Also what no virtual MTA of the running configuration names.
    addresses->insert(worker.addresses().begin(), worker.addresses().end());
  }
  return true;
}

int Reload(Context& context, uint32_t wait_ms) {
  admin::v1::ReloadConfigRequest request;
  request.set_wait_ms(wait_ms);
  admin::v1::ReloadConfigResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "reload");
  Print(context, response, RenderReload(response));
  const bool all =
      std::all_of(response.watchers().begin(), response.watchers().end(),
                  [&](const admin::v1::WatcherStatus& watcher) {
                    return watcher.acked_version() == response.version() && watcher.error().empty();
                  });
  return all ? kExitOk : kExitPartly;
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

int ListOwners(Context& context) {
  admin::v1::ListOwnersResponse response;
  const grpc::Status status = context.client.Call(admin::v1::ListOwnersRequest(), &response);
  if (!status.ok()) return Failed(context, status, "owners");
  Print(context, response, RenderOwners(response));
  return kExitOk;
}

int ListMessages(Context& context, const FilterOptions& filter, uint64_t limit) {
  admin::v1::ListMessagesRequest request;
  if (!FillFilter(context, filter, *request.mutable_request()->mutable_filter())) return kExitUsage;
  if (IsEmpty(request.request().filter())) {
    request.mutable_request()->mutable_filter()->set_all(true);
  }
  admin::v1::ListMessagesResponse all;
  while (true) {
    const uint64_t missing = limit - static_cast<uint64_t>(all.recipients_size());
    request.mutable_request()->set_limit(
        static_cast<uint32_t>(std::min<uint64_t>(kListPage, missing)));
    admin::v1::ListMessagesResponse page;
    const grpc::Status status = context.client.Call(request, &page);
    if (!status.ok()) return Failed(context, status, "messages list");
    for (auto& recipient : *page.mutable_recipients()) {
      all.add_recipients()->Swap(&recipient);
    }
    all.set_after(page.after());
    *all.mutable_unreachable() = page.unreachable();
    if (page.after().empty() || static_cast<uint64_t>(all.recipients_size()) >= limit) break;
    if (page.after() == request.request().after()) break;  // a server that does not advance
    request.mutable_request()->set_after(page.after());
  }
  Print(context, all, RenderMessages(all, context.env.now_us()));
  return Partly(all);
}

int ShowMessage(Context& context, const std::string& id, bool body) {
  if (!IdBytes(context, id).has_value()) return kExitUsage;
  admin::v1::GetMessageRequest request;
  request.set_message_id(id);
  request.set_with_body(body);
  admin::v1::GetMessageResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "messages show " + id);
  Print(context, response, RenderMessage(response, context.env.now_us()));
  return kExitOk;
}

int DeleteMessages(Context& context, const FilterOptions& filter, const ChangeOptions& change) {
  admin::v1::DeleteMessagesRequest request;
  if (!FillChangeFilter(context, filter, *request.mutable_request()->mutable_filter())) {
    return kExitUsage;
  }
  request.mutable_request()->set_author(Author(context, change.author));
  request.mutable_request()->set_reason(change.reason);
  request.mutable_request()->set_bounce(change.bounce);
  admin::v1::DeleteMessagesResponse total;
  grpc::Status status;
  const bool ok = InSteps(change.limit, [&](uint32_t step) -> std::optional<uint64_t> {
    request.mutable_request()->set_limit(step);
    admin::v1::DeleteMessagesResponse response;
    status = context.client.Call(request, &response);
    if (!status.ok()) return std::nullopt;
    total.set_recipients(total.recipients() + response.recipients());
    total.set_leased(response.leased());
    *total.mutable_unreachable() = response.unreachable();
    return response.recipients();
  });
  std::string text =
      Count(total.recipients(), "recipient") + (change.bounce ? " bounced\n" : " deleted\n");
  if (total.leased() != 0) {
    text +=
        std::to_string(total.leased()) + " with a worker at this moment: they go when it answers\n";
  }
  for (const std::string& name : total.unreachable()) {
    text += "no answer from " + PrintableText(name) + ": nothing was deleted there\n";
  }
  if (ok || total.recipients() != 0) Print(context, total, text);
  return ok ? Partly(total) : Failed(context, status, "messages delete");
}

int RerouteMessages(Context& context, const FilterOptions& filter, const ChangeOptions& change) {
  admin::v1::RerouteMessagesRequest request;
  if (!FillChangeFilter(context, filter, *request.mutable_request()->mutable_filter())) {
    return kExitUsage;
  }
  request.mutable_request()->set_target(change.target);
  request.mutable_request()->set_author(Author(context, change.author));
  request.mutable_request()->set_reason(change.reason);
  // One call: rerouted mail can match the filter again, so repeating would not end.
  request.mutable_request()->set_limit(static_cast<uint32_t>(change.limit));
  admin::v1::RerouteMessagesResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "messages reroute");
  Print(context, response, Count(response.recipients(), "recipient") + " rerouted\n");
  return kExitOk;
}

int ReleaseMessages(Context& context, const FilterOptions& filter, const ChangeOptions& change) {
  admin::v1::ReleaseMessagesRequest request;
  if (!FillChangeFilter(context, filter, *request.mutable_request()->mutable_filter())) {
    return kExitUsage;
  }
  request.mutable_request()->set_author(Author(context, change.author));
  request.mutable_request()->set_limit(static_cast<uint32_t>(change.limit));
  admin::v1::ReleaseMessagesResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "messages release");
  Print(context, response, Count(response.recipients(), "recipient") + " released\n");
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

int ListEvents(Context& context, const std::string& id, uint32_t limit) {
  if (!IdBytes(context, id).has_value()) return kExitUsage;
  admin::v1::ListEventsRequest request;
  request.set_message_id(id);
  request.set_limit(limit);
  admin::v1::ListEventsResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "events");
  Print(context, response, RenderEvents(response));
  return Partly(response);
}

}  // namespace sluice::ctl
