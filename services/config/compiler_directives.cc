#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/config/compiler_impl.h"
#include "services/config/compiler_patterns.h"
#include "services/config/setter.h"
#include "services/config/text_grammar.h"
#include "services/config/value.h"
#include "services/config/value_lines.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxPoolMembers = 1'000'000;
constexpr char kUnsafeHint[] =
    "it restricts, and going on without it would not be safe; to do so, take the line out or give "
    "--accept-unsupported ";

}  // namespace

bool Compiler::Accepted(const std::string& name) const {
  return options_.accept_unsupported.contains(name);
}

void Compiler::SayStatus(const Statement& statement, const std::string& what, Status status,
                         std::string_view reason, bool restricts) {
  const std::string because = reason.empty() ? "" : absl::StrCat(": ", std::string(reason));
  const std::string with =
      reason.empty() ? " (planned)" : absl::StrCat(" (planned, with ", std::string(reason), ")");
  if (restricts && status != Status::kNoEffect && status != Status::kNotYet &&
      !Accepted(statement.name)) {
    return Say(Severity::kError, statement.where,
               absl::StrCat(what, " is not possible in this version",
                            status == Status::kUnsupported ? because : with),
               absl::StrCat(kUnsafeHint, statement.name));
  }
  switch (status) {
    case Status::kActive:
      return;
    case Status::kNotYet:
    case Status::kRefused:
      return Say(Severity::kWarning, statement.where,
                 absl::StrCat(what, " has no effect in this version", with));
    case Status::kNoEffect:
      return Say(Severity::kWarning, statement.where,
                 absl::StrCat(what, " has no meaning here", because));
    case Status::kUnsupported:
      return Say(Severity::kWarning, statement.where,
                 absl::StrCat(what, " is unsupported and has no effect", because));
  }
}

void Compiler::Count(Status status, bool alias) {
  Tally& tally = compiled_.tally;
  switch (status) {
    case Status::kActive:
      ++(alias ? tally.aliases : tally.effective);
      return;
    case Status::kNotYet:
    case Status::kRefused:
      ++tally.planned;
      return;
    case Status::kNoEffect:
      ++tally.no_meaning;
      return;
    case Status::kUnsupported:
      ++tally.unsupported;
  }
}

