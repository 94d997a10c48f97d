#include "services/config/migrate.h"

#include <filesystem>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"
#include "services/config/snapshot_hash.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxFiles = 10'000;

std::string_view Strip(std::string_view text) {
  const size_t from = text.find_first_not_of(" \t\r\f\v");
  if (from == text.npos) return {};
  return text.substr(from, text.find_last_not_of(" \t\r\f\v") - from + 1);
}

std::string Name(const Directive& directive) { return std::string(directive.name); }

// Why a line has no effect, or nothing.
std::string ReasonOf(const Directive& directive) {
  std::string_view reason = directive.reason;
  if (reason.empty() && directive.help.starts_with("Nothing: ")) {
    reason = directive.help.substr(9);
    if (reason.ends_with('.')) reason.remove_suffix(1);
  }
  return std::string(reason);
}

// The files of `original` with the migrated texts over them.
class Overlay final : public FileSource {
 public:
  Overlay(FileSource& original, const std::vector<MigratedFile>& files) : original_(original) {
    for (const MigratedFile& file : files) texts_[file.path] = &file.text;
  }
  absl::StatusOr<std::string> Read(const std::string& path) override {
    const auto found = texts_.find(std::filesystem::path(path).lexically_normal().string());
    return found == texts_.end() ? original_.Read(path) : *found->second;
  }
  absl::StatusOr<std::vector<std::string>> Glob(const std::string& pattern,
                                                size_t* entries) override {
    return original_.Glob(pattern, entries);
  }

 private:
  FileSource& original_;
  std::map<std::string, const std::string*> texts_;
};

class Migrator {
 public:
  explicit Migrator(FileSource& files) : files_(files) {}

  Migration Run(const std::string& root) {
    folder_ = std::filesystem::absolute(root).lexically_normal().parent_path();
    File(root, {kGlobal});
    CompileOptions options;
    for (const Directive& directive : AllDirectives()) {
      options.accept_unsupported.emplace(directive.name);
      for (const auto alias : directive.aliases) options.accept_unsupported.emplace(alias);
    }
    for (const SectionKind& kind : AllSections()) options.accept_unsupported.emplace(kind.name);
    const Compiled before = Compile({root}, files_, options);
    Overlay overlay(files_, migration_.files);
    const Compiled after = Compile({root}, overlay, options);
    migration_.equivalent =
        before.ok() && after.ok() && SectionsHash(before.snapshot) == SectionsHash(after.snapshot);
    const Compiled strict = Compile({root}, files_);
    migration_.diagnostics = strict.diagnostics;
    migration_.tally = strict.tally;
    return std::move(migration_);
  }

 private:
  void Report(const std::string& path, int line, const std::string& what) {
    migration_.report.push_back(absl::StrCat(path, ":", line, ": ", what));
  }

  void File(const std::string& path, std::vector<Scope> scopes) {
    const std::string normal = std::filesystem::path(path).lexically_normal().string();
    if (migration_.files.size() >= kMaxFiles || !seen_.insert(normal).second) return;
    const auto text = files_.Read(normal);
    if (!text.ok()) return;  // the compiler says so
    const size_t at = migration_.files.size();
    migration_.files.push_back({normal, ""});
    std::string rewritten = Rewrite(normal, *text, std::move(scopes));
    migration_.files[at].text = std::move(rewritten);
  }

  std::string Rewrite(const std::string& path, const std::string& text, std::vector<Scope> scopes) {
    std::vector<Diagnostic> ignored;
    std::map<int, const Statement*> by_line;
    const std::vector<Statement> statements = Lex(path, text, &TakesRegex, &ignored);
    for (const Statement& statement : statements) by_line[statement.where.line] = &statement;
    std::string out;
    std::string_view rest = text;
    if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
    bool commenting = false;  // the line before was commented out and goes on here
    const size_t base = scopes.size();
    for (int number = 1; !rest.empty(); ++number) {
      const size_t end = rest.find('\n');
      const std::string_view line = Strip(rest.substr(0, end));
      rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
      const auto found = by_line.find(number);
      if (found == by_line.end()) {
        // A comment, or more of the line above, which goes one step in.
        const size_t depth = scopes.size() - base + (line.starts_with('#') ? 0 : 1);
        Indented(&out, depth,
                 commenting && !line.empty() ? absl::StrCat("# ", std::string(line))
                                             : std::string(line));
        commenting = commenting && line.ends_with(',');
        continue;
      }
      commenting = Line(path, *found->second, line, base, &scopes, &out);
    }
    return out;
  }

  static void Indented(std::string* out, size_t depth, const std::string& line) {
    absl::StrAppend(out, line.empty() ? "" : std::string(2 * depth, ' '), line, "\n");
  }

