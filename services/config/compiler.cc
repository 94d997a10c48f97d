#include "services/config/compiler.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/utf8.h"
#include "services/config/compiler_impl.h"
#include "services/config/setter.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxFiles = 10'000;
constexpr size_t kMaxDepth = 20;
constexpr size_t kMaxBytes = size_t{256} << 20;
constexpr size_t kMaxDiagnostics = 1'000;
constexpr size_t kMaxMacroDomains = 10'000;
constexpr size_t kMaxMacroWork = 5'000'000;

}  // namespace

Compiler::Compiler(FileSource& files, const CompileOptions& options)
    : files_(files), options_(options) {
  Frame global;
  global.queues.push_back(draft_.global.mutable_queue_defaults());
  global.clients.push_back(draft_.global.mutable_client_defaults());
  frames_.push_back(std::move(global));
}

void Compiler::ReadFile(const std::string& path, const Location* included_from,
                        size_t argument_column) {
  Location where = included_from == nullptr
                       ? Location{std::make_shared<const std::string>(path), 0, 0, ""}
                       : *included_from;
  if (included_from != nullptr) where.column = static_cast<int>(argument_column);
  const std::string normal = std::filesystem::path(path).lexically_normal().string();
  if (std::find(open_files_.begin(), open_files_.end(), normal) != open_files_.end()) {
    return Say(Severity::kError, where, absl::StrCat("\"", path, "\" includes itself"));
  }
  if (open_files_.size() >= kMaxDepth) {
    return Say(Severity::kError, where,
               absl::StrCat("includes are more than ", kMaxDepth, " deep here"));
  }
  // Said already; what is not read takes no time.
  if (bytes_read_ > kMaxBytes || too_many_files_) return;
  if (compiled_.files.size() >= kMaxFiles) {
    return TooManyFiles(where, absl::StrCat("more than ", kMaxFiles, " files are included"));
  }
  // Names of files stand in the snapshot, which services exchange as UTF-8.
  if (!IsUtf8(path)) {
    return Say(Severity::kError, where, absl::StrCat("\"", path, "\": its name is not UTF-8"));
  }
  const auto text = files_.Read(path);
  if (!text.ok()) {
    NoteUnread(text.status(), where);
    const std::string reason(text.status().message());
    return Say(Severity::kError, where,
               included_from == nullptr ? reason : absl::StrCat("\"", path, "\": ", reason));
  }
  if (!NoteBytes(text->size(), where)) return;
  open_files_.push_back(normal);
  ReadText(path, *text);
  open_files_.pop_back();
}

// A file that is too large was read, too, up to there.
void Compiler::NoteUnread(const absl::Status& status, const Location& where) {
  if (absl::IsResourceExhausted(status)) NoteBytes(kMaxBytes / 4, where);
}

void Compiler::TooManyFiles(const Location& where, std::string message) {
  if (!std::exchange(too_many_files_, true)) {
    Say(Severity::kError, where, std::move(message), "is it the folder that was meant?");
  }
}

bool Compiler::NoteBytes(size_t bytes, const Location& where) {
  const bool was_over = bytes_read_ > kMaxBytes;
  bytes_read_ += bytes;
  if (bytes_read_ <= kMaxBytes) return true;
  if (!was_over) Say(Severity::kError, where, "the files are larger than 256 MiB together");
  return false;
}

void Compiler::ReadText(const std::string& name, std::string_view text) {
  compiled_.files.push_back(name);
  const size_t depth = frames_.size();
  const auto file = std::make_shared<const std::string>(name);
  if (options_.cache == nullptr || options_.keep_origins) {
    RunText(file, {text, 1, false}, depth);
  } else {
    for (const TextPart& part : CutSections(text)) {
      if (!part.section) {
        RunText(file, part, depth);
      } else if (!FromCache(part)) {
        RunSection(file, part, depth);
      }
    }
  }
  while (frames_.size() > depth) LeaveUnclosed();
}

void Compiler::RunText(const std::shared_ptr<const std::string>& file, const TextPart& part,
                       size_t depth) {
  Lexer lexer(file, part.first_line, part.text, &TakesRegex, &compiled_.diagnostics);
  while (true) {
    const size_t said = compiled_.diagnostics.size();
    std::optional<Statement> statement = lexer.Next();
    HideSecrets(said, statement ? &*statement : nullptr);
    if (!statement || EnoughErrors()) return;
    Run(&*statement, depth);
  }
}

