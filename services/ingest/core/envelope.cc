#include "services/ingest/core/envelope.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <optional>
#include <vector>

#include "services/base/idna.h"
#include "services/base/utf8.h"
#include "services/config/queue_mark.h"
#include "services/mail/header_fields.h"

namespace sluice::ingest {
namespace {

constexpr std::array<std::string_view, 4> kCaptured = {"From", "Sender", "Subject", "Message-ID"};

// "Sat, 21 Nov 2026 05:12:01 +0000" (RFC 5322 3.3), whatever the locale.
std::string FormatDate(int64_t unix_seconds) {
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const std::time_t time = unix_seconds;
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[80];
  std::snprintf(text, sizeof text, "%s, %02d %s %04d %02d:%02d:%02d +0000", kDays[utc.tm_wday],
                utc.tm_mday, kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min,
                utc.tm_sec);
  return text;
}

// The queue of recipients that are no addresses.
constexpr std::string_view kInvalidRecipients = "invalid-recipients.invalid";

void Capture(std::string_view name, std::string value, common::v1::Message& message) {
  common::v1::CapturedHeader* const captured = message.add_captured_headers();
  captured->set_name(name.data(), name.size());
  captured->set_value(std::move(value));
}

bool Contains(const policy::v1::StringList& names, std::string_view name) {
  return std::any_of(names.values().begin(), names.values().end(),
                     [&](const std::string& n) { return mail::HeaderNameEquals(n, name); });
}

bool IsNo(std::string_view value) {
  return value.size() == 2 && (value[0] | 0x20) == 'n' && (value[1] | 0x20) == 'o';
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; });
}

// The value of a field that comes to stand in lines of commands, files and terminals.
std::string ControlValue(std::string_view value) {
  std::string text = mail::UnfoldHeaderValue(value, kMaxControlValueBytes);
  std::replace(text.begin(), text.end(), '\t', ' ');  // of folds
  const auto is_control = [](char c) { return (c >= 0 && c < ' ') || c == 127; };
  std::replace_if(text.begin(), text.end(), is_control, '?');
  return text;
}

// In our field a name beyond ASCII would make the header one that only hosts with SMTPUTF8 take.
void AppendName(std::string_view name, std::string& out) {
  if (IsAscii(name)) {
    out += name;
  } else {
    out += HostNameToAscii(name).value_or("unknown");
  }
}

// The same for an address, where it has such a form; of its local part there is none.
void AppendAddress(std::string_view address, std::string& out) {
  const size_t domain = address.rfind('@') + 1;
  std::optional<std::string> ascii;
  if (domain != 0 && IsAscii(address.substr(0, domain)) && !IsAscii(address.substr(domain))) {
    ascii = HostNameToAscii(address.substr(domain));
  }
  out += ascii ? address.substr(0, domain) : address;
  if (ascii) out += *ascii;
}

}  // namespace

void ReceivedWriter::Append(const ReceivedFacts& facts, WallTime now, std::string& out) {
  const int64_t second = ToUnixMicros(now) / 1'000'000;
  if (second != second_) {
    second_ = second;
    date_ = FormatDate(second);
  }
  out += "Received: ";
  if (!facts.client_ip.empty()) {
    out += "from ";
    AppendName(facts.client_name.empty() ? std::string_view("unknown") : facts.client_name, out);
    out += " ([";
    if (facts.client_ip.find(':') != std::string_view::npos) out += "IPv6:";
    out += facts.client_ip;
    out += "])\r\n\t";
  }
  out += "by ";
  out += facts.host_name;
  out += " (Sluice) with ";
  out += facts.protocol;
  if (!facts.tls.empty()) {
    out += " (";
    out += facts.tls;
    out += ')';
  }
  out += " id ";
  out += facts.id;
  if (!facts.recipient.empty()) {
    out += "\r\n\tfor <";
    AppendAddress(facts.recipient, out);
    out += '>';
  }
  out += ";\r\n\t";
  out += date_;
  out += "\r\n";
}

