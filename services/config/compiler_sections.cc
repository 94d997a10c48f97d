#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/config/compiler_auth.h"
#include "services/config/compiler_impl.h"
#include "services/config/setter.h"
#include "services/config/text_grammar.h"
#include "services/config/value.h"
#include "services/config/value_lines.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxSections = 1'000'000;
constexpr int kMaxPenalties = 1'000;

}  // namespace

void Compiler::Close(const Statement& statement, size_t base) {
  size_t at = frames_.size();
  while (at > base && frames_[at - 1].name != statement.name) --at;
  if (at <= base) {
    return Say(
        Severity::kError, statement.where,
        absl::StrCat(
            "</", statement.name, "> closes nothing",
            frames_.size() > base ? absl::StrCat("; <", frames_.back().name, "> is open") : ""));
  }
  while (frames_.size() > at) LeaveUnclosed();
  frames_.pop_back();
}

void Compiler::Open(const Statement& statement) {
  Frame frame;
  frame.name = statement.name;
  frame.where = statement.where;
  frame.number = ++sections_opened_;
  frame.skip = true;
  if (sections_opened_ >= kMaxSections && !std::exchange(too_many_sections_, true)) {
    Say(Severity::kError, statement.where, "more than 1,000,000 sections");
  }
  if (sections_opened_ >= kMaxSections) return frames_.push_back(std::move(frame));
  LeaveSameKind(statement);
  if (!frames_.back().skip) Enter(statement, &frame);
  frames_.push_back(std::move(frame));
}

// <domain> in <domain>: most likely the end of the first one was forgotten, and what follows is as
// it should be.
void Compiler::LeaveSameKind(const Statement& statement) {
  const Frame& outer = frames_.back();
  const SectionKind* const kind = FindSection(statement.name);
  if (outer.skip || outer.name != statement.name || kind == nullptr ||
      (kind->parents & outer.scope) != 0 || *outer.where.file != *statement.where.file) {
    return;
  }
  const std::string name(kind->name);
  Say(Severity::kError, statement.where,
      absl::StrCat("<", name, "> may not be inside <", name, ">"),
      absl::StrCat("is </", name, "> missing above? the other one begins in line ",
                   outer.where.line));
  frames_.pop_back();
}

void Compiler::Enter(const Statement& statement, Frame* frame) {
  const Frame& outer = frames_.back();
  const std::string& name = statement.name;
  const SectionKind* const kind = FindSection(name);
  if (kind == nullptr) return UnknownSection(statement);
  if ((kind->parents & outer.scope) == 0) {
    std::string parents;
    for (const Scope scope : kAllScopes) {
      if ((kind->parents & scope) == 0) continue;
      absl::StrAppend(&parents, parents.empty() ? "" : ", ", std::string(ScopeName(scope)));
    }
    return Say(Severity::kError, statement.where,
               outer.scope == kGlobal
                   ? absl::StrCat("<", name, "> may not be outside of sections")
                   : absl::StrCat("<", name, "> may not be inside <", outer.name, ">"),
               absl::StrCat("it belongs in: ", parents));
  }
  if (!GoodArguments(*kind, statement)) return;
  frame->scope = kind->scope;
  if (kind->status != Status::kActive) {
    frame->skip = false;
    frame->quiet = true;
    if (!outer.quiet)
      SayStatus(statement, absl::StrCat("<", name, ">"), kind->status, kind->reason, true);
    return;
  }
  if (name == "bind") return EnterBind(statement, frame);
  if (name == "limits") return EnterLimits(statement, frame);
  if (kind->argument.empty()) {  // <dns>, <mx-rollup-list>: nothing to look up
    frame->skip = false;
    return;
  }
  const Token& argument = statement.arguments[0];
  const Location where = statement.At(argument);
  if (name == "source" || name == "accepted-connect") {
    EnterSource(argument.text, where, frame);
  } else if (name == "virtual-mta" || name == "virtual-mta-pool") {
    EnterNamed(name, argument.text, where, frame);
  } else if (name == "source-pool") {
    const auto network = ParseNetwork(argument.text);
    if (!network) return BadNetwork(argument.text, where);
    frame->scope = kSourcePool;
    frame->source_pool = &draft_.source_pools[*network];
    frame->skip = false;
  } else if (name == "spool") {
    EnterSpool(argument.text, where, frame);
  } else if (name == "smtp-pattern") {
    EnterPenalty(argument.text, where, frame);
  } else if (name == "domain") {
    EnterDomain(statement, frame);
  } else {
    EnterIngress(argument.text, where, frame);
  }
}

