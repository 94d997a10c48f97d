// Queued mail and its events: listing, showing, deleting, rerouting, releasing.
#include <algorithm>

#include "tools/ctl/command_parts.h"
#include "tools/ctl/render.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

// Recipients a call; a listing or a deletion of more is cut into calls.
constexpr uint32_t kListPage = 1'000;
constexpr uint32_t kChangePage = 10'000;

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

}  // namespace

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
