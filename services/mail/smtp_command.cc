#include "services/mail/smtp_command.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "services/mail/xtext.h"

namespace sluice::mail {
namespace {

char Upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; }

// `upper` is in capitals.
bool EqualsIgnoreCase(std::string_view text, std::string_view upper) {
  return text.size() == upper.size() && std::equal(text.begin(), text.end(), upper.begin(),
                                                   [](char a, char b) { return Upper(a) == b; });
}

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

struct Verb {
  std::string_view name;
  SmtpVerb verb;
};

constexpr Verb kVerbs[] = {
    {"MAIL", SmtpVerb::kMail},   {"RCPT", SmtpVerb::kRcpt},         {"DATA", SmtpVerb::kData},
    {"EHLO", SmtpVerb::kEhlo},   {"HELO", SmtpVerb::kHelo},         {"RSET", SmtpVerb::kRset},
    {"QUIT", SmtpVerb::kQuit},   {"NOOP", SmtpVerb::kNoop},         {"BDAT", SmtpVerb::kBdat},
    {"VRFY", SmtpVerb::kVrfy},   {"EXPN", SmtpVerb::kExpn},         {"HELP", SmtpVerb::kHelp},
    {"AUTH", SmtpVerb::kAuth},   {"STARTTLS", SmtpVerb::kStartTls}, {"XCLIENT", SmtpVerb::kXclient},
    {"XACK", SmtpVerb::kXack},   {"XMRG", SmtpVerb::kXmrg},         {"XDFN", SmtpVerb::kXdfn},
    {"XPRT", SmtpVerb::kXprt},   {"GET", SmtpVerb::kForeign},       {"POST", SmtpVerb::kForeign},
    {"PUT", SmtpVerb::kForeign}, {"CONNECT", SmtpVerb::kForeign},   {"OPTIONS", SmtpVerb::kForeign},
};

// An address without a domain gets the one that is for them.
void Qualify(const CommandExtensions& extensions, const MailboxView& mailbox,
             std::string& address) {
  if (!mailbox.domain.empty() || address.empty()) return;
  address += '@';
  address += extensions.qualify_with;
}

ServerReply Syntax(std::string text) { return {501, {5, 5, 4}, std::move(text)}; }

ServerReply AddressReply(AddressError error, bool sender) {
  const uint16_t detail = sender ? 7 : 3;
  switch (error) {
    case AddressError::kLocalPartTooLong:
      return {501, {5, 1, detail}, "The local part is longer than 64 bytes"};
    case AddressError::kDomainTooLong:
      return {501, {5, 1, detail}, "The address is too long"};
    case AddressError::kNeedsSmtpUtf8:
      return {553, {5, 6, 7}, "An address with UTF-8 needs SMTPUTF8"};
    case AddressError::kSyntax:
    case AddressError::kNone:
      break;
  }
  return {501, {5, 1, detail}, "The address has wrong syntax"};
}

// One "KEYWORD[=value]" after another.
class Parameters {
 public:
  explicit Parameters(std::string_view text) : text_(Trim(text)) {}

  // False at the end, or where the syntax is wrong: then bad() is true.
  bool Next() {
    if (text_.empty()) return false;
    size_t end = 0;
    while (end < text_.size() && !IsBlank(text_[end])) ++end;
    const std::string_view parameter = text_.substr(0, end);
    text_ = Trim(text_.substr(end));
    const size_t equals = parameter.find('=');
    keyword = parameter.substr(0, equals);
    has_value = equals != std::string_view::npos;
    value = has_value ? parameter.substr(equals + 1) : std::string_view();
    const bool keyword_ok =
        !keyword.empty() && keyword[0] != '-' &&
        std::all_of(keyword.begin(), keyword.end(), [](char c) {
          return (Upper(c) >= 'A' && Upper(c) <= 'Z') || (c >= '0' && c <= '9') || c == '-';
        });
    const bool value_ok =
        !has_value || (!value.empty() && std::all_of(value.begin(), value.end(), [](char c) {
          return static_cast<unsigned char>(c) > ' ' && c != 127;
        }));
    if (!keyword_ok || !value_ok) {
      bad_ = true;
      return false;
    }
    return true;
  }

  bool bad() const { return bad_; }
  bool Is(std::string_view upper) const { return EqualsIgnoreCase(keyword, upper); }

  std::string_view keyword;
  std::string_view value;
  bool has_value = false;