void Compiler::RunSection(const std::shared_ptr<const std::string>& file, const TextPart& part,
                          size_t depth) {
  const size_t said = compiled_.diagnostics.size();
  auto statements = LexPart(file, part.first_line, part.text, &TakesRegex, &compiled_.diagnostics);
  if (compiled_.diagnostics.size() != said) {
    // Nothing of it can be kept; line by line mistakes of all kinds come in their order.
    compiled_.diagnostics.resize(said);
    return RunText(file, part, depth);
  }
  MakeCandidate(part.text, statements);
  for (Statement& statement : statements) {
    if (EnoughErrors()) break;
    Run(&statement, depth);
  }
  candidate_.reset();
}

void Compiler::Run(Statement* statement, size_t depth) {
  if (IsSecret(statement->name)) {
    HideSecret(&statement->where);
    statement->more.clear();
  }
  const size_t domains = std::max(frames_.back().queues.size(), frames_.back().penalties.size());
  if (domains > 1 && statement->kind != Statement::Kind::kClose &&
      !TakeMacroDomains(domains, statement->where)) {
    return;
  }
  switch (statement->kind) {
    case Statement::Kind::kOpen:
      Open(*statement);
      break;
    case Statement::Kind::kClose:
      Close(*statement, depth);
      ToCache();
      break;
    case Statement::Kind::kDirective:
      if (!frames_.back().skip) Apply(*statement);
  }
}

void Compiler::HideSecrets(size_t since, const Statement* statement) {
  if (since == compiled_.diagnostics.size()) return;
  const bool secret = statement != nullptr && statement->kind == Statement::Kind::kDirective &&
                      MayBeSecret(statement->name);
  for (size_t i = since; i < compiled_.diagnostics.size(); ++i) {
    Location& where = compiled_.diagnostics[i].where;
    HideSecret(&where);
    // A line that goes on with it.
    if (secret && where.line > statement->where.line) where.line_text = "(secret)";
  }
}

Compiled Compiler::Finish() {
  if (options_.keep_origins) {
    for (const auto& [name, vmta] : draft_.vmtas) {
      compiled_.section_places[absl::StrCat("vmta/", name)] = vmta.where;
    }
    for (const auto& [name, pool] : draft_.pools) {
      compiled_.section_places[absl::StrCat("pool/", name)] = pool.where;
    }
  }
  for (const auto& [message, directive] : long_lists_) DropRepeats(*directive, message);
  compiled_.snapshot = FinishDraft(std::move(draft_), &compiled_.diagnostics, &compiled_.origins);
  if (options_.cache != nullptr) options_.cache->Turn();
  size_t errors = 0;
  std::erase_if(compiled_.diagnostics, [&errors](const Diagnostic& diagnostic) {
    return diagnostic.severity == Severity::kError && ++errors > kMaxDiagnostics;
  });
  if (errors > kMaxDiagnostics) {
    compiled_.diagnostics.push_back({Severity::kError, {}, "and more", ""});
  }
  if (dropped_warnings_ > 0) {
    compiled_.diagnostics.push_back(
        {Severity::kWarning, {}, absl::StrCat("and ", dropped_warnings_, " more warnings"), ""});
  }
  return std::move(compiled_);
}

bool Compiler::FromCache(const TextPart& part) {
  CompileCache::Entry* const entry = options_.cache->Find(part.text);
  if (entry == nullptr || frames_.size() != 1 || draft_.domains.contains({entry->pattern, false}) ||
      !draft_.ready_domains.emplace(entry->pattern, &entry->section).second) {
    return false;
  }
  options_.cache->Use(entry);
  compiled_.tally.effective += entry->effective;
  compiled_.tally.aliases += entry->aliases;
  return true;
}

void Compiler::MakeCandidate(std::string_view text, const std::vector<Statement>& statements) {
  if (frames_.size() != 1 || statements.size() < 2 ||
      statements.back().kind != Statement::Kind::kClose ||
      statements.front().arguments.size() != 1) {
    return;
  }
  const auto pattern = ParseDomainPattern(statements.front().arguments[0].text);
  if (!pattern || draft_.ready_domains.contains(*pattern) ||
      draft_.domains.contains({*pattern, false})) {
    return;
  }
  candidate_ = Candidate{text, *pattern, said_,
                         draft_.references.size() + draft_.section_uses.size(), compiled_.tally};
}

