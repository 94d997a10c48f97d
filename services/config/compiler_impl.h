// The compiler's parts, one class over several files. Private to the compiler.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "services/config/cluster_rates.h"
#include "services/config/compiler.h"
#include "services/config/compiler_ingress.h"
#include "services/config/compiler_proxy.h"
#include "services/config/draft.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"

namespace sluice::config {

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
  SourcePoolDraft* source_pool = nullptr;
  std::vector<policy::v1::QueueSettings*> queues;
  std::vector<policy::v1::ClientSettings*> clients;
  policy::v1::SourceSettings* source = nullptr;
  ListenerDraft* listener = nullptr;
  policy::v1::PatternListSection* pattern_list = nullptr;
  policy::v1::SourceGroupSection* source_group = nullptr;
  policy::v1::SmtpUserSection* smtp_user = nullptr;
  policy::v1::SmtpPatternListSection* smtp_patterns = nullptr;
  ProxyDraft* proxy = nullptr;
  policy::v1::RewriteListSection* rewrite_list = nullptr;
  std::vector<policy::v1::Penalty*> penalties;
  Span span = Span::kDomain;  // of <limits>
  std::string source_ip;      // with its prefix length
  std::string own_vmta;       // of <bind>, and of <domain> in <virtual-mta>; in lower case
};

// Reads files into a draft, and the draft into a snapshot. For one compilation. Files and sections:
// compiler.cc, compiler_sections.cc; directive lines: compiler_directives.cc, compiler_texts.cc.
class Compiler {
 public:
  Compiler(FileSource& files, const CompileOptions& options);
  void ReadFile(const std::string& path, const Location* included_from, size_t argument_column);
  void ReadText(const std::string& name, std::string_view text);
  Compiled Finish();

 private:
  using Severity = Diagnostic::Severity;

  // A section that may be kept for the next compilation, while it is open.
  struct Candidate {
    std::string_view text;
    std::string pattern;
    size_t said = 0;
    size_t references = 0;
    Tally tally;
  };
  // False where it is not in the cache, or may not be taken from there.
  bool FromCache(const TextPart& part);
  // Compiles it, and keeps it for the next compilation where that can be done.
  void RunSection(const std::shared_ptr<const std::string>& file, const TextPart& part,
                  size_t depth);
  void MakeCandidate(std::string_view text, const std::vector<Statement>& statements);
  void ToCache();
  void RunText(const std::shared_ptr<const std::string>& file, const TextPart& part, size_t depth);
  void Run(Statement* statement, size_t depth);
  // Of what the lexer said since then, up to this statement.
  void HideSecrets(size_t since, const Statement* statement);
  // Messages show the line; a password in it is not shown.
  static void HideSecret(Location* where);
  static void HideUserInfo(std::string* text);
  // False: the files are too large together. Said once; nothing more is read from then on.
  bool NoteBytes(size_t bytes, const Location& where);
  void NoteUnread(const absl::Status& status, const Location& where);
  // What was said of too many files is said once, and none is read from then on.
  void TooManyFiles(const Location& where, std::string message);
  void Say(Severity severity, const Location& where, std::string message, std::string hint = "");
  // Nobody reads more errors. Warnings beyond a number are counted only: what they are about loads.
  bool EnoughErrors() const;
  void LeaveUnclosed();
  // What macros stand for, times the lines that use them, has a bound. False: it is reached, which
  // is said once.
  bool TakeMacroDomains(size_t count, const Location& where);
  // `$name` in a list of domains is the macro's.
  bool ExpandMacros(Statement* statement);
  void DefineMacro(const Statement& statement);
  void Include(const Statement& statement);