size_t ReadHeader(const ClientProfile& profile, size_t begin, size_t end, std::string& buffer,
                  common::v1::Message& message, ControlFields& control) {
  const policy::v1::ClientSettings& client = *profile.settings;
  const std::string_view header(buffer.data() + begin, end - begin);
  std::array<bool, kCaptured.size()> captured{};
  const bool matches_header = profile.patterns != nullptr && profile.patterns->has_headers();
  std::vector<std::pair<size_t, size_t>> cuts;  // in `header`
  size_t tls_required = 0;
  bool tls_optional = false;
  mail::HeaderFieldReader reader(header);
  for (mail::HeaderField field; reader.Next(field);) {
    if (field.name.empty()) continue;
    for (size_t i = 0; i < kCaptured.size(); ++i) {
      if (captured[i] || !mail::HeaderNameEquals(field.name, kCaptured[i])) continue;
      captured[i] = true;
      std::string value = mail::UnfoldHeaderValue(field.value, kMaxCapturedBytes);
      if (i == 0) message.set_header_from(mail::FirstAddress(value));
      Capture(kCaptured[i], std::move(value), message);
    }
    const auto is = [&](std::string_view name) { return mail::HeaderNameEquals(field.name, name); };
    if (matches_header && profile.patterns->WantsHeader(field.name)) {
      control.header_line = profile.patterns->MatchHeader(
          field.name, mail::UnfoldHeaderValue(field.value, kMaxCapturedBytes), control.header_line);
    }
    if (is("TLS-Required") && !Contains(client.remove_header(), field.name)) {
      // With two of them it is not clear what the sender wants.
      tls_optional = ++tls_required == 1 && IsNo(mail::UnfoldHeaderValue(field.value, 3));
    }
    const bool date = profile.adds_header && is("Date");
    if (!profile.edits_header) {
      control.has_date |= date;
      continue;
    }
    bool cut = Contains(client.remove_header(), field.name);
    cut |= date && profile.dates_override;
    control.has_date |= date && !cut;
    cut |= client.remove_received_headers() && is("Received");
    cut |= client.add_x_virtual_mta_header() && is("X-Virtual-MTA");
    if (client.process_x_virtual_mta() && is("X-Virtual-MTA")) {
      std::string value = mail::UnfoldHeaderValue(field.value, kMaxControlValueBytes);
      Capture("X-Virtual-MTA", value, message);
      const bool none = value.empty() && client.allow_empty_x_virtual_mta();
      if (!control.virtual_mta && !none) control.virtual_mta = std::move(value);
      cut |= !client.retain_x_virtual_mta();
    } else if (client.process_x_job() &&
               is(client.jobid_header().empty() ? "X-Job" : client.jobid_header())) {
      std::string value = ControlValue(field.value);
      Capture(field.name, value, message);
      if (control.job_id.empty() && !value.empty()) control.job_id = client.jobid_prefix() + value;
      cut |= !client.retain_x_job();
    } else if (client.process_x_envid() && is("X-Envid")) {
      std::string value = ControlValue(field.value);
      Capture("X-Envid", value, message);
      if (control.envid.empty()) control.envid = std::move(value);
      cut |= !client.retain_x_envid();
    } else if (client.process_x_schedule() && is("X-Schedule")) {
      const std::string value = mail::UnfoldHeaderValue(field.value, kMaxCapturedBytes);
      if (control.windows.empty()) {
        control.windows = ParseDeliveryWindows(value, control.problem);
      }
      cut |= !client.retain_x_schedule();
    }
    if (cut) cuts.emplace_back(field.begin, field.end);
  }
  control.tls_optional = tls_optional && !message.require_tls();
  // Message-ID, unless it is one of those that are taken out.
  control.has_message_id = captured[3] && !Contains(client.remove_header(), kCaptured[3]);
  if (cuts.empty()) return 0;
  // One pass from the first cut to the end of the buffer.
  size_t to = begin + cuts.front().first;
  for (size_t i = 0; i < cuts.size(); ++i) {
    const size_t from = begin + cuts[i].second;
    const size_t until = i + 1 < cuts.size() ? begin + cuts[i + 1].first : buffer.size();
    std::copy(buffer.begin() + from, buffer.begin() + until, buffer.begin() + to);
    to += until - from;
  }
  const size_t removed = buffer.size() - to;
  buffer.resize(to);
  return removed;
}