void Compiler::Apply(const Statement& statement, bool expanded) {
  const Frame& frame = frames_.back();
  const Directive* directive = FindDirective(frame.scope, statement.name);
  // What a binding does not have of its own it has of <domain>.
  if (directive == nullptr && frame.scope == kBind) {
    directive = FindDirective(kDomain, statement.name);
  }
  if (directive == nullptr) return UnknownDirective(statement, frame);
  if (options_.keep_origins && !expanded) KeepLine(*directive, statement, frame.number);
  const bool unsupported_choice =
      !directive->unsupported_choice.empty() && !statement.arguments.empty() &&
      absl::EqualsIgnoreCase(statement.arguments[0].text,
                             absl::string_view(directive->unsupported_choice.data(),
                                               directive->unsupported_choice.size()));
  Status status = unsupported_choice ? Status::kUnsupported : directive->status;
  if (frame.quiet && status == Status::kActive) status = Status::kNotYet;
  if (!expanded) Count(status, statement.name != directive->name);
  const bool restricts = (directive->status == Status::kRefused || directive->restricts) &&
                         Restricts(*directive, statement);
  if (!frame.quiet) {
    const bool reason_in_help = directive->reason.empty() && status == Status::kNoEffect;
    std::string_view reason = directive->reason;
    std::string from_help;
    if (reason_in_help && directive->help.starts_with("Nothing: ")) {
      reason = directive->help.substr(9);
      if (reason.ends_with('.')) reason.remove_suffix(1);
    }
    const bool asks = directive->status != Status::kRefused || restricts;
    if (unsupported_choice) {
      SayStatus(statement,
                absl::StrCat(statement.name, " ", std::string(directive->unsupported_choice)),
                status, directive->unsupported_choice_reason, restricts);
    } else {
      SayStatus(statement, statement.name, asks ? status : Status::kNotYet, reason, restricts);
    }
  }
  if (directive->name == "include") return ApplyHere(*directive, statement, frame);
  const bool domains =
      directive->grammar == Grammar::kDomains || directive->grammar == Grammar::kDomainPatterns;
  if (domains && directive->target != Target::kCompiler &&
      statement.rest.find('$') != std::string::npos && !expanded) {
    Statement with_domains = statement;
    return ExpandMacros(&with_domains) ? Apply(with_domains, true) : void();
  }
  if (directive->grammar == Grammar::kSectionName) UseSection(*directive, statement);
  if (directive->grammar == Grammar::kPatternLine) return ReadPatternLine(statement, frame);
  if (frame.quiet || directive->target == Target::kNone || directive->status == Status::kNoEffect ||
      directive->status == Status::kUnsupported) {
    if (Check(*directive, statement) && !frame.quiet) NoteTarget(*directive, statement);
    return;
  }
  if (directive->name == "smtp-listener") {
    if (options_.keep_origins) KeepOrigin(*directive, statement, *draft_.global.mutable_settings());
    return Add(AddListenerLine(statement, &draft_), statement);
  }
  switch (directive->target) {
    case Target::kListenerSettings:
      Set(*directive, statement, &frame.listener->settings);
      break;
    case Target::kSourceGroup:
      Set(*directive, statement, frame.source_group);
      break;
    case Target::kSmtpUser:
      Set(*directive, statement, frame.smtp_user);
      break;
    case Target::kGlobalSettings:
      Set(*directive, statement, draft_.global.mutable_settings());
      break;
    case Target::kQueueSettings:
      for (auto* settings : frame.queues) {
        if (!Set(*directive, statement, settings)) break;
      }
      if (directive->name == "source-interface") UseInterface(statement, frame);
      break;
    case Target::kClientSettings:
      for (auto* settings : frame.clients) {
        if (!Set(*directive, statement, settings)) break;
      }
      if (directive->name == "auth-plain") ReadAuthFile(statement, frame);
      break;
    case Target::kSourceSettings:
      if (frame.source == nullptr) {
        return Say(Severity::kError, statement.where,
                   absl::StrCat(statement.name,
                                " is about one outbound address, not a network of clients"));
      }
      Set(*directive, statement, frame.source);
      break;
    case Target::kVirtualMta:
      Set(*directive, statement, &frame.vmta->section);
      break;
    case Target::kPool:
      Set(*directive, statement, &frame.pool->section);
      break;
    case Target::kCompiler:
    case Target::kNone:
      return ApplyHere(*directive, statement, frame);
  }
  NoteTarget(*directive, statement);
}

void Compiler::NoteTarget(const Directive& directive, const Statement& statement) {
  if (statement.arguments.size() != 1) return;
  std::string name = statement.arguments[0].text;
  if (directive.grammar == Grammar::kQueueName) {
    const size_t slash = name.find('/');
    name = slash == name.npos ? "" : name.substr(slash + 1);
  } else if (directive.grammar != Grammar::kTargetName ||
             StandsForValue(directive, absl::AsciiStrToLower(name))) {
    return;
  }
  if (!name.empty()) {
    draft_.references.emplace_back(PlainTargetName(name), statement.At(statement.arguments[0]));
  }
}

// Which of its sources a virtual MTA uses is the virtual MTA's own matter.
void Compiler::UseInterface(const Statement& statement, const Frame& frame) {
  if (frame.own_vmta.empty()) {
    return Say(Severity::kError, statement.where, "source-interface is about one virtual MTA",
               "it belongs in: <bind source-vmta=...>, <domain> in <virtual-mta>");
  }
  if (statement.arguments.size() != 1) return;
  const auto ip = IpAddress::Parse(statement.arguments[0].text);
  if (!ip) return;  // said already, or nothing
  draft_.interface_uses.push_back(
      {ip->ToString(), frame.own_vmta, statement.At(statement.arguments[0])});
}

void Compiler::UseSection(const Directive& directive, const Statement& statement) {
  if (statement.arguments.size() != 1 || statement.arguments[0].text.empty()) return;
  draft_.section_uses.push_back({std::string(directive.choices), statement.arguments[0].text,
                                 statement.At(statement.arguments[0])});
}

void Compiler::Add(const std::optional<LineError>& error, const Statement& statement) {
  if (!error) return;
  const bool at_argument = error->argument < statement.arguments.size();
  Say(error->warning ? Severity::kWarning : Severity::kError,
      at_argument ? statement.At(statement.arguments[error->argument]) : statement.where,
      error->message);
}

