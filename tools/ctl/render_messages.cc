// Queued recipients, one message with its text, and what happened to it.
#include <string_view>

#include "tools/ctl/message_id_text.h"
#include "tools/ctl/render.h"
#include "tools/ctl/render_parts.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using Align = Table::Align;

std::string Id(std::string_view bytes) { return MessageIdText(bytes); }

std::string Address(std::string_view address) {
  return address.empty() ? "<>" : std::string(address);
}

std::string EventName(const common::v1::Event& event) {
  std::string name = common::v1::EventKind_Name(event.kind());
  constexpr std::string_view kPrefix = "EVENT_KIND_";
  if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
  for (char& c : name) {
    c = c == '_' ? '-' : static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  return name.empty() ? Number(static_cast<uint64_t>(event.kind())) : name;
}

}  // namespace

std::string RenderMessages(const admin::v1::ListMessagesResponse& messages, int64_t now_us) {
  if (messages.recipients().empty()) {
    return "no queued recipient matches\n" + Unreachable(messages.unreachable());
  }
  Table table({{"MESSAGE"},
               {"RECIPIENT", Align::kLeft, kAddressWidthMax},
               {"SENDER", Align::kLeft, kAddressWidthMax},
               {"QUEUE", Align::kLeft, kAddressWidthMax},
               {"STATE"},
               {"AGE", Align::kRight},
               {"DUE"},
               {"TRIES", Align::kRight},
               {"SIZE", Align::kRight},
               {"WHY IT WAITS", Align::kLeft, kReasonWidthMax}});
  for (const auto& r : messages.recipients()) {
    const common::v1::Reply& last = r.delivery().last_reply();
    // The reply with its code, where it is the reason.
    const bool replied = r.reason().empty() || r.reason() == last.text();
    table.AddRow({Id(r.message_id()), r.delivery().rcpt(), Address(r.mail_from()), r.queue(),
                  r.state(), Age(r.time_queued_us(), now_us), Until(r.due_us(), now_us),
                  Number(r.delivery().attempts()), FormatBytes(r.body_size()),
                  replied ? ReplyText(last) : r.reason()});
  }
  std::string out = table.ToString();
  if (!messages.after().empty()) out += "there are more: raise --limit\n";
  return out + Unreachable(messages.unreachable());
}

std::string RenderMessage(const admin::v1::GetMessageResponse& response, int64_t now_us) {
  const auto& message = response.message().message();
  Facts facts;
  facts.Add("message", Id(message.id()));
  if (!message.parent_id().empty()) facts.Add("parent", Id(message.parent_id()));
  facts.Add("sender", Address(message.mail_from()));
  facts.Add("queued", FormatTime(message.time_queued_us()) + " UTC, " +
                          Age(message.time_queued_us(), now_us) + " ago");
  facts.Add("size", FormatBytes(message.body_size()));
  facts.Add("client", message.client_ip().empty()
                          ? ""
                          : message.client_name() + " [" + message.client_ip() + "]");
  facts.Add("user", message.user());
  facts.Add("envid", message.envid());
  for (const auto& header : message.captured_headers()) facts.Add(header.name(), header.value());
  admin::v1::ListMessagesResponse recipients;
  *recipients.mutable_recipients() = response.message().recipients();
  std::string out = facts.ToString() + "\n" + RenderMessages(recipients, now_us);
  if (response.message().more()) {
    out += "there are more: sluicectl messages list --id " + Id(message.id()) + " --limit N\n";
  }
  if (!response.message().body().empty()) {
    out += "\n";
    std::string_view body = response.message().body();
    while (!body.empty()) {
      const size_t end = body.find('\n');
      out += PrintableText(body.substr(0, end)) + "\n";
      body.remove_prefix(end == std::string_view::npos ? body.size() : end + 1);
    }
  }
  return out;
}

std::string RenderEvents(const admin::v1::ListEventsResponse& events) {
  if (events.events().empty())
    return "no event of this message is kept\n" + Unreachable(events.unreachable());
  Table table({{"TIME (UTC)"},
               {"EVENT"},
               {"RECIPIENT", Align::kLeft, kAddressWidthMax},
               {"QUEUE", Align::kLeft, kAddressWidthMax},
               {"SOURCE IP"},
               {"HOST"},
               {"REPLY OR REASON", Align::kLeft, 100}});
  for (const auto& event : events.events()) {
    std::string what = ReplyText(event.reply());
    if (what.empty()) what = event.reason();
    if (what.empty()) what = event.dsn_diagnostic();
    if (!event.author().empty()) what += " (" + event.author() + ")";
    if (!event.bounce_category().empty()) what += " [" + event.bounce_category() + "]";
    table.AddRow({FormatTime(event.time_us()), EventName(event), event.rcpt(), event.queue(),
                  event.attempt().source_ip(),
                  event.attempt().destination_host().empty() ? event.attempt().destination_ip()
                                                             : event.attempt().destination_host(),
                  what});
  }
  return table.ToString() + (events.more() ? "there may be more: raise --limit\n" : "") +
         Unreachable(events.unreachable());
}

}  // namespace sluice::ctl