const Route& RouteChoice::For(std::string_view rcpt) const {
  if (lines == nullptr) return route;
  const size_t matched = lines->MatchRecipient(rcpt, line);
  return matched == PatternList::kNone ? route : lines->route(matched);
}

std::optional<mail::ServerReply> ChooseRoute(const ClientProfile& profile,
                                             const ControlFields& control,
                                             std::string_view mail_from, std::string_view local_ip,
                                             RouteChoice& choice) {
  if (!control.problem.empty()) return mail::ServerReply{554, {5, 6, 0}, control.problem};
  choice = {profile.DefaultRoute(local_ip), nullptr, PatternList::kNone};
  if (const std::string* const vmta = profile.tables->VirtualMtaOfSender(mail_from)) {
    choice.route = Route{*vmta, ""};
    return std::nullopt;
  }
  if (control.virtual_mta) {
    const std::string& wanted = *control.virtual_mta;
    std::optional<Route> found = profile.FindRoute(wanted);
    if (!found) {
      return mail::ServerReply{554, {5, 7, 1}, "There is no virtual MTA \"" + wanted + "\""};
    }
    choice.route = *std::move(found);
    return std::nullopt;
  }
  if (profile.patterns == nullptr) return std::nullopt;
  choice.line = profile.patterns->MatchSender(mail_from, control.header_line);
  if (choice.line != PatternList::kNone) choice.route = profile.patterns->route(choice.line);
  if (profile.patterns->has_recipients()) choice.lines = profile.patterns;
  return std::nullopt;
}

size_t AddHeaderFields(const ClientProfile& profile, const ControlFields& control,
                       const RouteChoice& choice, std::string_view id, WallTime now, size_t begin,
                       std::string& buffer, queue::v1::NewMessage& message) {
  if (!profile.adds_header) return 0;
  const policy::v1::ClientSettings& client = *profile.settings;
  std::string fields;
  if (client.add_message_id_header() && !control.has_message_id) {
    std::string value = "<";
    value += id;
    value += "@" + profile.smtp.host_name + ">";
    fields += "Message-ID: " + value + "\r\n";
    Capture("Message-ID", std::move(value), *message.mutable_message());
  }
  const bool dates =
      !control.has_date && (profile.dates_override || client.add_date_header() == "yes");
  if (dates && client.date_header_time() == "delivery") {
    common::v1::HeaderEdit& edit = *message.mutable_message()->add_header_edits();
    edit.set_action(common::v1::HeaderEdit::ACTION_ADD);
    edit.set_name("Date");
  } else if (dates) {
    fields += "Date: " + FormatDate(ToUnixMicros(now) / 1'000'000) + "\r\n";
  }
  if (client.add_x_virtual_mta_header() && message.deliveries_size() != 0) {
    // A message whose recipients go different ways has no single answer.
    const Route& route = choice.For(message.deliveries(0).delivery().rcpt());
    const bool same = choice.lines == nullptr ||
                      std::all_of(message.deliveries().begin(), message.deliveries().end(),
                                  [&](const queue::v1::NewDelivery& each) {
                                    return choice.For(each.delivery().rcpt()) == route;
                                  });
    if (same) {
      fields += "X-Virtual-MTA: " + (route.pool.empty() ? route.vmta : route.pool) + "\r\n";
    }
  }
  buffer.insert(begin, fields);
  return fields.size();
}