void Compiler::ReadPatternLine(const Statement& statement, const Frame& frame) {
  if (frame.scope == kSmtpPatternList) {
    return Add(
        AddReplyRule(statement, frame.smtp_patterns, &draft_.every_reply[frame.smtp_patterns]),
        statement);
  }
  if (frame.scope == kMxRollupList) {
    return Add(AddMxRollup(statement, &draft_.mx_rollup), statement);
  }
  Add(AddBounceCategory(statement, &draft_.bounce_categories), statement);
}

bool Compiler::Check(const Directive& directive, const Statement& statement) {
  return Set(directive, statement, nullptr);
}

bool Compiler::Set(const Directive& directive, const Statement& statement,
                   google::protobuf::Message* message) {
  const bool may_be_regex = directive.grammar == Grammar::kMailOrRegex &&
                            !statement.arguments.empty() &&
                            statement.arguments[0].text.starts_with('/');
  if (directive.grammar == Grammar::kRegex || may_be_regex) {
    const auto error = CheckRegex(statement);
    Add(error, statement);
    if (error && !error->warning) return false;
  }
  const auto error = SetField(directive, statement.arguments, message);
  if (!error) {
    if (message != nullptr) {
      if (options_.keep_origins) KeepOrigin(directive, statement, *message);
      if (directive.appends && IsLongList(directive, *message)) {
        long_lists_.emplace(message, &directive);
      }
    }
    return true;
  }
  const bool at_argument = error->argument < statement.arguments.size();
  Say(Severity::kError,
      at_argument ? statement.At(statement.arguments[error->argument]) : statement.where,
      at_argument ? error->message : absl::StrCat(statement.name, ": ", error->message));
  return false;
}

void Compiler::KeepLine(const Directive& directive, const Statement& statement, size_t section) {
  std::string value;
  for (const Token& token : statement.arguments) {
    absl::StrAppend(&value, value.empty() ? "" : " ", token.text);
  }
  compiled_.lines.push_back({&directive, std::move(value), statement.where, section});
}

void Compiler::KeepOrigin(const Directive& directive, const Statement& statement,
                          const google::protobuf::Message& message) {
  const auto* const field = message.GetDescriptor()->FindFieldByName(std::string(directive.field));
  draft_.origins[&message][field->number()] = {statement.where.file, statement.where.line};
}

void Compiler::KeepFieldOrigin(const char* field, const Statement& statement,
                               const google::protobuf::Message& message) {
  if (!options_.keep_origins) return;
  const int number = message.GetDescriptor()->FindFieldByName(field)->number();
  draft_.origins[&message][number] = {statement.where.file, statement.where.line};
}

bool Compiler::Restricts(const Directive& directive, const Statement& statement) {
  return statement.arguments.empty() || !AsksForNothing(directive, statement.arguments.back().text);
}

// "global, <domain>"
std::string Compiler::PlacesOf(const std::string& name) {
  const uint32_t scopes = ScopesOf(name);
  std::string places;
  for (const Scope scope : kAllScopes) {
    if ((scopes & scope) == 0) continue;
    absl::StrAppend(&places, places.empty() ? "" : ", ", std::string(ScopeName(scope)));
  }
  return places;
}

void Compiler::UnknownDirective(const Statement& statement, const Frame& frame) {
  const bool secret = MayBeSecret(statement.name);
  std::string name = statement.name.substr(0, 80);
  if (secret) name.resize(std::min(name.find_first_of("=:"), name.size()));  // password=x
  const std::string place = frame.scope == kGlobal ? std::string("outside of sections")
                                                   : absl::StrCat("in <", frame.name, ">");
  if (ScopesOf(statement.name) != 0) {
    return Say(Severity::kError, statement.where, absl::StrCat("\"", name, "\" may not be ", place),
               absl::StrCat("it belongs in: ", PlacesOf(statement.name)));
  }
  std::vector<std::string_view> elsewhere;
  for (const Directive& directive : AllDirectives()) elsewhere.push_back(directive.name);
  const auto closest = ClosestName(statement.name, NamesIn(frame.scope));
  const auto other = closest ? std::nullopt : ClosestName(statement.name, elsewhere);
  Location where = statement.where;
  if (secret) where.line_text = name + " (secret)";
  Say(Severity::kError, where, absl::StrCat("unknown directive \"", name, "\" ", place),
      closest ? absl::StrCat("did you mean \"", *closest, "\"?")
      : other ? absl::StrCat("did you mean \"", *other, "\"? it belongs in: ", PlacesOf(*other))
              : "");
}