  void Close(const Statement& statement, size_t base);
  // Opens a frame in any case, so that the section's end finds its start.
  void Open(const Statement& statement);
  void LeaveSameKind(const Statement& statement);
  void Enter(const Statement& statement, Frame* frame);
  void EnterSpool(const std::string& folder, const Location& where, Frame* frame);
  void EnterIngress(const std::string& text, const Location& where, Frame* frame);
  static bool IsSectionName(const std::string& name);
  void BadName(const std::string& name, const Location& where);
  void UnknownSection(const Statement& statement);
  bool GoodArguments(const SectionKind& kind, const Statement& statement);
  void BadNetwork(const std::string& text, const Location& where);
  void EnterSource(const std::string& text, const Location& where, Frame* frame);
  void EnterNamed(const std::string& section, const std::string& text, const Location& where,
                  Frame* frame);
  void EnterBind(const Statement& statement, Frame* frame);
  void EnterPenalty(const std::string& text, const Location& where, Frame* frame);
  void EnterLimits(const Statement& statement, Frame* frame);
  void SetClusterRate(const Directive& directive, const Statement& statement, const Frame& frame);
  void EnterDomain(const Statement& statement, Frame* frame);

  bool Accepted(const std::string& name) const;
  // What is to be said of a directive or section that is not effective. `what` is as shown.
  void SayStatus(const Statement& statement, const std::string& what, Status status,
                 std::string_view reason, bool restricts);
  void Count(Status status, bool alias);
  // `expanded`: of a line whose macros were replaced, which is counted already.
  void Apply(const Statement& statement, bool expanded = false);
  void UseInterface(const Statement& statement, const Frame& frame);
  void UseSection(const Directive& directive, const Statement& statement);
  void Add(const std::optional<LineError>& error, const Statement& statement);
  void ReadPatternLine(const Statement& statement, const Frame& frame);
  bool Check(const Directive& directive, const Statement& statement);
  bool Set(const Directive& directive, const Statement& statement,
           google::protobuf::Message* message);
  // The virtual MTA or pool that the value names is one that must be there.
  void NoteTarget(const Directive& directive, const Statement& statement);
  void KeepLine(const Directive& directive, const Statement& statement, size_t section);
  void KeepOrigin(const Directive& directive, const Statement& statement,
                  const google::protobuf::Message& message);
  // Of a field that no directive names; only with keep_origins.
  void KeepFieldOrigin(const char* field, const Statement& statement,
                       const google::protobuf::Message& message);
  // The last argument is the value: source-ip-max-smtp-out has a network before it.
  static bool Restricts(const Directive& directive, const Statement& statement);
  static std::string PlacesOf(const std::string& name);
  void UnknownDirective(const Statement& statement, const Frame& frame);
  void KeepHostLine(const std::string& vmta, const std::string& network,
                    const Statement& statement);
  void AddSourceHost(const Statement& statement, VirtualMtaDraft* vmta);
  // Directives that are not just a field.
  void ApplyHere(const Directive& directive, const Statement& statement, const Frame& frame);
  // The section of a file is named by its path, so that clients can share it.
  void ReadAuthFile(const Statement& statement, const Frame& frame);
  // The file that the first argument names; an error is said.
  std::optional<std::string> ReadTextFile(const Statement& statement, size_t max_bytes);
  void ReadDsnTemplate(const Directive& directive, const Statement& statement);
  std::optional<std::vector<std::string>> ReadHeaderLines(const Directive& directive,
                                                          const Statement& statement,
                                                          bool may_fold);
  void ReadHeaderFile(const Directive& directive, const Statement& statement, const Frame& frame);
  void ReadHttpHeaderFile(const Directive& directive, const Statement& statement,
                          const Frame& frame);
  void ReadDomainFile(const Directive& directive, const Statement& statement);
  void AddRewrite(const Directive& directive, const Statement& statement,
                  policy::v1::RewriteListSection* list);

  FileSource& files_;
  const CompileOptions& options_;
  Draft draft_;
  Compiled compiled_;
  std::vector<Frame> frames_;
  size_t sections_opened_ = 0;  // also those that a macro stands for
  bool too_many_sections_ = false;
  size_t bytes_read_ = 0;
  size_t entries_left_ = kMaxFolderEntries;  // of folders that includes may look at
  bool too_many_files_ = false;
  size_t macro_domains_ = 0;     // see TakeMacroDomains
  size_t said_ = 0;              // by Say
  size_t warnings_ = 0;          // of them, kept
  size_t dropped_warnings_ = 0;  // and not
  absl::flat_hash_set<std::pair<google::protobuf::Message*, const Directive*>> long_lists_;
  std::optional<Candidate> candidate_;
  std::vector<std::string> open_files_;
};

}  // namespace sluice::config
