// Turns a received message into what a shard takes: Received field, captured and taken-out header
// fields, virtual MTA, queue of each recipient.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/clock.h"
#include "services/ingest/core/client_profile.h"
#include "services/ingest/core/delivery_window.h"
#include "services/mail/server_reply.h"
#include "services/mail/smtp_command.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::ingest {

// Longest value of a captured header field.
inline constexpr size_t kMaxCapturedBytes = 2048;
// Longest job id, envelope id and virtual MTA name taken from a header field.
inline constexpr size_t kMaxControlValueBytes = 256;

struct ReceivedFacts {
  std::string_view client_name;  // EHLO; empty: not said
  std::string_view client_ip;    // empty: no "from" clause
  std::string_view host_name;
  std::string_view protocol;   // SMTP, ESMTP, …
  std::string_view tls;        // what encrypted it, or empty
  std::string_view id;         // as text
  std::string_view recipient;  // the only one, or empty
};

// Makes Received fields (RFC 5321 4.4). Keeps the date of the last second that it wrote.
// Thread-safety: none.
class ReceivedWriter {
 public:
  // Appends the whole field with its CR LF. Dates are UTC.
  void Append(const ReceivedFacts& facts, WallTime now, std::string& out);

 private:
  int64_t second_ = -1;
  std::string date_;
};

// What the header section asks for.
struct ControlFields {
  std::optional<std::string> virtual_mta;
  std::string job_id;
  std::string envid;
  std::vector<DeliveryWindow> windows;
  std::string problem;                      // why the message cannot be taken as its fields ask
  size_t header_line = PatternList::kNone;  // first line of the pattern list that matched a field
  bool tls_optional = false;  // "TLS-Required: No", and no REQUIRETLS (RFC 8689 section 4.1)
  bool has_message_id = false;
  bool has_date = false;
};

// Which way a message goes: one for all recipients, unless lines of a pattern list look at them.
struct RouteChoice {
  Route route;                               // where no line of the pattern list matches
  std::shared_ptr<const PatternList> lines;  // set: lines about recipients are to be asked
  size_t line = PatternList::kNone;          // first line that matches the message as a whole

  // `rcpt` is the address after aliases.
  const Route& For(std::string_view rcpt) const;
};

// Reads the header section `buffer[begin, end)` (with its empty line, if there is one): captures
// fields into `message`, reads control fields where the client may use them, and takes out of
// `buffer` those that are not to stay. Returns the bytes taken out. Sets nothing else.
size_t ReadHeader(const ClientProfile& profile, size_t begin, size_t end, std::string& buffer,
                  common::v1::Message& message, ControlFields& control);

// The way that the message asks for, else that of the client's pattern list, else its default; or
// the refusal.
std::optional<mail::ServerReply> ChooseRoute(const ClientProfile& profile,
                                             const ControlFields& control,
                                             std::string_view mail_from, std::string_view local_ip,
                                             RouteChoice& choice);

// Puts the fields at `begin` that the client's messages are to have and this one has not. Returns
// the bytes put in. `message` has its recipients.
size_t AddHeaderFields(const ClientProfile& profile, const ControlFields& control,
                       const RouteChoice& choice, std::string_view id, WallTime now, size_t begin,
                       std::string& buffer, queue::v1::NewMessage& message);

// Completes deliveries[…], whose recipients are set: virtual MTA or pool, job, queue; adds the
// client's blind copy. `message` gets envelope values from `control` and the client's defaults.
void CompleteEnvelope(const ClientProfile& profile, const RouteChoice& choice,
                      const ControlFields& control, queue::v1::NewMessage& message);

// Appends a delivery to where aliases lead. `address` canonical; one without a domain gets the
// host's own. The refusal where the aliases go in a circle.
std::optional<mail::ServerReply> AddRecipient(const ClientProfile& profile,
                                              std::string_view address, uint32_t notify,
                                              std::string_view orcpt,
                                              queue::v1::NewMessage& message);

// Appends a delivery that will bounce at once, since `text` is no address.
void AddInvalidRecipient(std::string_view text, uint32_t notify, std::string_view orcpt,
                         WallTime now, queue::v1::NewMessage& message);

}  // namespace sluice::ingest