void Compiler::ApplyHere(const Directive& directive, const Statement& statement,
                         const Frame& frame) {
  if (statement.arguments.empty()) {
    return Say(Severity::kError, statement.where, SyntaxMessage(directive));
  }
  const Token& first = statement.arguments[0];
  const Location where = statement.At(first);
  if (directive.name == "include") return Include(statement);
  if (directive.name == "include-headers-from") return ReadHeaderFile(directive, statement, frame);
  if (directive.name == "http-delivery-extra-headers") {
    return ReadHttpHeaderFile(directive, statement, frame);
  }
  if (directive.name == "precached-domains-file") return ReadDomainFile(directive, statement);
  if (directive.name.starts_with("dsn-failed-") || directive.name == "custom-dsn-from-header") {
    return ReadDsnTemplate(directive, statement);
  }
  if (frame.rewrite_list != nullptr) return AddRewrite(directive, statement, frame.rewrite_list);
  if (frame.scope == kLimits) return SetClusterRate(directive, statement, frame);
  if (frame.scope == kSmtpPattern) {
    return Add(AddPenaltyLine(directive, statement, frame.penalties), statement);
  }
  if (frame.proxy != nullptr) return Add(AddProxyLine(statement, frame.proxy), statement);
  ProxyUse& proxies = frame.vmta != nullptr ? frame.vmta->proxies : draft_.use_proxies;
  if (directive.name == "use-proxy") return Add(AddUseProxy(statement, &proxies), statement);
  if (directive.name == "smtp-proxy-source-host") {
    return Add(AddProxySourceHost(statement, &proxies), statement);
  }
  if (directive.name == "proxy-protocol") {
    const auto version = ParseCount(first.text);
    if (!version || *version < 1 || *version > 2 || statement.arguments.size() != 1) {
      return Say(Severity::kError, where, SyntaxMessage(directive));
    }
    proxies.version = static_cast<int>(*version);
    return;
  }
  if (directive.grammar == Grammar::kPattern) {
    return Add(AddPatternRule(statement, &draft_, frame.pattern_list), statement);
  }
  if (directive.name == "alias") return Add(AddAlias(statement, &draft_), statement);
  if (directive.name == "relay-address") {
    return Add(AddRelayAddress(statement, &draft_), statement);
  }
  if (directive.name == "pickup") return Add(AddPickup(statement, &draft_), statement);
  if (directive.name == "domain-macro") return DefineMacro(statement);
  if (directive.name == "deliver-local-dsn") {
    const auto deliver = statement.arguments.size() == 1 ? ParseBool(first.text) : std::nullopt;
    if (!deliver) return Say(Severity::kError, where, SyntaxMessage(directive));
    for (auto* settings : frame.queues) settings->set_suppress_local_dsn(!*deliver);
    return;
  }
  if (directive.name == "min-free-space") {
    const auto bytes = ParseSizeBytes(first.text);
    constexpr uint64_t kMegabyte = 1 << 20;
    if (!bytes || *bytes / kMegabyte >= UINT32_MAX || statement.arguments.size() != 1) {
      return Say(Severity::kError, where, SyntaxMessage(directive));
    }
    draft_.global.mutable_settings()->set_spool_min_free_space_mb(
        static_cast<uint32_t>((*bytes + kMegabyte - 1) / kMegabyte));
    return;
  }
  if (directive.grammar == Grammar::kIpDomain) {
    const auto said = ParseIpDomain(statement.rest);
    if (!said) return Say(Severity::kError, where, SyntaxMessage(directive));
    draft_.sender_sources[said->domain].insert(said->ip);
    return;
  }
  if (directive.name == "smtp-ip") {
    for (const Token& token : statement.arguments) {
      for (const std::string& ip : SplitList(token.text)) {
        if (!IpAddress::Parse(ip)) {
          return Say(Severity::kError, statement.At(token), SyntaxMessage(directive));
        }
        draft_.smtp_ips.push_back(ip);
      }
    }
    if (options_.keep_origins) {
      constexpr int kField = policy::v1::GlobalSettings::kSmtpListenersFieldNumber;
      draft_.origins[draft_.global.mutable_settings()][kField] = {where.file, where.line};
    }
    return;
  }
  if (directive.grammar == Grammar::kSourceHost) {
    VirtualMtaDraft& vmta = frame.vmta == nullptr ? draft_.vmtas["default"] : *frame.vmta;
    if (frame.vmta == nullptr && vmta.section.name().empty()) {
      vmta.section.set_name("default");
      vmta.where = statement.where;
    }
    return AddSourceHost(statement, &vmta);
  }
  if (directive.grammar == Grammar::kBool) {
    const auto on = ParseBool(first.text);
    if (!on || statement.arguments.size() != 1) {
      return Say(Severity::kError, where, SyntaxMessage(directive));
    }
    if (directive.name == "random-ip") frame.source_pool->random_ip = *on;
    return;
  }
  if (directive.name == "virtual-mta" && frame.scope == kSource) {
    if (frame.source_ip.empty()) {
      return Say(Severity::kError, statement.where,
                 "virtual-mta is about one outbound address, not a network of clients");
    }
    if (statement.arguments.size() != 1) {
      return Say(Severity::kError, where, SyntaxMessage(directive));
    }
    const std::string vmta = PlainTargetName(first.text);
    draft_.source_uses.push_back({frame.source_ip, vmta, where});
    KeepHostLine(vmta, frame.source_ip, statement);
    return;
  }
  if (directive.name == "virtual-mta") {
    for (const Token& token : statement.arguments) {
      for (const std::string& name : SplitList(token.text)) {
        if (++draft_.pool_members > kMaxPoolMembers) {
          return Say(Severity::kError, statement.At(token),
                     "more than 1,000,000 virtual MTAs in pools");
        }
        frame.pool->members.emplace_back(PlainTargetName(name), statement.At(token));
      }
    }
    return;
  }
  if (directive.name == "max-smtp-out") {
    const auto count = ParseCount(first.text);
    const bool unlimited = absl::AsciiStrToLower(first.text) == "unlimited";
    if (statement.arguments.size() != 1 || (!count && !unlimited) ||
        (count && *count > directive.max)) {
      return Say(Severity::kError, where, SyntaxMessage(directive));
    }
    frame.source_pool->max_smtp_out = static_cast<uint32_t>(count.value_or(0));
    return;
  }
  // source-pool
  if (statement.arguments.size() != 1) {
    return Say(Severity::kError, statement.At(statement.arguments[1]),
               "it is written source-pool NETWORK");
  }
  const auto network = ParseNetwork(first.text);
  if (!network) return BadNetwork(first.text, where);
  frame.vmta->source_pools.push_back({*network, where});
  KeepHostLine(frame.vmta->section.name(), *network, statement);
}