void Compiler::EnterSpool(const std::string& folder, const Location& where, Frame* frame) {
  frame->scope = kSpool;
  if (HasControls(folder)) return Say(Severity::kError, where, "this is no folder");
  frame->skip = false;
  auto* const settings = draft_.global.mutable_settings();
  if (settings->has_disk_queue() && settings->disk_queue() != folder) {
    frame->skip = true;
    return Say(Severity::kWarning, where,
               absl::StrCat("there is one spool, in ", settings->disk_queue(),
                            "; what is said of this one has no effect"));
  }
  settings->set_disk_queue(folder);
}

void Compiler::EnterIngress(const std::string& text, const Location& where, Frame* frame) {
  if (frame->name == "smtp-listener") {
    frame->scope = kListener;
    frame->listener = EnterListener(text, where, &draft_);
    if (frame->listener == nullptr) {
      return Say(Severity::kError, where,
                 absl::StrCat("\"", text, "\" is no address; it is written 192.0.2.1:25"));
    }
  } else if (frame->name == "smtp-user") {
    if (!IsUserName(text)) return Say(Severity::kError, where, "this is no user name");
    frame->scope = kSmtpUser;
    frame->smtp_user = &draft_.smtp_users[text];
    frame->smtp_user->set_name(text);
  } else if (!IsSectionName(text)) {
    return BadName(text, where);
  } else if (frame->name == "proxy") {
    frame->scope = kProxy;
    frame->proxy = &draft_.proxies[absl::AsciiStrToLower(text)];
    frame->proxy->where = where;
  } else if (frame->name == "pattern-list") {
    frame->scope = kPatternList;
    frame->pattern_list = &draft_.pattern_lists[absl::AsciiStrToLower(text)];
    frame->pattern_list->set_name(text);
  } else if (frame->name == "rewrite-list") {
    frame->rewrite_list = &draft_.rewrite_lists[absl::AsciiStrToLower(text)];
    frame->rewrite_list->set_name(text);
    frame->scope = kRewriteList;
  } else if (frame->name == "smtp-pattern-list") {
    frame->scope = kSmtpPatternList;
    frame->smtp_patterns = &draft_.smtp_pattern_lists[absl::AsciiStrToLower(text)];
    frame->smtp_patterns->set_name(text);
  } else {
    frame->scope = kSourceGroup;
    frame->source_group = &draft_.source_groups[absl::AsciiStrToLower(text)];
    frame->source_group->set_name(text);
  }
  frame->skip = false;
}

bool Compiler::IsSectionName(const std::string& name) {
  return name.size() <= 200 && std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
         });
}

void Compiler::BadName(const std::string& name, const Location& where) {
  Say(Severity::kError, where,
      absl::StrCat("\"", name.substr(0, 80),
                   "\" is no name; letters, digits, \"-\", \"_\" and \".\" are"));
}

void Compiler::UnknownSection(const Statement& statement) {
  std::vector<std::string_view> names;
  for (const SectionKind& section : AllSections()) names.push_back(section.name);
  const auto closest = ClosestName(statement.name, names);
  Say(Severity::kError, statement.where,
      absl::StrCat("unknown section <", statement.name.substr(0, 80), ">"),
      closest ? absl::StrCat("did you mean <", *closest, ">?") : "");
}

bool Compiler::GoodArguments(const SectionKind& kind, const Statement& statement) {
  const size_t count = statement.arguments.size();
  const std::string name(kind.name);
  if (kind.argument.starts_with('[') || (kind.argument.ends_with("...") && count > 0)) {
    return true;
  }
  if (kind.argument.empty() && count > 0) {
    Say(Severity::kError, statement.At(statement.arguments[0]),
        absl::StrCat("<", name, "> takes no name"));
    return false;
  }
  if (!kind.argument.empty() && (count != 1 || statement.arguments[0].text.empty())) {
    Say(Severity::kError, statement.where,
        absl::StrCat("<", name, "> needs one name, as in <", name, " ",
                     name == "domain"                       ? "example.com"
                     : kind.argument == "IP:PORT"           ? "192.0.2.1:25"
                     : kind.argument.starts_with("NETWORK") ? "192.0.2.0/24"
                                                            : "news",
                     ">"));
    return false;
  }
  return true;
}

void Compiler::BadNetwork(const std::string& text, const Location& where) {
  const auto around = Cidr::Parse(text);
  Say(Severity::kError, where,
      absl::StrCat("\"", text, "\" is no network; ",
                   around ? absl::StrCat("its network is ", around->ToString())
                          : "it is written 192.0.2.0/24 or 192.0.2.1"));
}

