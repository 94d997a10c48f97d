// Any bytes as the argument of a command: what is taken fits on one line, keeps its bounds and says
// the same when it is written and read again; what is refused is refused in words.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/utf8.h"
#include "services/mail/smtp_command.h"
#include "services/mail/xtext.h"

namespace {

using namespace sluice::mail;  // NOLINT: a fuzzer is its own program

CommandExtensions ExtensionsOf(unsigned flags) {
  CommandExtensions extensions;
  extensions.dsn = (flags & 1) != 0;
  extensions.smtp_utf8 = (flags & 2) != 0;
  extensions.chunking = extensions.binary_mime = (flags & 4) != 0;
  extensions.require_tls = extensions.verp = (flags & 8) != 0;
  extensions.auth = extensions.mt_priority = (flags & 16) != 0;
  if ((flags & 32) != 0) extensions.qualify_with = "q.test";
  extensions.invalid_recipients = (flags & 64) != 0;
  return extensions;
}

// What no header, log line or command may be given.
bool IsOneLine(std::string_view text) {
  return text.find_first_of(std::string_view("\r\n\0", 3)) == text.npos;
}

void Refused(const ServerReply& reply) {
  SLUICE_CHECK(reply.code >= 500 && reply.code < 600 && !reply.text.empty());
}

// An address that was taken is taken again, as itself.
void Stable(const std::string& address, bool utf8, DomainRule rule) {
  MailboxView again;
  SLUICE_CHECK(ParseMailbox(address, utf8, rule, again) == AddressError::kNone);
  SLUICE_CHECK(again.Canonical() == address);
  // Outside of quotes nothing that could end a path, or be a comment in a header field.
  SLUICE_CHECK(again.domain.find_first_of(" \t()\"\\;,<>") == std::string_view::npos);
  SLUICE_CHECK(address.size() <= kMaxLocalPartBytes + 1 + kMaxDomainBytes);
}

void Mail(std::string_view argument, const CommandExtensions& extensions) {
  MailCommand mail;
  if (const auto refusal = ParseMailCommand(argument, extensions, mail)) return Refused(*refusal);
  SLUICE_CHECK(IsOneLine(mail.from) && sluice::IsUtf8(mail.from));
  if (!mail.from.empty()) Stable(mail.from, mail.smtp_utf8, DomainRule::kRequired);
  SLUICE_CHECK(!HoldsControl(mail.envid) && mail.envid.size() <= 100);
  SLUICE_CHECK(!mail.auth || !HoldsControl(*mail.auth));
  SLUICE_CHECK(!mail.mt_priority || (*mail.mt_priority >= -9 && *mail.mt_priority <= 9));
  SLUICE_CHECK(mail.body != BodyParam::kBinaryMime || extensions.binary_mime);
  // As our client would say it.
  std::string line = "FROM:<" + mail.from + ">";
  if (mail.smtp_utf8) line += " SMTPUTF8";
  if (!mail.envid.empty()) {
    const std::string envid = EncodeXtext(mail.envid);
    if (envid.size() > 100) return;  // written otherwise it was shorter
    line += " ENVID=" + envid;
  }
  MailCommand again;
  SLUICE_CHECK(!ParseMailCommand(line, extensions, again));
  SLUICE_CHECK(again.from == mail.from && again.envid == mail.envid);
}

void Rcpt(std::string_view argument, const CommandExtensions& extensions, bool utf8) {
  RcptCommand rcpt;
  if (const auto refusal = ParseRcptCommand(argument, extensions, utf8, rcpt)) {
    return Refused(*refusal);
  }
  SLUICE_CHECK(!rcpt.to.empty() && IsOneLine(rcpt.to) && sluice::IsUtf8(rcpt.to));
  SLUICE_CHECK(rcpt.domain_offset <= rcpt.to.size());
  if (!rcpt.invalid) Stable(rcpt.to, utf8, DomainRule::kOptional);
  SLUICE_CHECK(!HoldsControl(rcpt.orcpt) && rcpt.orcpt.size() <= 500);
  SLUICE_CHECK((rcpt.notify & kNotifyNever) == 0 || rcpt.notify == kNotifyNever);
  RcptCommand again;
  SLUICE_CHECK(!ParseRcptCommand("TO:<" + rcpt.to + ">", extensions, utf8, again));
  SLUICE_CHECK(again.to == rcpt.to && again.invalid == rcpt.invalid);
}

void Xclient(std::string_view argument) {
  XclientCommand xclient;
  if (const auto refusal = ParseXclientCommand(argument, xclient)) return Refused(*refusal);
  for (const auto& value : {xclient.name, xclient.address, xclient.helo, xclient.login,
                            xclient.protocol, xclient.dest_address}) {
    SLUICE_CHECK(!value || (!HoldsControl(*value) && value->size() <= kMaxDomainBytes));
  }
}

void Words(std::string_view text) {
  const std::string coded = EncodeXtext(text);
  SLUICE_CHECK(DecodeXtext(coded) == text);
  SLUICE_CHECK(std::all_of(coded.begin(), coded.end(), [](char c) { return c > ' ' && c <= '~'; }));
  const auto decoded = DecodeXtext(text);
  if (decoded) SLUICE_CHECK(DecodeXtext(EncodeXtext(*decoded)) == decoded);
  SLUICE_CHECK(IsValidUtf8(text) == sluice::IsUtf8(text));
  if (IsAcceptableHello(text)) {
    SLUICE_CHECK(IsOneLine(text) && text.find_first_of(" \t()\"\\;<>") == text.npos);
  }
  // Blanks around a command mean nothing.
  const CommandLine command = SplitCommand(text);
  const std::string around = " \t" + std::string(text) + "\t ";
  const CommandLine padded = SplitCommand(around);
  SLUICE_CHECK(command.verb == padded.verb && command.argument == padded.argument);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view argument(reinterpret_cast<const char*>(data) + 2, size - 2);
  const CommandExtensions extensions = ExtensionsOf(data[1]);
  switch (data[0]) {
    case 'M':
      Mail(argument, extensions);
      break;
    case 'R':
      Rcpt(argument, extensions, (data[1] & 2) != 0);
      break;
    case 'X':
      Xclient(argument);
      break;
    case 'B': {
      const auto bdat = ParseBdatCommand(argument);
      if (bdat) {
        const auto again =
            ParseBdatCommand(std::to_string(bdat->size) + (bdat->last ? " LAST" : ""));
        SLUICE_CHECK(again && again->size == bdat->size && again->last == bdat->last);
      }
      break;
    }
    default:
      Words(argument);
  }
  return 0;
}