void Compiler::ToCache() {
  if (!candidate_ || frames_.size() != 1) return;
  const Candidate candidate = *std::exchange(candidate_, std::nullopt);
  if (said_ != candidate.said ||
      draft_.references.size() + draft_.section_uses.size() != candidate.references) {
    return;
  }
  CompileCache::Entry entry;
  entry.pattern = candidate.pattern;
  entry.effective = compiled_.tally.effective - candidate.tally.effective;
  entry.aliases = compiled_.tally.aliases - candidate.tally.aliases;
  draft_.kept_domains[candidate.pattern] = options_.cache->Keep(candidate.text, std::move(entry));
}

void Compiler::HideSecret(Location* where) {
  const std::string& line = where->line_text;
  const size_t from = std::min(line.find_first_not_of(" \t"), line.size());
  const size_t end = std::min(line.find_first_of(" \t=:", from), line.size());
  if (!MayBeSecret(absl::AsciiStrToLower(line.substr(from, end - from)))) return;
  where->line_text = absl::StrCat(line.substr(0, end), " (secret)");
}

// https://user:password@host: no URL here may have one, and somebody may try.
void Compiler::HideUserInfo(std::string* text) {
  const size_t scheme = text->find("://");
  if (scheme == text->npos) return;
  const size_t end = text->find_first_of("/ \t\"", scheme + 3);
  const size_t at = text->substr(0, end).rfind('@');
  if (at != text->npos && at > scheme) text->replace(scheme + 3, at - scheme - 3, "(secret)");
}

void Compiler::Say(Severity severity, const Location& where, std::string message,
                   std::string hint) {
  ++said_;
  if (severity == Severity::kWarning) {
    if (warnings_ == kMaxDiagnostics) {
      ++dropped_warnings_;
      return;
    }
    ++warnings_;
  }
  compiled_.diagnostics.push_back({severity, where, std::move(message), std::move(hint)});
  HideUserInfo(&compiled_.diagnostics.back().where.line_text);
  HideUserInfo(&compiled_.diagnostics.back().message);
}

bool Compiler::EnoughErrors() const {
  return compiled_.diagnostics.size() - warnings_ > kMaxDiagnostics;
}

bool Compiler::TakeMacroDomains(size_t count, const Location& where) {
  const bool was_over = macro_domains_ > kMaxMacroWork;
  macro_domains_ += count;
  if (macro_domains_ <= kMaxMacroWork) return true;
  if (!was_over) Say(Severity::kError, where, "the macros stand for more than 5,000,000 domains");
  return false;
}

void Compiler::LeaveUnclosed() {
  Say(Severity::kError, frames_.back().where,
      absl::StrCat("<", frames_.back().name, "> is not closed"));
  frames_.pop_back();
}

bool Compiler::ExpandMacros(Statement* statement) {
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
      if (!TakeMacroDomains(macro->second.size(), statement->At(token))) return false;
      absl::StrAppend(&text, text.empty() ? "" : ",", absl::StrJoin(macro->second, ","));
    }
    token.text = std::move(text);
  }
  return true;
}

void Compiler::DefineMacro(const Statement& statement) {
  if (const std::string& name = statement.arguments[0].text; !IsSectionName(name)) {
    return BadName(name, statement.At(statement.arguments[0]));
  }
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
        if (!TakeMacroDomains(macro->second.size(), where)) return;
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
  const bool fresh =
      draft_.macros
          .insert_or_assign(absl::AsciiStrToLower(statement.arguments[0].text), std::move(domains))
          .second;
  if (fresh) return;
  Say(Severity::kWarning, statement.At(statement.arguments[0]),
      absl::StrCat("domain-macro ", statement.arguments[0].text,
                   " is written again: from here on only these are its domains"));
}

void Compiler::Include(const Statement& statement) {
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
  if (too_many_files_) return;
  const auto found = files_.Glob(path.string(), &entries_left_);
  if (!found.ok()) {
    return TooManyFiles(
        where, absl::StrCat("\"", path.string(), "\": ", std::string(found.status().message())));
  }
  if (found->empty()) {
    return Say(Severity::kWarning, where, absl::StrCat("no file matches \"", path.string(), "\""));
  }
  for (const std::string& file : *found) {
    if (compiled_.diagnostics.size() > kMaxDiagnostics) return;
    ReadFile(file, &statement.where, column);
  }
}

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
