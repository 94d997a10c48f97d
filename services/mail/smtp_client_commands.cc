// The part of SmtpClientSession that words commands, and says which of what goes to and fro a log
// may show: everything but texts, and what AUTH says.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/idna.h"
#include "services/mail/smtp_client_session.h"
#include "services/mail/smtp_client_verdict.h"
#include "services/mail/xtext.h"

namespace sluice::mail {
namespace {

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

}  // namespace

// As it is sent: a peer without SMTPUTF8 may still be told a domain beyond ASCII, by its A-labels
// (RFC 6531 section 3.2 leaves that to the client); of a local part there is no other form.
std::string_view SmtpClientSession::OnTheWire(std::string_view address,
                                              std::string* converted) const {
  if (peer_.smtputf8 || IsAscii(address)) return address;
  const size_t at = address.rfind('@');
  if (at == std::string_view::npos || !IsAscii(address.substr(0, at))) return address;
  const auto domain = HostNameToAscii(address.substr(at + 1));
  if (!domain) return address;
  *converted = absl::StrCat(absl::string_view(address.data(), at + 1), *domain);
  return *converted;
}

bool SmtpClientSession::MustBeUtf8(const ClientTransaction& given) const {
  return given.smtputf8 || !IsAscii(given.mail_from) ||
         !std::all_of(given.recipients.begin(), given.recipients.end(), IsAscii);
}

std::string SmtpClientSession::MailCommand(const ClientTransaction& given) const {
  std::string converted;
  const std::string_view sender = OnTheWire(given.mail_from, &converted);
  std::string command =
      absl::StrCat("MAIL FROM:<", absl::string_view(sender.data(), sender.size()), ">");
  if (peer_.size && given.size > 0) absl::StrAppend(&command, " SIZE=", given.size);
  if (given.binary) {
    command += " BODY=BINARYMIME";
  } else if (peer_.eight_bit_mime && given.eight_bit && options_.use_8bitmime) {
    command += " BODY=8BITMIME";
  }
  if (peer_.smtputf8 && MustBeUtf8(given)) command += " SMTPUTF8";
  if (given.require_tls) command += " REQUIRETLS";
  if (peer_.dsn && options_.use_dsn) {
    if (given.ret == ClientTransaction::Ret::kFull) command += " RET=FULL";
    if (given.ret == ClientTransaction::Ret::kHeaders) command += " RET=HDRS";
    // One that is too long would make the remote refuse the mail for it.
    const std::string envid = EncodeXtext(given.envid);
    if (!envid.empty() && envid.size() <= kMaxEnvidBytes) {
      absl::StrAppend(&command, " ENVID=", envid);
    }
  }
  command += "\r\n";
  return command;
}

void SmtpClientSession::AppendRcpt(const ClientTransaction& given, size_t recipient,
                                   std::string* command) const {
  std::string converted;
  const std::string_view address = OnTheWire(given.recipients[recipient], &converted);
  absl::StrAppend(command, "RCPT TO:<", absl::string_view(address.data(), address.size()), ">");
  if (recipient < given.dsn.size() && peer_.dsn && options_.use_dsn) {
    const RecipientDsn& dsn = given.dsn[recipient];
    if ((dsn.notify & 1) != 0) {
      *command += " NOTIFY=NEVER";
    } else if (dsn.notify != 0) {
      static constexpr std::pair<uint32_t, const char*> kNames[] = {
          {2, "SUCCESS"}, {4, "FAILURE"}, {8, "DELAY"}};
      const char* before = " NOTIFY=";
      for (const auto& [bit, name] : kNames) {
        if ((dsn.notify & bit) != 0) absl::StrAppend(command, std::exchange(before, ","), name);
      }
    }
    // xtext has no form for an address that is not ASCII.
    if (!dsn.orcpt.empty() && IsAscii(dsn.orcpt)) {
      const std::string orcpt = EncodeXtext(dsn.orcpt);
      if (orcpt.size() <= kMaxOrcptBytes) absl::StrAppend(command, " ORCPT=", orcpt);
    }
  }
  *command += "\r\n";
}

std::optional<RecipientVerdict> SmtpClientSession::RefusalOf(std::string_view address,
                                                             SmtpStage stage) const {
  std::string_view text;
  std::string_view enhanced = "5.6.7";
  if (std::any_of(address.begin(), address.end(),
                  [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); })) {
    text = "the address has a control character";
    enhanced = stage == SmtpStage::kMail ? "5.1.7" : "5.1.3";
  } else if (std::string converted; !peer_.smtputf8 && !IsAscii(OnTheWire(address, &converted))) {
    text = stage == SmtpStage::kMail
               ? "the sender's address is not ASCII, and the remote does not offer SMTPUTF8"
               : "the address is not ASCII, and the remote does not offer SMTPUTF8";
  } else {
    return std::nullopt;
  }
  RecipientVerdict verdict = LocalVerdict(text, stage, enhanced);
  verdict.verdict = Verdict::kPermanent;
  return verdict;
}

void SmtpClientSession::Say(std::string_view commands) {
  for (std::string_view rest = commands; options_.trace && !rest.empty();) {
    const size_t end = std::min(rest.find("\r\n"), rest.size());
    handler_.OnTrace(false, rest.substr(0, end));
    rest.remove_prefix(std::min(end + 2, rest.size()));
  }
  Write(commands);
}

void SmtpClientSession::SayAuth(bool first, std::string_view line) {
  if (options_.trace) {
    handler_.OnTrace(false,
                     first ? absl::StrCat("AUTH ", auth_->mechanism().data(), " (response hidden)")
                           : "(response hidden)");
  }
  Write(line);
}

// A challenge says what a password has to answer; and what is said of a response, or when nobody
// asked, may repeat what it did not understand.
void SmtpClientSession::TraceReply(const SmtpReply& reply) {
  if (!options_.trace) return;
  const bool of_auth = !waiting_.empty() && waiting_.front().what == Expect::kAuth;
  const bool unasked = waiting_.empty() && reply.code != 421;
  const bool hidden = of_auth || unasked || reply.code == 334;
  handler_.OnTrace(true, absl::StrCat(reply.code, reply.enhanced.empty() ? "" : " ", reply.enhanced,
                                      " ", hidden ? "(text hidden)" : reply.text));
}

}  // namespace sluice::mail
