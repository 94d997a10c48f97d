#include "services/config/compiler.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/config/compiler_auth.h"
#include "services/config/compiler_ingress.h"
#include "services/config/compiler_patterns.h"
#include "services/config/compiler_proxy.h"
#include "services/config/draft.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"
#include "services/config/setter.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

using Severity = Diagnostic::Severity;

constexpr size_t kMaxFiles = 10'000;
constexpr size_t kMaxDepth = 20;
constexpr size_t kMaxDiagnostics = 1'000;
constexpr size_t kMaxMacroDomains = 10'000;
constexpr char kUnsafeHint[] =
    "it restricts, and going on without it would not be safe; to do so, take the line out or give "
    "--accept-unsupported ";

// A section that is open.
struct Frame {
  Scope scope = kGlobal;
  std::string name;  // as in <name>
  Location where;
  bool skip = false;   // a section that is only read over
  bool quiet = false;  // a section that is not effective: its lines are only checked
  size_t number = 0;   // 0: outside of sections
  VirtualMtaDraft* vmta = nullptr;
  PoolDraft* pool = nullptr;
  uint32_t* source_pool = nullptr;
  std::vector<policy::v1::QueueSettings*> queues;
  std::vector<policy::v1::ClientSettings*> clients;
  policy::v1::SourceSettings* source = nullptr;
  ListenerDraft* listener = nullptr;
  policy::v1::PatternListSection* pattern_list = nullptr;
  policy::v1::SourceGroupSection* source_group = nullptr;
  policy::v1::SmtpUserSection* smtp_user = nullptr;
  policy::v1::SmtpPatternListSection* smtp_patterns = nullptr;
  ProxyDraft* proxy = nullptr;
  std::string source_ip;  // with its prefix length
};

class Compiler {
 public:
  Compiler(FileSource& files, const CompileOptions& options) : files_(files), options_(options) {
    Frame global;
    global.queues.push_back(draft_.global.mutable_queue_defaults());
    global.clients.push_back(draft_.global.mutable_client_defaults());
    frames_.push_back(std::move(global));
  }

  void ReadFile(const std::string& path, const Location* included_from, size_t argument_column) {
    Location where = included_from == nullptr
                         ? Location{std::make_shared<const std::string>(path), 0, 0, ""}
                         : *included_from;
    if (included_from != nullptr) where.column = static_cast<int>(argument_column);
    const std::string normal = std::filesystem::path(path).lexically_normal().string();
    if (std::find(open_files_.begin(), open_files_.end(), normal) != open_files_.end()) {
      return Say(Severity::kError, where, absl::StrCat("\"", path, "\" includes itself"));
    }
    if (open_files_.size() >= kMaxDepth || compiled_.files.size() >= kMaxFiles) {
      return Say(Severity::kError, where, "too many includes, or too deep");
    }
    const auto text = files_.Read(path);
    if (!text.ok()) {
      const std::string reason(text.status().message());
      return Say(Severity::kError, where,
                 included_from == nullptr ? reason : absl::StrCat("\"", path, "\": ", reason));
    }
    open_files_.push_back(normal);
    ReadText(path, *text);
    open_files_.pop_back();
  }

  void ReadText(const std::string& name, std::string_view text) {
    compiled_.files.push_back(name);
    const size_t depth = frames_.size();
    const size_t said = compiled_.diagnostics.size();
    std::vector<Statement> statements = Lex(name, text, &TakesRegex, &compiled_.diagnostics);
    for (size_t i = said; i < compiled_.diagnostics.size(); ++i) {
      HideSecret(&compiled_.diagnostics[i].where);
    }
    for (size_t i = 0; i < statements.size(); ++i) {
      Statement& statement = statements[i];
      if (IsSecret(statement.name)) HideSecret(&statement.where);
      if (compiled_.diagnostics.size() > kMaxDiagnostics) break;
      if (const auto end = FromCache(statements, i)) {
        i = *end;
        continue;
      }
      switch (statement.kind) {
        case Statement::Kind::kOpen:
          Open(statement);
          break;
        case Statement::Kind::kClose:
          Close(statement, depth);
          ToCache();
          break;
        case Statement::Kind::kDirective:
          if (!frames_.back().skip) Apply(statement);
      }
    }
    while (frames_.size() > depth) LeaveUnclosed();
  }