std::optional<mail::ServerReply> AddRecipient(const ClientProfile& profile,
                                              std::string_view address, uint32_t notify,
                                              std::string_view orcpt,
                                              queue::v1::NewMessage& message) {
  std::string rcpt(address);
  if (profile.tables->has_aliases()) {
    std::optional<std::string> resolved = profile.tables->Resolve(address);
    if (!resolved) return mail::ServerReply{550, {5, 4, 6}, "The aliases of this address loop"};
    rcpt = *std::move(resolved);
  }
  // A quoted local part may hold "@"; the domain never does.
  if (rcpt.rfind('@') == std::string::npos) {
    rcpt += '@';
    rcpt += profile.tables->local_domain();
  }
  common::v1::Delivery* const delivery = message.add_deliveries()->mutable_delivery();
  delivery->set_rcpt_given(address.data(), address.size());
  delivery->set_rcpt(std::move(rcpt));
  if (notify == 0 && profile.settings->suppress_local_dsn()) notify = mail::kNotifyNever;
  if (notify != 0) delivery->set_notify(notify);
  if (!orcpt.empty()) delivery->set_orcpt(orcpt.data(), orcpt.size());
  return std::nullopt;
}

void AddInvalidRecipient(std::string_view text, uint32_t notify, std::string_view orcpt,
                         WallTime now, queue::v1::NewMessage& message) {
  common::v1::Delivery& delivery = *message.add_deliveries()->mutable_delivery();
  delivery.set_rcpt_given(text.data(), text.size());
  delivery.set_rcpt(text.data(), text.size());
  delivery.set_queue_domain(kInvalidRecipients.data(), kInvalidRecipients.size());
  if (notify != 0) delivery.set_notify(notify);
  if (!orcpt.empty()) delivery.set_orcpt(orcpt.data(), orcpt.size());
  delivery.set_expires_us(ToUnixMicros(now));
  common::v1::Reply& reply = *delivery.mutable_last_reply();
  reply.set_code(501);
  reply.set_enhanced("5.1.3");
  reply.set_text("The address has wrong syntax");
  reply.set_stage(common::v1::STAGE_RCPT);
  reply.set_local(true);
}

namespace {

// One more recipient; of a mail merge one for each, so that the copy is what that one got.
void AddBlindCopies(const PolicyTables& tables, const std::string& to,
                    queue::v1::NewMessage& message) {
  // An alias is one for copies, too; one that loops is told to those who write to it.
  const std::string rcpt = tables.has_aliases() ? tables.Resolve(to).value_or(to) : to;
  const int recipients = message.message().is_template() ? message.deliveries_size() : 1;
  for (int i = 0; i < recipients; ++i) {
    common::v1::Delivery copy;
    if (message.message().is_template()) {
      const common::v1::Delivery& given = message.deliveries(i).delivery();
      *copy.mutable_merge_variables() = given.merge_variables();
      (*copy.mutable_merge_variables())["*to"] = given.rcpt();
      *copy.mutable_parts() = given.parts();
      copy.set_vmta(given.vmta());
      copy.set_pool(given.pool());
      copy.set_job_id(given.job_id());
      copy.set_envelope_id(given.envelope_id());
    }
    copy.set_rcpt_given(to);
    copy.set_rcpt(rcpt);
    copy.set_notify(mail::kNotifyNever);
    *message.add_deliveries()->mutable_delivery() = std::move(copy);
  }
}

}  // namespace