void Compiler::AddSourceHost(const Statement& statement, VirtualMtaDraft* vmta) {
  const Location where = statement.At(statement.arguments[0]);
  const auto network = ParseNetwork(statement.arguments[0].text);
  if (!network) return BadNetwork(statement.arguments[0].text, where);
  std::string host_name;
  if (statement.arguments.size() > 1) {
    const auto name = ParseHostName(statement.arguments[1].text);
    if (!name || statement.arguments.size() > 2) {
      return Say(Severity::kError, statement.At(statement.arguments.back()),
                 absl::StrCat("it is written ", statement.name, " IP [HOSTNAME]"));
    }
    host_name = *name;
  }
  if (network->starts_with("0.0.0.0/") || network->starts_with("::/")) {
    return Say(Severity::kError, where, "a source address is one of this machine's own");
  }
  if (auto error = AddSourceHosts(*network, host_name, vmta, &draft_)) {
    return Say(Severity::kError, where, *std::move(error));
  }
  KeepHostLine(vmta->section.name(), *network, statement);
}

void Compiler::KeepHostLine(const std::string& vmta, const std::string& network,
                            const Statement& statement) {
  if (!options_.keep_origins) return;
  compiled_.host_lines.push_back({absl::AsciiStrToLower(vmta), network, statement.where});
}

}  // namespace sluice::config