  Compiled Finish() {
    if (options_.keep_origins) {
      for (const auto& [name, vmta] : draft_.vmtas) {
        compiled_.section_places[absl::StrCat("vmta/", name)] = vmta.where;
      }
      for (const auto& [name, pool] : draft_.pools) {
        compiled_.section_places[absl::StrCat("pool/", name)] = pool.where;
      }
    }
    draft_.cache = options_.cache;
    compiled_.snapshot = FinishDraft(std::move(draft_), &compiled_.diagnostics, &compiled_.origins);
    if (options_.cache != nullptr) options_.cache->Turn();
    if (compiled_.diagnostics.size() > kMaxDiagnostics) {
      compiled_.diagnostics.resize(kMaxDiagnostics);
      compiled_.diagnostics.push_back({Severity::kError, {}, "and more", ""});
    }
    return std::move(compiled_);
  }

 private:
  // A section that may be kept for the next compilation, while it is open.
  struct Candidate {
    std::string key;
    std::string pattern;
    size_t diagnostics = 0;
    size_t references = 0;
    Tally tally;
  };

  // The end of the section at `open` where it was taken from the cache.
  std::optional<size_t> FromCache(const std::vector<Statement>& statements, size_t open) {
    if (options_.cache == nullptr || options_.keep_origins || frames_.size() != 1) {
      return std::nullopt;
    }
    const auto end = CompileCache::EndOf(statements, open);
    if (!end) return std::nullopt;
    std::string key = CompileCache::KeyOf(statements, open, *end);
    const auto pattern = ParseDomainPattern(statements[open].arguments[0].text);
    if (!pattern || draft_.domains.contains({*pattern, false})) return std::nullopt;
    const CompileCache::Entry* const entry = options_.cache->Find(key);
    if (entry == nullptr) {
      candidate_ =
          Candidate{std::move(key), *pattern, compiled_.diagnostics.size(),
                    draft_.references.size() + draft_.section_uses.size(), compiled_.tally};
      return std::nullopt;
    }
    draft_.domains[{*pattern, false}] = entry->settings;
    if (entry->hash != 0) draft_.known_hashes[*pattern] = {key, entry->hash};
    compiled_.tally.effective += entry->effective;
    compiled_.tally.aliases += entry->aliases;
    CompileCache::Entry copy = *entry;
    options_.cache->Keep(std::move(key), std::move(copy));
    return end;
  }

  void ToCache() {
    if (!candidate_ || frames_.size() != 1) return;
    const Candidate candidate = *std::exchange(candidate_, std::nullopt);
    if (compiled_.diagnostics.size() != candidate.diagnostics ||
        draft_.references.size() + draft_.section_uses.size() != candidate.references) {
      return;
    }
    CompileCache::Entry entry;
    entry.pattern = candidate.pattern;
    entry.settings = draft_.domains[{candidate.pattern, false}];
    entry.effective = compiled_.tally.effective - candidate.tally.effective;
    entry.aliases = compiled_.tally.aliases - candidate.tally.aliases;
    draft_.known_hashes[candidate.pattern] = {candidate.key, 0};
    options_.cache->Keep(candidate.key, std::move(entry));
  }

  // Messages show the line; a password in it is not shown.
  static void HideSecret(Location* where) {
    const std::string& line = where->line_text;
    const size_t from = std::min(line.find_first_not_of(" \t"), line.size());
    const size_t end = std::min(line.find_first_of(" \t", from), line.size());
    if (!IsSecret(absl::AsciiStrToLower(line.substr(from, end - from)))) return;
    where->line_text = absl::StrCat(line.substr(0, end), " (secret)");
  }

  void Say(Severity severity, const Location& where, std::string message, std::string hint = "") {
    compiled_.diagnostics.push_back({severity, where, std::move(message), std::move(hint)});
  }
  void LeaveUnclosed() {
    Say(Severity::kError, frames_.back().where,
        absl::StrCat("<", frames_.back().name, "> is not closed"));
    frames_.pop_back();
  }

  void Close(const Statement& statement, size_t base) {
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

  // Opens a frame in any case, so that the section's end finds its start.
  void Open(const Statement& statement) {
    Frame frame;
    frame.name = statement.name;
    frame.where = statement.where;
    frame.number = ++sections_opened_;
    frame.skip = true;
    if (!frames_.back().skip) Enter(statement, &frame);
    frames_.push_back(std::move(frame));
  }

  void Enter(const Statement& statement, Frame* frame) {
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
      if (kind->scope == kSmtpPatternList) {
        const std::string& list = statement.arguments[0].text;
        frame->smtp_patterns = &draft_.smtp_pattern_lists[absl::AsciiStrToLower(list)];
        frame->smtp_patterns->set_name(list);
      }
      if (!outer.quiet) SayStatus(statement, absl::StrCat("<", name, ">"), kind->status, "", true);
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
      frame->source_pool = &draft_.source_pools.emplace(*network, 0).first->second;
      frame->skip = false;
    } else if (name == "domain") {
      EnterDomain(argument.text, where, frame);
    } else {
      EnterIngress(argument.text, where, frame);
    }
  }

