// SMTP commands of a client and their parameters (RFC 5321 4.1, and the extensions that the server
// knows).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "services/mail/address.h"
#include "services/mail/server_reply.h"

namespace sluice::mail {

enum class SmtpVerb : uint8_t {
  kUnknown,
  kHelo,
  kEhlo,
  kMail,
  kRcpt,
  kData,
  kBdat,
  kRset,
  kVrfy,
  kExpn,
  kNoop,
  kQuit,
  kHelp,
  kStartTls,
  kAuth,
  kXclient,
  kXack,
  kXmrg,
  kXdfn,
  kXprt,
  kForeign,  // the first word of another protocol (HTTP): this is no mail client
};

struct CommandLine {
  SmtpVerb verb = SmtpVerb::kUnknown;
  std::string_view argument;  // without blanks around it
};

// `line` without its CRLF.
CommandLine SplitCommand(std::string_view line);

// Which parameters a session allows. One that is not allowed is 555, as if unknown.
struct CommandExtensions {
  bool size = true;
  bool eight_bit_mime = true;
  bool chunking = false;
  bool binary_mime = false;  // only with chunking
  bool dsn = false;
  bool smtp_utf8 = false;
  bool require_tls = false;
  bool auth = false;
  bool verp = false;
  bool mt_priority = false;
  // What is no address is a recipient, too; it will bounce.
  bool invalid_recipients = false;
  // The domain of addresses that have none; empty: they are refused, but for Postmaster's.
  std::string qualify_with;
};

enum class BodyParam : uint8_t { kNone, k7Bit, k8BitMime, kBinaryMime };
enum class RetParam : uint8_t { kNone, kFull, kHeaders };

// NOTIFY= (RFC 3461 4.1), as in Delivery.notify.
inline constexpr uint32_t kNotifyNever = 1;
inline constexpr uint32_t kNotifySuccess = 2;
inline constexpr uint32_t kNotifyFailure = 4;
inline constexpr uint32_t kNotifyDelay = 8;

struct MailCommand {
  std::string from;   // MailboxView::Canonical; empty: the null sender
  uint64_t size = 0;  // SIZE=; 0: not given
  BodyParam body = BodyParam::kNone;
  RetParam ret = RetParam::kNone;
  bool smtp_utf8 = false;
  bool require_tls = false;
  std::string envid;                // decoded
  std::optional<std::string> auth;  // AUTH=, decoded; "" for "<>"
  std::optional<int> mt_priority;   // MT-PRIORITY= (RFC 6710), -9 to 9
  bool merge = false;               // XMRG in place of MAIL
  bool verp = false;                // each recipient gets a sender of its own
};

struct MergeDefinitions;

struct RcptCommand {
  std::string to;            // MailboxView::Canonical; "postmaster" may come without a domain
  size_t domain_offset = 0;  // where the domain begins in `to`; to.size() where it has none
  uint32_t notify = 0;       // kNotify bits; 0: not given
  std::string orcpt;         // "type;address" with the address decoded
  bool invalid = false;      // `to` is what stood between "<" and ">", and no address
  const MergeDefinitions* merge = nullptr;  // of XDFN; nullptr: no mail merge

  std::string_view domain() const { return std::string_view(to).substr(domain_offset); }
};

// `argument` is what follows "MAIL" or "RCPT". Fill `out` and return nothing, or return the
// refusal.
std::optional<ServerReply> ParseMailCommand(std::string_view argument,
                                            const CommandExtensions& extensions, MailCommand& out);
// `smtp_utf8`: the transaction has asked for it.
std::optional<ServerReply> ParseRcptCommand(std::string_view argument,
                                            const CommandExtensions& extensions, bool smtp_utf8,
                                            RcptCommand& out);

struct BdatCommand {
  uint64_t size = 0;
  bool last = false;
};
// Nothing where the size cannot be read, so that nobody knows where the next command begins.
std::optional<BdatCommand> ParseBdatCommand(std::string_view argument);

// XCLIENT (Postfix's XCLIENT_README): what a trusted proxy says of its client. Unset: not said, or
// said to be unknown.
struct XclientCommand {
  std::optional<std::string> name;     // of the client's host
  std::optional<std::string> address;  // IP, text
  std::optional<std::string> helo;
  std::optional<std::string> login;     // who authenticated at the proxy
  std::optional<std::string> protocol;  // SMTP, ESMTP
  std::optional<std::string> dest_address;
  std::optional<uint16_t> port;
  std::optional<uint16_t> dest_port;
};
std::optional<ServerReply> ParseXclientCommand(std::string_view argument, XclientCommand& out);

// Whether the text may stand as a client's name in HELO or EHLO: what real clients say (also names
// with "_"), but nothing that could break a Received header.
bool IsAcceptableHello(std::string_view name);

}  // namespace sluice::mail