void Compiler::EnterSource(const std::string& text, const Location& where, Frame* frame) {
  std::vector<std::string> networks;
  if (text == "*" || text == "0/0") {
    networks = {"0.0.0.0/0", "::/0"};
  } else if (auto network = ParseNetwork(text)) {
    networks.push_back(*std::move(network));
  } else if (const auto source = ParseSourceName(text); source && frame->name == "source") {
    NamedSourceDraft& named = draft_.named_sources[*source];
    named.where = where;
    frame->scope = kSource;
    frame->skip = false;
    frame->clients.push_back(&named.settings);
    return;
  } else {
    return BadNetwork(text, where);
  }
  frame->scope = kSource;
  frame->skip = false;
  for (const std::string& network : networks) frame->clients.push_back(&draft_.clients[network]);
  const std::string& network = networks.front();
  const bool v4 = network.find(':') == network.npos;
  if (network.ends_with(v4 ? "/32" : "/128")) {
    frame->source = &draft_.sources[network.substr(0, network.find('/'))];
    frame->source_ip = network;
  }
}

void Compiler::EnterNamed(const std::string& section, const std::string& text,
                          const Location& where, Frame* frame) {
  const std::string name = PlainTargetName(text);
  if (!IsSectionName(name)) return BadName(name, where);
  const std::string key = absl::AsciiStrToLower(name);
  frame->skip = false;
  if (section == "virtual-mta") {
    frame->scope = kVirtualMta;
    frame->vmta = &draft_.vmtas[key];
    if (frame->vmta->section.name().empty()) {
      frame->vmta->section.set_name(name);
      frame->vmta->where = where;
    }
    frame->queues.push_back(frame->vmta->section.mutable_queue_defaults());
  } else {
    frame->scope = kPool;
    frame->pool = &draft_.pools[key];
    if (frame->pool->section.name().empty()) {
      frame->pool->section.set_name(name);
      frame->pool->where = where;
    }
  }
}

// source-vmta="news" destination-domain="gmail.com", each may be left out.
void Compiler::EnterBind(const Statement& statement, Frame* frame) {
  std::string vmta;
  std::string pattern = "*";
  for (const Token& token : statement.arguments) {
    const size_t equals = token.text.find('=');
    const std::string name = absl::AsciiStrToLower(token.text.substr(0, equals));
    const std::string value = equals == token.text.npos ? "" : token.text.substr(equals + 1);
    const Location where = statement.At(token);
    if (name == "source-vmta" && IsSectionName(PlainTargetName(value)) && !value.empty()) {
      vmta = absl::AsciiStrToLower(PlainTargetName(value));
      continue;
    }
    const auto parsed = ParseDomainPattern(value);
    if (name != "destination-domain" || !parsed) {
      return Say(Severity::kError, where,
                 "it is written <bind source-vmta=\"news\" destination-domain=\"example.com\">");
    }
    pattern = *parsed;
  }
  if (!vmta.empty()) frame->span = Span::kBinding;
  BindDraft& bind = draft_.binds[{vmta, pattern}];
  if (bind.where.file == nullptr) bind.where = statement.where;
  frame->queues.push_back(&bind.settings);
  frame->own_vmta = vmta;
  frame->skip = false;
}

// Of the domains of the section around it, or of all.
void Compiler::EnterPenalty(const std::string& text, const Location& where, Frame* frame) {
  if (!IsSectionName(text)) return BadName(text, where);
  const std::string name = absl::AsciiStrToLower(text);
  for (policy::v1::QueueSettings* settings : frames_.back().queues) {
    auto* const entries = settings->mutable_penalties()->mutable_entries();
    if (entries->size() >= kMaxPenalties) {
      return Say(Severity::kError, where, "more than 1000 <smtp-pattern> sections in one place");
    }
    const auto known = std::find_if(entries->begin(), entries->end(),
                                    [&](const auto& each) { return each.name() == name; });
    policy::v1::Penalty* const penalty = known == entries->end() ? entries->Add() : &*known;
    penalty->set_name(name);
    frame->penalties.push_back(penalty);
    if (!options_.keep_origins) continue;
    draft_.origins[settings][policy::v1::QueueSettings::kPenaltiesFieldNumber] = {where.file,
                                                                                  where.line};
  }
  frame->scope = kSmtpPattern;
  frame->skip = false;
}