  void EnterIngress(const std::string& text, const Location& where, Frame* frame) {
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
    } else {
      frame->scope = kSourceGroup;
      frame->source_group = &draft_.source_groups[absl::AsciiStrToLower(text)];
      frame->source_group->set_name(text);
    }
    frame->skip = false;
  }

  static bool IsSectionName(const std::string& name) {
    return name.size() <= 200 && std::all_of(name.begin(), name.end(), [](char c) {
             return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.';
           });
  }
  void BadName(const std::string& name, const Location& where) {
    Say(Severity::kError, where,
        absl::StrCat("\"", name.substr(0, 80),
                     "\" is no name; letters, digits, \"-\", \"_\" and \".\" are"));
  }

  void UnknownSection(const Statement& statement) {
    std::vector<std::string_view> names;
    for (const SectionKind& section : AllSections()) names.push_back(section.name);
    const auto closest = ClosestName(statement.name, names);
    Say(Severity::kError, statement.where,
        absl::StrCat("unknown section <", statement.name.substr(0, 80), ">"),
        closest ? absl::StrCat("did you mean <", *closest, ">?") : "");
  }

  bool GoodArguments(const SectionKind& kind, const Statement& statement) {
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

  bool Accepted(const std::string& name) const {
    return options_.accept_unsupported.contains(name);
  }

  // What is to be said of a directive or section that is not effective. `what` is as shown.
  void SayStatus(const Statement& statement, const std::string& what, Status status,
                 std::string_view reason, bool restricts) {
    const std::string because = reason.empty() ? "" : absl::StrCat(": ", std::string(reason));
    if (restricts && status != Status::kNoEffect && status != Status::kNotYet &&
        !Accepted(statement.name)) {
      return Say(Severity::kError, statement.where,
                 absl::StrCat(what, " is not possible in this version", because),
                 absl::StrCat(kUnsafeHint, statement.name));
    }
    switch (status) {
      case Status::kActive:
        return;
      case Status::kNotYet:
      case Status::kRefused:
        return Say(Severity::kWarning, statement.where,
                   absl::StrCat(what, " has no effect in this version (planned)"));
      case Status::kNoEffect:
        return Say(Severity::kWarning, statement.where,
                   absl::StrCat(what, " has no meaning here", because));
      case Status::kUnsupported:
        return Say(Severity::kWarning, statement.where,
                   absl::StrCat(what, " is unsupported and has no effect", because));
    }
  }

  void Count(Status status, bool alias) {
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

  void BadNetwork(const std::string& text, const Location& where) {
    Say(Severity::kError, where,
        absl::StrCat("\"", text, "\" is no network; it is written 192.0.2.0/24 or 192.0.2.1"));
  }

  void EnterSource(const std::string& text, const Location& where, Frame* frame) {
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

  void EnterNamed(const std::string& section, const std::string& text, const Location& where,
                  Frame* frame) {
    const std::string name = text == "{default}" ? "default" : text;
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

  void EnterDomain(const std::string& text, const Location& where, Frame* frame) {
    const Frame& outer = frames_.back();
    DomainDrafts& domains = outer.vmta != nullptr   ? outer.vmta->domains
                            : outer.pool != nullptr ? outer.pool->domains
                                                    : draft_.domains;
    frame->scope = kDomain;
    if (text.starts_with('$')) {
      const auto macro = draft_.macros.find(absl::AsciiStrToLower(text.substr(1)));
      if (macro == draft_.macros.end()) {
        return Say(Severity::kError, where,
                   absl::StrCat("there is no domain-macro \"", text.substr(1), "\" above"));
      }
      for (const std::string& domain : macro->second) {
        frame->queues.push_back(&domains[{domain, true}]);
      }
    } else if (const auto pattern = ParseDomainPattern(text)) {
      frame->queues.push_back(&domains[{*pattern, false}]);
      // Its content is no longer that of one section alone.
      if (&domains == &draft_.domains) draft_.known_hashes.erase(*pattern);
    } else {
      return Say(Severity::kError, where,
                 absl::StrCat("\"", text.substr(0, 80),
                              "\" is no domain; *, example.com, *.example.com, [*.]example.com "
                              "and $macro are"));
    }
    frame->skip = false;
  }

  // `expanded`: of a line whose macros were replaced, which is counted already.
  void Apply(const Statement& statement, bool expanded = false) {
    const Frame& frame = frames_.back();
    const Directive* const directive = FindDirective(frame.scope, statement.name);
    if (directive == nullptr) return UnknownDirective(statement, frame);
    if (options_.keep_origins && !expanded) KeepLine(*directive, statement, frame.number);
    const Status status =
        frame.quiet && directive->status == Status::kActive ? Status::kNotYet : directive->status;
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
      SayStatus(statement, statement.name, asks ? status : Status::kNotYet, reason, restricts);
    }
    if (directive->name == "include") return ApplyHere(*directive, statement, frame);
    if (directive->grammar == Grammar::kDomains && directive->target != Target::kCompiler &&
        statement.rest.find('$') != std::string::npos && !expanded) {
      Statement with_domains = statement;
      return ExpandMacros(&with_domains) ? Apply(with_domains, true) : void();
    }
    if (directive->grammar == Grammar::kSectionName) UseSection(*directive, statement);
    if (directive->grammar == Grammar::kPatternLine) return ReadPatternLine(statement, frame);
    if (frame.quiet || directive->target == Target::kNone ||
        directive->status == Status::kNoEffect || directive->status == Status::kUnsupported) {
      Check(*directive, statement);
      return;
    }
    if (directive->name == "smtp-listener") {
      if (options_.keep_origins) KeepOrigin(*directive, statement, draft_.global.settings());
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
    if (directive->grammar == Grammar::kTargetName && statement.arguments.size() == 1 &&
        !statement.arguments[0].text.empty() && statement.arguments[0].text != directive->choices) {
      draft_.references.emplace_back(statement.arguments[0].text,
                                     statement.At(statement.arguments[0]));
    }
  }

  void UseSection(const Directive& directive, const Statement& statement) {
    if (statement.arguments.size() != 1 || statement.arguments[0].text.empty()) return;
    draft_.section_uses.push_back({std::string(directive.choices), statement.arguments[0].text,
                                   statement.At(statement.arguments[0])});
  }

  void Add(const std::optional<LineError>& error, const Statement& statement) {
    if (!error) return;
    const bool at_argument = error->argument < statement.arguments.size();
    Say(error->warning ? Severity::kWarning : Severity::kError,
        at_argument ? statement.At(statement.arguments[error->argument]) : statement.where,
        error->message);
  }

  void ReadPatternLine(const Statement& statement, const Frame& frame) {
    if (frame.scope == kSmtpPatternList) {
      return Add(AddReplyRule(statement, frame.smtp_patterns), statement);
    }
    if (frame.scope == kMxRollupList) {
      return Add(AddMxRollup(statement, &draft_.mx_rollup), statement);
    }
    Add(AddBounceCategory(statement, &draft_.bounce_categories), statement);
  }

  bool Check(const Directive& directive, const Statement& statement) {
    return Set(directive, statement, nullptr);
  }

  bool Set(const Directive& directive, const Statement& statement,
           google::protobuf::Message* message) {
    if (directive.grammar == Grammar::kRegex) {
      const auto error = CheckRegex(statement);
      Add(error, statement);
      if (error && !error->warning) return false;
    }
    const auto error = SetField(directive, statement.arguments, message);
    if (!error) {
      if (options_.keep_origins && message != nullptr) KeepOrigin(directive, statement, *message);
      return true;
    }
    const bool at_argument = error->argument < statement.arguments.size();
    Say(error->planned ? Severity::kWarning : Severity::kError,
        at_argument ? statement.At(statement.arguments[error->argument]) : statement.where,
        at_argument ? error->message : absl::StrCat(statement.name, ": ", error->message));
    return false;
  }

  void KeepLine(const Directive& directive, const Statement& statement, size_t section) {
    std::string value;
    for (const Token& token : statement.arguments) {
      absl::StrAppend(&value, value.empty() ? "" : " ", token.text);
    }
    compiled_.lines.push_back({&directive, std::move(value), statement.where, section});
  }

  void KeepOrigin(const Directive& directive, const Statement& statement,
                  const google::protobuf::Message& message) {
    const auto* const field =
        message.GetDescriptor()->FindFieldByName(std::string(directive.field));
    draft_.origins[&message][field->number()] = {statement.where.file, statement.where.line};
  }

  // The last argument is the value: source-ip-max-smtp-out has a network before it.
  static bool Restricts(const Directive& directive, const Statement& statement) {
    return statement.arguments.empty() ||
           !AsksForNothing(directive, statement.arguments.back().text);
  }

  void UnknownDirective(const Statement& statement, const Frame& frame) {
    const std::string name = statement.name.substr(0, 80);
    const std::string place = frame.scope == kGlobal ? std::string("outside of sections")
                                                     : absl::StrCat("in <", frame.name, ">");
    if (const uint32_t scopes = ScopesOf(statement.name); scopes != 0) {
      std::string where;
      for (const Scope scope : kAllScopes) {
        if ((scopes & scope) == 0) continue;
        absl::StrAppend(&where, where.empty() ? "" : ", ", std::string(ScopeName(scope)));
      }
      return Say(Severity::kError, statement.where,
                 absl::StrCat("\"", name, "\" may not be ", place),
                 absl::StrCat("it belongs in: ", where));
    }
    const auto closest = ClosestName(statement.name, NamesIn(frame.scope));
    Location where = statement.where;
    // Most likely a secret under a name that is written wrong.
    if (closest && IsSecret(*closest)) where.line_text = name + " (secret)";
    Say(Severity::kError, where, absl::StrCat("unknown directive \"", name, "\" ", place),
        closest ? absl::StrCat("did you mean \"", *closest, "\"?") : "");
  }

  // Directives that are not just a field.
  void ApplyHere(const Directive& directive, const Statement& statement, const Frame& frame) {
    if (statement.arguments.empty()) {
      return Say(Severity::kError, statement.where, SyntaxMessage(directive));
    }
    const Token& first = statement.arguments[0];
    const Location where = statement.At(first);
    if (directive.name == "include") return Include(statement);
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
    if (directive.grammar == Grammar::kBool) {
      if (!ParseBool(first.text)) Say(Severity::kError, where, SyntaxMessage(directive));
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
      draft_.source_uses.push_back({frame.source_ip, first.text, where});
      return;
    }
    if (directive.name == "virtual-mta") {
      for (const Token& token : statement.arguments) {
        for (const std::string& name : SplitList(token.text)) {
          frame.pool->members.emplace_back(name, statement.At(token));
        }
      }
      return;
    }
    if (directive.name == "max-smtp-out") {
      const auto count = ParseCount(first.text);
      const bool unlimited = absl::AsciiStrToLower(first.text) == "unlimited";
      if ((!count && !unlimited) || (count && *count > directive.max)) {
        return Say(Severity::kError, where, SyntaxMessage(directive));
      }
      *frame.source_pool = static_cast<uint32_t>(count.value_or(0));
      return;
    }
    // smtp-source-host and source-pool
    const auto network = ParseNetwork(first.text);
    if (!network) return BadNetwork(first.text, where);
    if (directive.name == "source-pool") {
      frame.vmta->source_pools.push_back({*network, where});
      return;
    }
    std::string host_name;
    if (statement.arguments.size() > 1) {
      const auto name = ParseHostName(statement.arguments[1].text);
      if (!name || statement.arguments.size() > 2) {
        return Say(Severity::kError, statement.At(statement.arguments.back()),
                   SyntaxMessage(directive));
      }
      host_name = *name;
    }
    if (network->starts_with("0.0.0.0/") || network->starts_with("::/")) {
      return Say(Severity::kError, where, "a source address is one of this machine's own");
    }
    if (!AddSourceHosts(*network, host_name, &frame.vmta->section)) {
      Say(Severity::kError, where, "more than 1024 source addresses");
    }
  }

  // `$name` in a list of domains is the macro's.
  bool ExpandMacros(Statement* statement) {
    for (Token& token : statement->arguments) {
      std::string text;
      for (const std::string& item : SplitList(token.text)) {
        if (!item.starts_with('$')) {
          absl::StrAppend(&text, text.empty() ? "" : ",", item);
          continue;
        }
        const auto macro = draft_.macros.find(absl::AsciiStrToLower(item.substr(1)));
        if (macro == draft_.macros.end()) {
          Say(Severity::kError, statement->At(token),
              absl::StrCat("there is no domain-macro \"", item.substr(1), "\" above"));
          return false;
        }
        absl::StrAppend(&text, text.empty() ? "" : ",", absl::StrJoin(macro->second, ","));
      }
      token.text = std::move(text);
    }
    return true;
  }

  void DefineMacro(const Statement& statement) {
    std::vector<std::string> domains;
    for (size_t i = 1; i < statement.arguments.size(); ++i) {
      const Location where = statement.At(statement.arguments[i]);
      for (const std::string& item : SplitList(statement.arguments[i].text)) {
        if (item.starts_with('$')) {
          const auto macro = draft_.macros.find(absl::AsciiStrToLower(item.substr(1)));
          if (macro == draft_.macros.end()) {
            return Say(Severity::kError, where,
                       absl::StrCat("there is no domain-macro \"", item.substr(1), "\" above"));
          }
          domains.insert(domains.end(), macro->second.begin(), macro->second.end());
        } else if (const auto pattern = ParseDomainPattern(item)) {
          domains.push_back(*pattern);
        } else {
          return Say(Severity::kError, where,
                     absl::StrCat("\"", item.substr(0, 80), "\" is no domain"));
        }
        if (domains.size() > kMaxMacroDomains) {
          return Say(Severity::kError, where, "a domain-macro has at most 10000 domains");
        }
      }
    }
    if (domains.empty()) {
      return Say(Severity::kError, statement.where,
                 "it is written domain-macro NAME DOMAIN,DOMAIN,...");
    }
    draft_.macros[absl::AsciiStrToLower(statement.arguments[0].text)] = std::move(domains);
  }

  // The section of a file is named by its path, so that clients can share it.
  void ReadAuthFile(const Statement& statement, const Frame& frame) {
    if (statement.arguments.size() != 1 || statement.arguments[0].text.empty()) return;
    const Location where = statement.At(statement.arguments[0]);
    std::filesystem::path path(statement.arguments[0].text);
    if (path.is_relative()) {
      path = std::filesystem::path(*statement.where.file).parent_path() / path;
    }
    const std::string name = path.lexically_normal().string();
    for (auto* settings : frame.clients) settings->set_auth_plain(name);
    if (draft_.auth_files.contains(name)) return;
    const auto text = files_.Read(name);
    if (!text.ok()) {
      // Doing without it is safe, where somebody has said so: nobody gets in.
      return Say(Accepted(statement.name) ? Severity::kWarning : Severity::kError, where,
                 absl::StrCat("\"", name, "\": ", std::string(text.status().message())));
    }
    policy::v1::AuthFileSection section;
    section.set_name(name);
    if (const auto error = ParseAuthFile(*text, &section)) {
      return Say(Severity::kError, where,
                 absl::StrCat("\"", name, "\" line ", error->line, ": ", error->message));
    }
    draft_.auth_files.emplace(name, std::move(section));
  }

  void Include(const Statement& statement) {
    const Token& argument = statement.arguments[0];
    const Location where = statement.At(argument);
    if (statement.arguments.size() != 1 || argument.text.empty()) {
      return Say(Severity::kError, where, "it is written include FILE");
    }
    if (argument.text.find("://") != std::string::npos) {
      return Say(Severity::kError, where, "only files can be included");
    }
    std::filesystem::path path(argument.text);
    if (path.is_relative()) {
      path = std::filesystem::path(*statement.where.file).parent_path() / path;
    }
    const auto column = static_cast<size_t>(argument.column);
    // A folder: config.d, or what ends in a slash.
    const bool folder = argument.text.ends_with('/') || argument.text.ends_with(".d");
    if (!folder && argument.text.find_first_of("*?[") == std::string::npos) {
      return ReadFile(path.string(), &statement.where, column);
    }
    if (folder) path /= "*.conf";
    const std::vector<std::string> found = files_.Glob(path.string());
    if (found.empty()) {
      return Say(Severity::kWarning, where,
                 absl::StrCat("no file matches \"", path.string(), "\""));
    }
    for (const std::string& file : found) ReadFile(file, &statement.where, column);
  }

  FileSource& files_;
  const CompileOptions& options_;
  Draft draft_;
  Compiled compiled_;
  std::vector<Frame> frames_;
  size_t sections_opened_ = 0;
  std::optional<Candidate> candidate_;
  std::vector<std::string> open_files_;
};

}  // namespace

Compiled Compile(const std::vector<std::string>& paths, FileSource& files,
                 const CompileOptions& options) {
  Compiler compiler(files, options);
  for (const std::string& path : paths) compiler.ReadFile(path, nullptr, 0);
  return compiler.Finish();
}

Compiled CompileText(const std::string& name, std::string_view text, FileSource& files,
                     const CompileOptions& options) {
  Compiler compiler(files, options);
  compiler.ReadText(name, text);
  return compiler.Finish();
}

}  // namespace sluice::config