 private:
  std::string_view text_;
  bool bad_ = false;
};

std::optional<ServerReply> UnknownParameter(const Parameters& p) {
  return ServerReply{555, {5, 5, 4}, "Parameter " + std::string(p.keyword) + " is not supported"};
}

// "FROM:" or "TO:", then blanks that RFC 5321 forbids and clients send.
bool ConsumeKeyword(std::string_view& text, std::string_view upper) {
  if (text.size() < upper.size() || !EqualsIgnoreCase(text.substr(0, upper.size()), upper)) {
    return false;
  }
  text.remove_prefix(upper.size());
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  return true;
}

std::optional<ServerReply> SetMailParameter(const Parameters& p,
                                            const CommandExtensions& extensions, MailCommand& out) {
  if (extensions.size && p.Is("SIZE")) {
    const auto [end, error] =
        std::from_chars(p.value.data(), p.value.data() + p.value.size(), out.size);
    if (error == std::errc::result_out_of_range && p.value.size() <= 40) {
      out.size = UINT64_MAX;
    } else if (error != std::errc() || end != p.value.data() + p.value.size()) {
      return Syntax("SIZE wants a number");
    }
    return std::nullopt;
  }
  if (extensions.eight_bit_mime && p.Is("BODY")) {
    if (EqualsIgnoreCase(p.value, "7BIT")) {
      out.body = BodyParam::k7Bit;
    } else if (EqualsIgnoreCase(p.value, "8BITMIME")) {
      out.body = BodyParam::k8BitMime;
    } else if (extensions.chunking && extensions.binary_mime &&
               EqualsIgnoreCase(p.value, "BINARYMIME")) {
      out.body = BodyParam::kBinaryMime;
    } else {
      return Syntax("BODY wants 7BIT or 8BITMIME");
    }
    return std::nullopt;
  }
  if (extensions.smtp_utf8 && p.Is("SMTPUTF8")) {
    if (p.has_value) return Syntax("SMTPUTF8 takes no value");
    out.smtp_utf8 = true;
    return std::nullopt;
  }
  if (extensions.require_tls && p.Is("REQUIRETLS")) {
    if (p.has_value) return Syntax("REQUIRETLS takes no value");
    out.require_tls = true;
    return std::nullopt;
  }
  if (extensions.mt_priority && p.Is("MT-PRIORITY")) {
    int priority = 0;
    const char* const end = p.value.data() + p.value.size();
    const auto [rest, error] = std::from_chars(p.value.data(), end, priority);
    if (error != std::errc() || rest != end || priority < -9 || priority > 9) {
      return Syntax("MT-PRIORITY wants a number from -9 to 9");
    }
    out.mt_priority = priority;
    return std::nullopt;
  }
  if (extensions.verp && p.Is("VERP")) {
    if (p.has_value) return Syntax("VERP takes no value");
    out.verp = true;
    return std::nullopt;
  }
  if (extensions.dsn && p.Is("RET")) {
    if (EqualsIgnoreCase(p.value, "FULL")) {
      out.ret = RetParam::kFull;
    } else if (EqualsIgnoreCase(p.value, "HDRS")) {
      out.ret = RetParam::kHeaders;
    } else {
      return Syntax("RET wants FULL or HDRS");
    }
    return std::nullopt;
  }
  if (extensions.dsn && p.Is("ENVID")) {
    std::optional<std::string> envid = DecodeXtext(p.value);
    if (!envid || HoldsControl(*envid) || p.value.empty() || p.value.size() > kMaxEnvidBytes) {
      return Syntax("ENVID wants xtext of at most 100 characters");
    }
    out.envid = *std::move(envid);
    return std::nullopt;
  }
  if (extensions.auth && p.Is("AUTH")) {
    std::optional<std::string> auth = DecodeXtext(p.value);
    if (!auth || auth->empty() || HoldsControl(*auth))
      return Syntax("AUTH wants an address as xtext");
    out.auth = *auth == "<>" ? "" : *std::move(auth);
    return std::nullopt;
  }
  return UnknownParameter(p);
}

// Takes "<text>" from the front, whatever printable text it is; false where there is none.
bool ConsumeInvalidPath(std::string_view& text, std::string& out) {
  if (text.empty() || text[0] != '<') return false;
  const size_t end = text.find('>');
  if (end == std::string_view::npos || end < 2 || end >= kMaxPathBytes) return false;
  const std::string_view inside = text.substr(1, end - 1);
  if (!std::all_of(inside.begin(), inside.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
    return false;
  }
  out = inside;
  text.remove_prefix(end + 1);
  return text.empty() || IsBlank(text[0]);
}

// The address of RCPT.
std::optional<ServerReply> ConsumeRecipient(std::string_view& argument,
                                            const CommandExtensions& extensions, bool smtp_utf8,
                                            RcptCommand& out) {
  MailboxView mailbox;
  const AddressError error = ConsumePath(argument, smtp_utf8, DomainRule::kOptional, mailbox);
  if (error != AddressError::kNone) return AddressReply(error, false);
  if (mailbox.local_part.empty() || (!argument.empty() && !IsBlank(argument[0]))) {
    return AddressReply(AddressError::kSyntax, false);
  }
  // RFC 5321 4.1.1.3: only Postmaster may stand without a domain.
  const bool bare = mailbox.domain.empty() && !EqualsIgnoreCase(mailbox.local_part, "POSTMASTER");
  if (bare && extensions.qualify_with.empty()) {
    return AddressReply(AddressError::kSyntax, false);
  }
  out.to = mailbox.Canonical();
  const size_t domain = bare ? extensions.qualify_with.size() : mailbox.domain.size();
  if (bare) Qualify(extensions, mailbox, out.to);
  out.domain_offset = out.to.size() - domain;
  return std::nullopt;
}

std::optional<uint32_t> ParseNotify(std::string_view value) {
  uint32_t bits = 0;
  while (true) {
    const size_t comma = value.find(',');
    const std::string_view word = value.substr(0, comma);
    if (EqualsIgnoreCase(word, "NEVER")) {
      bits |= kNotifyNever;
    } else if (EqualsIgnoreCase(word, "SUCCESS")) {
      bits |= kNotifySuccess;
    } else if (EqualsIgnoreCase(word, "FAILURE")) {
      bits |= kNotifyFailure;
    } else if (EqualsIgnoreCase(word, "DELAY")) {
      bits |= kNotifyDelay;
    } else {
      return std::nullopt;
    }
    if (comma == std::string_view::npos) break;
    value.remove_prefix(comma + 1);
  }
  if ((bits & kNotifyNever) != 0 && bits != kNotifyNever) return std::nullopt;
  return bits;
}

std::optional<ServerReply> SetRcptParameter(const Parameters& p,
                                            const CommandExtensions& extensions, RcptCommand& out) {
  if (extensions.dsn && p.Is("NOTIFY")) {
    const std::optional<uint32_t> notify = ParseNotify(p.value);
    if (!notify) return Syntax("NOTIFY wants NEVER, or a list of SUCCESS, FAILURE, DELAY");
    out.notify = *notify;
    return std::nullopt;
  }
  if (extensions.dsn && p.Is("ORCPT")) {
    const size_t semicolon = p.value.find(';');
    std::optional<std::string> address;
    if (semicolon != std::string_view::npos && semicolon > 0 && p.value.size() <= kMaxOrcptBytes) {
      address = DecodeXtext(p.value.substr(semicolon + 1));
    }
    if (!address || address->empty() || HoldsControl(*address))
      return Syntax("ORCPT wants type;address with xtext");
    out.orcpt.assign(p.value.substr(0, semicolon + 1));
    out.orcpt += *address;
    return std::nullopt;
  }
  return UnknownParameter(p);
}

}  // namespace

CommandLine SplitCommand(std::string_view line) {
  line = Trim(line);
  size_t end = 0;
  while (end < line.size() && !IsBlank(line[end])) ++end;
  const std::string_view word = line.substr(0, end);
  CommandLine command;
  command.argument = Trim(line.substr(end));
  for (const Verb& verb : kVerbs) {
    if (EqualsIgnoreCase(word, verb.name)) {
      command.verb = verb.verb;
      break;
    }
  }
  return command;
}

std::optional<ServerReply> ParseMailCommand(std::string_view argument,
                                            const CommandExtensions& extensions, MailCommand& out) {
  out.from.clear();
  out.size = 0;
  out.body = BodyParam::kNone;
  out.ret = RetParam::kNone;
  out.smtp_utf8 = false;
  out.require_tls = false;
  out.envid.clear();
  out.auth.reset();
  out.mt_priority.reset();
  out.merge = false;
  out.verp = false;
  if (!ConsumeKeyword(argument, "FROM:")) return Syntax("Write MAIL FROM:<address>");
  MailboxView mailbox;
  const auto rule = extensions.qualify_with.empty() ? DomainRule::kRequired : DomainRule::kOptional;
  const AddressError error = ConsumePath(argument, true, rule, mailbox);
  if (error != AddressError::kNone) return AddressReply(error, true);
  if (!argument.empty() && !IsBlank(argument[0])) return AddressReply(AddressError::kSyntax, true);
  Parameters parameters(argument);
  while (parameters.Next()) {
    if (auto refusal = SetMailParameter(parameters, extensions, out)) return refusal;
  }
  if (parameters.bad()) return Syntax("A parameter has wrong syntax");
  // SMTPUTF8 comes after the address that needs it.
  if (mailbox.is_utf8 && !out.smtp_utf8) return AddressReply(AddressError::kNeedsSmtpUtf8, true);
  out.from = mailbox.Canonical();
  Qualify(extensions, mailbox, out.from);
  return std::nullopt;
}

std::optional<ServerReply> ParseRcptCommand(std::string_view argument,
                                            const CommandExtensions& extensions, bool smtp_utf8,
                                            RcptCommand& out) {
  out.to.clear();
  out.notify = 0;
  out.orcpt.clear();
  out.invalid = false;
  if (!ConsumeKeyword(argument, "TO:")) return Syntax("Write RCPT TO:<address>");
  const std::string_view whole = argument;
  if (auto refusal = ConsumeRecipient(argument, extensions, smtp_utf8, out)) {
    argument = whole;
    if (!extensions.invalid_recipients || !ConsumeInvalidPath(argument, out.to)) return refusal;
    out.invalid = true;
    out.domain_offset = out.to.size();
  }
  Parameters parameters(argument);
  while (parameters.Next()) {
    if (auto refusal = SetRcptParameter(parameters, extensions, out)) return refusal;
  }
  if (parameters.bad()) return Syntax("A parameter has wrong syntax");
  return std::nullopt;
}

std::optional<BdatCommand> ParseBdatCommand(std::string_view argument) {
  BdatCommand bdat;
  const char* const end = argument.data() + argument.size();
  const auto [rest, error] = std::from_chars(argument.data(), end, bdat.size);
  if (error != std::errc() || rest == argument.data()) return std::nullopt;
  const std::string_view word = Trim({rest, static_cast<size_t>(end - rest)});
  if (rest != end && !IsBlank(*rest)) return std::nullopt;
  if (!word.empty() && !EqualsIgnoreCase(word, "LAST")) return std::nullopt;
  bdat.last = !word.empty();
  return bdat;
}

std::optional<ServerReply> ParseXclientCommand(std::string_view argument, XclientCommand& out) {
  out = XclientCommand();
  // Attribute names have "_" in Postfix's dialect, but for none of ours.
  Parameters parameters(argument);
  bool any = false;
  while (parameters.Next()) {
    any = true;
    const Parameters& p = parameters;
    std::optional<std::string> value = DecodeXtext(p.value);
    if (!p.has_value || !value || value->size() > kMaxDomainBytes || HoldsControl(*value)) {
      return Syntax("XCLIENT wants name=value with xtext");
    }
    if (EqualsIgnoreCase(*value, "[UNAVAILABLE]") || EqualsIgnoreCase(*value, "[TEMPUNAVAIL]")) {
      value.reset();
    }
    const auto port = [&](std::optional<uint16_t>& target) {
      target.reset();
      if (!value) return true;
      uint16_t number = 0;
      const char* const end = value->data() + value->size();
      const auto [rest, error] = std::from_chars(value->data(), end, number);
      if (error != std::errc() || rest != end) return false;
      target = number;
      return true;
    };
    bool good = true;
    if (p.Is("NAME")) {
      out.name = std::move(value);
    } else if (p.Is("ADDR")) {
      out.address = std::move(value);
    } else if (p.Is("HELO")) {
      good = !value || IsAcceptableHello(*value);
      out.helo = std::move(value);
    } else if (p.Is("LOGIN")) {
      out.login = std::move(value);
    } else if (p.Is("PROTO")) {
      good = !value || EqualsIgnoreCase(*value, "SMTP") || EqualsIgnoreCase(*value, "ESMTP");
      out.protocol = std::move(value);
    } else if (p.Is("DESTADDR")) {
      out.dest_address = std::move(value);
    } else if (p.Is("PORT")) {
      good = port(out.port);
    } else if (p.Is("DESTPORT")) {
      good = port(out.dest_port);
    } else {
      return Syntax("XCLIENT attribute " + std::string(p.keyword) + " is not known");
    }
    if (!good) return Syntax("The value of " + std::string(p.keyword) + " is not understood");
  }
  if (parameters.bad() || !any) return Syntax("Write XCLIENT name=value ...");
  return std::nullopt;
}

bool IsAcceptableHello(std::string_view name) {
  if (name.empty() || name.size() > kMaxDomainBytes) return false;
  if (name[0] == '[') return IsValidAddressLiteral(name);
  return std::all_of(name.begin(), name.end(),
                     [](char c) {
                       return (Upper(c) >= 'A' && Upper(c) <= 'Z') || (c >= '0' && c <= '9') ||
                              c == '-' || c == '.' || c == '_' || c == ':' ||
                              static_cast<unsigned char>(c) >= 0x80;
                     }) &&
         IsValidUtf8(name);
}

}  // namespace sluice::mail