// Of the domains of the section around it: <limits throttle 100/hour>, or one directive a line.
void Compiler::EnterLimits(const Statement& statement, Frame* frame) {
  const Frame& outer = frames_.back();
  frame->scope = kLimits;
  frame->queues = outer.queues;
  frame->span = outer.span;
  frame->skip = false;
  if (statement.arguments.empty()) return;
  // As if the rest of the line stood inside.
  Statement line = statement;
  line.kind = Statement::Kind::kDirective;
  line.name = absl::AsciiStrToLower(statement.arguments[0].text);
  line.arguments.erase(line.arguments.begin());
  line.rest.clear();
  for (const Token& token : line.arguments) {
    absl::StrAppend(&line.rest, line.rest.empty() ? "" : " ", token.text);
  }
  const Directive* const directive = FindDirective(kLimits, line.name);
  if (directive == nullptr || line.arguments.empty()) {
    return Say(Severity::kError, statement.At(statement.arguments[0]),
               "it is written <limits throttle 100/hour>");
  }
  SetClusterRate(*directive, line, *frame);
}

void Compiler::SetClusterRate(const Directive& directive, const Statement& statement,
                              const Frame& frame) {
  policy::v1::ClusterRate said;
  if (directive.grammar == Grammar::kThrottleOn) {
    auto on = ParseThrottleOn(statement.rest);
    if (!on) return Say(Severity::kError, statement.where, SyntaxMessage(directive));
    *said.mutable_rate() = std::move(on->rate);
    for (std::string& code : on->codes) said.add_codes(std::move(code));
  } else {
    const auto rate =
        statement.arguments.size() == 1 ? ParseRate(statement.arguments[0].text) : std::nullopt;
    if (!rate) return Say(Severity::kError, statement.where, SyntaxMessage(directive));
    *said.mutable_rate() = *rate;
  }
  const auto* const field = ClusterRateField(frame.span, directive.name);
  for (policy::v1::QueueSettings* settings : frame.queues) {
    settings->GetReflection()->MutableMessage(settings, field)->CopyFrom(said);
    if (!options_.keep_origins) continue;
    draft_.origins[settings][field->number()] = {statement.where.file, statement.where.line};
  }
}

void Compiler::EnterDomain(const Statement& statement, Frame* frame) {
  const Frame& outer = frames_.back();
  const std::string& text = statement.arguments[0].text;
  const Location where = statement.At(statement.arguments[0]);
  if (absl::AsciiStrToLower(text) == "{bounce}") {
    // Not a domain: the mail that is processed here.
    frame->scope = kDomain;
    frame->skip = false;
    frame->quiet = true;
    return SayStatus(statement, "<domain {bounce}>", Status::kNotYet, kBounces, false);
  }
  DomainDrafts& domains = outer.vmta != nullptr   ? outer.vmta->domains
                          : outer.pool != nullptr ? outer.pool->domains
                                                  : draft_.domains;
  frame->scope = kDomain;
  if (outer.vmta != nullptr) frame->own_vmta = absl::AsciiStrToLower(outer.vmta->section.name());
  frame->span = outer.vmta != nullptr   ? Span::kBinding
                : outer.pool != nullptr ? Span::kPool
                                        : Span::kDomain;
  if (absl::AsciiStrToLower(text) == "{bounce}") {
    // Of the mail that a <bounce-processor> takes.
    frame->skip = false;
    frame->quiet = true;
    Say(Severity::kWarning, where,
        absl::StrCat("<domain {bounce}> has no effect in this version (planned, with ",
                     std::string(kBounces), ")"));
    return;
  }
  if (text.starts_with('$')) {
    const auto macro = draft_.macros.find(absl::AsciiStrToLower(text.substr(1)));
    if (macro == draft_.macros.end()) {
      return Say(Severity::kError, where,
                 absl::StrCat("there is no domain-macro \"", text.substr(1), "\" above"));
    }
    if (!TakeMacroDomains(macro->second.size(), where)) return;
    for (const std::string& domain : macro->second) {
      const auto [place, is_new] = domains.try_emplace({domain, true});
      if (is_new) ++sections_opened_;
      frame->queues.push_back(&place->second);
    }
  } else if (const auto pattern = ParseDomainPattern(text)) {
    frame->queues.push_back(&domains[{*pattern, false}]);
    if (&domains == &draft_.domains) MakeOpen(*pattern, &draft_);
  } else {
    return Say(Severity::kError, where,
               absl::StrCat("\"", text.substr(0, 80),
                            "\" is no domain; *, example.com, *.example.com, [*.]example.com "
                            "and $macro are"));
  }
  frame->skip = false;
}

}  // namespace sluice::config