  // True where the line was commented out and goes on in the next one.
  bool Line(const std::string& path, const Statement& statement, std::string_view line, size_t base,
            std::vector<Scope>* scopes, std::string* out) {
    const int number = statement.where.line;
    if (statement.kind == Statement::Kind::kClose) {
      if (scopes->size() > base) scopes->pop_back();
      Indented(out, scopes->size() - base, std::string(line));
      return false;
    }
    const size_t depth = scopes->size() - base;
    if (statement.kind == Statement::Kind::kOpen) {
      const SectionKind* const kind = FindSection(statement.name);
      if (kind != nullptr && kind->status != Status::kActive) {
        Indented(out, depth, "# planned: this section has no effect yet");
        Report(path, number, absl::StrCat("<", statement.name, "> is planned"));
      }
      Indented(out, depth, std::string(line));
      scopes->push_back(kind == nullptr ? scopes->back() : kind->scope);
      return false;
    }
    const Directive* const directive = FindDirective(scopes->back(), statement.name);
    if (directive == nullptr) {
      Indented(out, depth, std::string(line));
      Report(path, number, absl::StrCat("\"", statement.name, "\" is not known here"));
      return false;
    }
    std::string rewritten(line);
    if (directive->name == "include") {
      const std::string old = statement.arguments.empty() ? "" : statement.arguments[0].text;
      const std::string target = Inside(path, old);
      const size_t at = line.find(old, statement.name.size());
      if (target != old && at != line.npos) {
        rewritten.replace(at, old.size(), target);
        Report(path, number, absl::StrCat("include ", old, " is written ", target));
      }
      Include(path, target, *scopes);
    }
    line = rewritten;
    if (directive->status == Status::kNoEffect || directive->status == Status::kUnsupported) {
      const std::string status(StatusName(directive->status));
      Indented(out, depth, absl::StrCat("# ", status, ": ", ReasonOf(*directive)));
      Indented(out, depth, absl::StrCat("# ", std::string(line)));
      Report(path, number,
             absl::StrCat(statement.name, " left out, ", status, ": ", ReasonOf(*directive)));
      return line.ends_with(',');
    }
    if (directive->status != Status::kActive) {
      Indented(out, depth, "# planned: no effect yet");
      Report(path, number, absl::StrCat(statement.name, " is planned"));
    }
    OtherFile(path, *directive, statement);
    if (statement.name == "/" || statement.name == directive->name) {
      Indented(out, depth, std::string(line));
      return false;
    }
    Indented(out, depth,
             absl::StrCat(Name(*directive), std::string(line.substr(statement.name.size()))));
    Report(path, number, absl::StrCat(statement.name, " is written ", Name(*directive)));
    return false;
  }

  // Keys, users and patterns are not directive files, and are not rewritten.
  void OtherFile(const std::string& path, const Directive& directive, const Statement& statement) {
    const bool names_file = directive.grammar == Grammar::kFile ||
                            directive.grammar == Grammar::kTlsCertificate ||
                            directive.name == "auth-plain";
    if (!names_file || statement.arguments.empty()) return;
    const std::string& file = statement.arguments[0].text;
    if (file.empty() || file.starts_with('{')) return;
    if (file.starts_with('/')) {
      if (Inside(path, file) == file) return;
      return Report(path, statement.where.line,
                    absl::StrCat("the file \"", file, "\" stays where it is: not copied"));
    }
    Report(path, statement.where.line,
           absl::StrCat("the file \"", file, "\" is not copied: put it beside this one"));
  }

  // A whole path into the migrated folder becomes one from `path` on: else the new files would go
  // on reading the old ones.
  std::string Inside(const std::string& path, const std::string& target) const {
    if (!target.starts_with('/') || folder_ == folder_.root_path()) return target;
    const std::filesystem::path whole = std::filesystem::path(target).lexically_normal();
    const std::string within = whole.lexically_relative(folder_).string();
    if (within.empty() || within == "." || within == ".." || within.starts_with("../")) {
      return target;
    }
    const auto from = std::filesystem::absolute(path).lexically_normal().parent_path();
    return whole.lexically_relative(from).string();
  }

  void Include(const std::string& path, const std::string& text, const std::vector<Scope>& scopes) {
    if (text.empty()) return;
    std::filesystem::path target(text);
    if (target.is_relative()) target = std::filesystem::path(path).parent_path() / target;
    const bool folder = text.ends_with('/') || text.ends_with(".d");
    if (!folder && text.find_first_of("*?[") == std::string::npos) {
      return File(target.string(), {scopes.back()});
    }
    if (folder) target /= "*.conf";
    const auto found = files_.Glob(target.string(), &entries_left_);
    if (!found.ok()) return;  // the compiler says so
    for (const std::string& file : *found) File(file, {scopes.back()});
  }

  FileSource& files_;
  std::filesystem::path folder_;  // of the root, whole
  Migration migration_;
  std::set<std::string> seen_;
  size_t entries_left_ = kMaxFolderEntries;
};

}  // namespace

Migration Migrate(const std::string& root, FileSource& files) { return Migrator(files).Run(root); }

}  // namespace sluice::config