void CompleteEnvelope(const ClientProfile& profile, const RouteChoice& choice,
                      const ControlFields& control, queue::v1::NewMessage& new_message) {
  common::v1::Message& message = *new_message.mutable_message();
  if (profile.settings->verp_default()) message.set_verp(true);
  // Nobody answers to a report of the null sender's.
  if (message.verp() && message.mail_from().empty()) message.clear_verp();
  if (!control.windows.empty()) {
    message.set_not_before_us(control.windows.front().begin_us);
    if (control.windows.back().end_us != 0) {
      message.set_deliver_by_us(control.windows.back().end_us);
    }
  }
  if (!profile.settings->bcc().empty()) {
    AddBlindCopies(*profile.tables, profile.settings->bcc(), new_message);
  }
  if (!profile.settings->source_group().empty()) {
    message.set_source_group(profile.settings->source_group());
  }
  if (!control.envid.empty() && message.envid().empty()) message.set_envid(control.envid);
  if (message.dsn_return() == common::v1::DSN_RETURN_UNSPECIFIED &&
      profile.settings->dsn_return_default() == "full") {
    message.set_dsn_return(common::v1::DSN_RETURN_FULL);
  }
  message.set_snapshot_version(profile.policy->version());
  // Neighbouring recipients often share their domain.
  std::string last_domain;
  Route own_route;
  std::shared_ptr<const policy::v1::QueueSettings> settings;
  for (queue::v1::NewDelivery& new_delivery : *new_message.mutable_deliveries()) {
    common::v1::Delivery& delivery = *new_delivery.mutable_delivery();
    if (!control.windows.empty() && control.windows.back().end_us != 0 &&
        delivery.expires_us() == 0) {
      delivery.set_expires_us(control.windows.back().end_us);
    }
    for (const DeliveryWindow& window : control.windows) {
      if (control.windows.size() == 1) break;  // said by not_before and expires
      common::v1::TimeWindow& said = *delivery.add_windows();
      said.set_begin_us(window.begin_us);
      said.set_end_us(window.end_us != 0 ? window.end_us : INT64_MAX);
    }
    const std::string_view rcpt = delivery.rcpt();
    std::string_view domain = rcpt.substr(rcpt.rfind('@') + 1);
    std::optional<std::string> ascii;
    if (std::any_of(domain.begin(), domain.end(), [](char c) { return c < 0; })) {
      ascii = HostNameToAscii(domain);
      if (ascii) domain = *ascii;
    }
    // A mail merge may have said it.
    const bool own = !delivery.vmta().empty() || !delivery.pool().empty();
    if (own) own_route = {delivery.vmta(), delivery.pool()};
    const Route& route = own ? own_route : choice.For(rcpt);
    if (settings == nullptr || domain != last_domain || choice.lines != nullptr || own) {
      last_domain = domain;
      settings = profile.policy->ForQueue(domain, route.vmta, route.pool);
    }
    // The time that a queue gives mail begins when it may leave.
    if (message.not_before_us() != 0 && delivery.expires_us() == 0 &&
        settings->bounce_after_us() > 0) {
      delivery.set_expires_us(std::max(message.not_before_us(), message.time_queued_us()) +
                              static_cast<int64_t>(settings->bounce_after_us()));
    }
    if (own) last_domain.clear();  // the next one's route may be another
    if (!route.pool.empty()) {
      delivery.set_pool(route.pool);
    } else {
      delivery.set_vmta(route.vmta);
    }
    if (!control.job_id.empty() && delivery.job_id().empty()) {
      delivery.set_job_id(control.job_id);
    }
    // From a header or a mail merge it may be anything.
    if (!IsUtf8(delivery.job_id())) delivery.set_job_id(ToUtf8(delivery.job_id()));
    const std::string& queue_to = settings->queue_to();
    // "domain" or "domain/vmta".
    const size_t slash = queue_to.find('/');
    if (!queue_to.empty()) delivery.set_queue_domain(queue_to.substr(0, slash));
    if (control.tls_optional && delivery.queue_domain() != kInvalidRecipients) {
      std::string marked(config::kTlsOptionalMark);
      marked += queue_to.empty() ? domain : std::string_view(queue_to).substr(0, slash);
      delivery.set_queue_domain(std::move(marked));
    }
    if (queue_to.empty() || slash == std::string::npos) continue;
    const auto other = LookupRoute(*profile.policy, queue_to.substr(slash + 1));
    if (!other) continue;
    delivery.clear_pool();
    delivery.clear_vmta();
    other->pool.empty() ? delivery.set_vmta(other->vmta) : delivery.set_pool(other->pool);
  }
}

}  // namespace sluice::ingest
