#include "tools/ctl/config_commands.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string_view>

#include "nlohmann/json.hpp"
#include "services/config/assertions.h"
#include "services/config/compiler.h"
#include "services/config/config_diff.h"
#include "services/config/explain.h"
#include "services/config/migrate.h"
#include "services/config/printer.h"
#include "services/config/registry.h"
#include "services/config/semantic_checks.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using Json = nlohmann::ordered_json;

// Of a migration, beside its files.
constexpr char kReportFile[] = "migration-report.txt";

// Files may hold anything, and a name in them could drive the terminal.
void Print(std::ostream& out, const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) out << PrintableText(line) << "\n";
}

void Print(std::ostream& out, const Json& json) {
  out << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
}

int Usage(Environment& env, std::string_view what) {
  env.err << "sluicectl: " << what << "\n";
  return kExitUsage;
}

config::Compiled CompileFiles(const std::vector<std::string>& files, const ConfigOptions& options) {
  config::DiskFiles disk;
  config::CompileOptions compile;
  compile.accept_unsupported = {options.accept_unsupported.begin(),
                                options.accept_unsupported.end()};
  compile.keep_origins = true;
  return config::Compile(files, disk, compile);
}

Json DiagnosticJson(const config::Diagnostic& diagnostic) {
  Json json;
  json["severity"] =
      diagnostic.severity == config::Diagnostic::Severity::kError ? "error" : "warning";
  json["file"] = diagnostic.where.file == nullptr ? "" : *diagnostic.where.file;
  json["line"] = diagnostic.where.line;
  json["column"] = diagnostic.where.column;
  json["message"] = diagnostic.message;
  json["hint"] = diagnostic.hint;
  return json;
}

Json DiagnosticsJson(const std::vector<config::Diagnostic>& diagnostics) {
  Json rows = Json::array();
  for (const auto& diagnostic : diagnostics) rows.push_back(DiagnosticJson(diagnostic));
  return rows;
}

// False where the files cannot be used; the errors are told, to scripts as check tells them.
bool Loads(Environment& env, const config::Compiled& compiled, bool json) {
  if (compiled.ok()) return true;
  std::vector<config::Diagnostic> errors = compiled.diagnostics;
  std::erase_if(errors, [](const config::Diagnostic& diagnostic) {
    return diagnostic.severity != config::Diagnostic::Severity::kError;
  });
  if (json) {
    Print(env.out, {{"loads", false}, {"diagnostics", DiagnosticsJson(errors)}});
    return false;
  }
  Print(env.err, config::Render(errors));
  env.err << "sluicectl: the configuration does not load\n";
  return false;
}

Json TallyJson(const config::Tally& tally) {
  return {{"effective", tally.effective},
          {"alias", tally.aliases},
          {"planned", tally.planned},
          {"no_meaning", tally.no_meaning},
          {"unsupported", tally.unsupported}};
}

std::string TallyText(const config::Tally& tally) {
  std::ostringstream text;
  text << tally.effective << " lines effective, " << tally.aliases << " effective by another name, "
       << tally.planned << " planned, " << tally.no_meaning << " without a meaning here, "
       << tally.unsupported << " unsupported\n";
  return text.str();
}

Json SettingsJson(const std::vector<config::ExplainedSetting>& settings, bool all) {
  Json rows = Json::array();
  for (const config::ExplainedSetting& setting : settings) {
    if (setting.is_default && !all) continue;
    rows.push_back({{"directive", setting.directive},
                    {"value", setting.value},
                    {"section", setting.section},
                    {"where", setting.where},
                    {"default", setting.is_default}});
  }
  return rows;
}

// A new file with the access rights of the one that it stands for: it may hold the same secrets.
bool WriteLike(const std::filesystem::path& like, const std::filesystem::path& path,
               const std::string& text) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::ofstream out(path);
  if (!out) return false;
  const fs::perms rights = fs::status(like, error).permissions();
  if (!error) fs::permissions(path, rights & (fs::perms::all), error);
  return static_cast<bool>((out << text).flush());
}

// What the printer writes, one directive or section bound a line: {"section", "directives",
// "sections"}. Sections nest at most as deep as the language lets them.
Json SectionJson(const std::string& name, std::istringstream* lines) {
  Json directives = Json::array();
  Json sections = Json::array();
  for (std::string line; std::getline(*lines, line);) {
    line.erase(0, line.find_first_not_of(' '));
    if (line.empty()) continue;
    if (line.starts_with("</")) break;
    if (line.starts_with('<')) {
      sections.push_back(SectionJson(line, lines));
      continue;
    }
    const size_t space = line.find(' ');
    directives.push_back({{"name", line.substr(0, space)},
                          {"value", space == line.npos ? "" : line.substr(space + 1)}});
  }
  return {
      {"section", name}, {"directives", std::move(directives)}, {"sections", std::move(sections)}};
}

}  // namespace

int CheckFiles(Environment& env, const ConfigOptions& options, bool json,
               const std::optional<std::set<std::string>>& owned_ips) {
  config::Compiled compiled = CompileFiles(options.files, options);
  if (compiled.ok()) {
    config::DiskFiles disk;
    for (auto& warning : config::CheckSemantics(compiled, disk, owned_ips)) {
      compiled.diagnostics.push_back(std::move(warning));
    }
  }
  const bool warnings = !compiled.diagnostics.empty();
  const auto errors = std::count_if(
      compiled.diagnostics.begin(), compiled.diagnostics.end(), [](const auto& diagnostic) {
        return diagnostic.severity == config::Diagnostic::Severity::kError;
      });
  const auto doubts = static_cast<std::ptrdiff_t>(compiled.diagnostics.size()) - errors;
  if (json) {
    Print(env.out, {{"loads", compiled.ok()},
                    {"errors", errors},
                    {"warnings", doubts},
                    {"summary", TallyJson(compiled.tally)},
                    {"diagnostics", DiagnosticsJson(compiled.diagnostics)}});
  } else {
    Print(env.out,
          config::Render(compiled.diagnostics) + TallyText(compiled.tally) +
              std::to_string(errors) + " errors, " + std::to_string(doubts) + " warnings; " +
              (compiled.ok() ? "the configuration loads\n" : "the configuration does not load\n"));
  }
  if (!compiled.ok() || (options.strict && warnings)) return 2;
  return warnings ? 1 : 0;
}

int ExplainConfig(Environment& env, const ConfigOptions& options, bool json) {
  if (options.files.empty()) return Usage(env, "which files? Give them by --config");
  const config::Compiled compiled = CompileFiles(options.files, options);
  if (!Loads(env, compiled, json)) return kExitRefused;
  const auto answer = config::Explain(compiled, {options.domain, options.vmta, options.pool,
                                                 options.source, options.client, options.mx});
  if (!answer.ok()) {
    env.err << "sluicectl: " << PrintableText(std::string(answer.status().message())) << "\n";
    return absl::IsNotFound(answer.status()) ? kExitNotFound : kExitUsage;
  }
  PrintExplanation(env, *answer, options.all, json);
  return kExitOk;
}

void PrintExplanation(Environment& env, const config::Explanation& answer, bool all, bool json) {
  Json rows = Json::array();
  for (const auto& [subject, settings] : answer.subjects) {
    if (json) {
      rows.push_back({{"subject", subject}, {"settings", SettingsJson(settings, all)}});
    } else {
      Print(env.out, subject + "\n" + config::RenderExplained(settings, all));
    }
  }
  if (json) {
    if (!answer.notes.empty() && !rows.empty()) rows.front()["notes"] = answer.notes;
    return Print(env.out, rows);
  }
  for (const std::string& note : answer.notes) Print(env.out, note);
}

int ListDirectives(Environment& env, const ConfigOptions& options, bool json) {
  config::Scope scope = config::kGlobal;
  if (!options.section.empty() && options.section != "global") {
    const config::SectionKind* const kind = config::FindSection(options.section);
    if (kind == nullptr) {
      env.err << "sluicectl: there is no <" << PrintableText(options.section) << ">\n";
      return kExitNotFound;
    }
    scope = kind->scope;
  }
  std::map<std::string, const config::Directive*> found;
  for (const config::Directive& directive : config::AllDirectives()) {
    if (!options.section.empty() && (directive.scopes & scope) == 0) continue;
    std::vector<std::string_view> names = directive.aliases;
    names.push_back(directive.name);
    for (const std::string_view name : names) {
      if (name.starts_with(options.prefix)) found.emplace(std::string(name), &directive);
    }
  }
  Json rows = Json::array();
  for (const auto& [name, directive] : found) {
    const std::string status =
        name == directive->name || directive->status != config::Status::kActive
            ? std::string(config::StatusName(directive->status))
            : "alias of " + std::string(directive->name);
    const std::string syntax = config::SyntaxOf(*directive);
    if (json) {
      rows.push_back({{"name", name},
                      {"value", syntax},
                      {"default", config::DefaultOf(*directive)},
                      {"status", status},
                      {"help", std::string(directive->help)}});
    } else {
      env.out << name << "\t" << syntax << "\t" << status << "\t" << directive->help << "\n";
    }
  }
  if (json) Print(env.out, rows);
  return found.empty() ? kExitNotFound : kExitOk;
}

int ShowConfig(Environment& env, const ConfigOptions& options, bool json) {
  const config::Compiled compiled = CompileFiles(options.files, options);
  if (!Loads(env, compiled, json)) return kExitRefused;
  const std::string text = config::PrintSnapshot(compiled.snapshot);
  if (json) {
    std::istringstream lines(text);
    Print(env.out, SectionJson("", &lines));
  } else {
    Print(env.out, text);
  }
  return kExitOk;
}

int DiffFiles(Environment& env, const ConfigOptions& options, bool json) {
  const config::Compiled before = CompileFiles({options.old_file}, options);
  if (!Loads(env, before, json)) return kExitRefused;
  const config::Compiled after = CompileFiles({options.new_file}, options);
  if (!Loads(env, after, json)) return kExitRefused;
  const auto changes = config::DiffConfigs(before, after);
  if (!changes.ok()) return Usage(env, std::string(changes.status().message()));
  if (!json) {
    Print(env.out, config::RenderChanges(*changes));
    return kExitOk;
  }
  Json rows = Json::array();
  for (const config::ConfigChange& change : *changes) {
    Json settings = Json::array();
    for (const config::ChangedSetting& setting : change.settings) {
      settings.push_back({{"directive", setting.directive},
                          {"before", setting.before},
                          {"after", setting.after},
                          {"where_before", setting.where_before},
                          {"where_after", setting.where_after},
                          {"needs_restart", setting.needs_restart}});
    }
    rows.push_back({{"subject", change.subject}, {"settings", std::move(settings)}});
  }
  Print(env.out, rows);
  return kExitOk;
}

int TestConfig(Environment& env, const ConfigOptions& options, bool json) {
  config::DiskFiles disk;
  const auto text = disk.Read(options.test_file);
  if (!text.ok()) {
    return Usage(env,
                 PrintableText(options.test_file) + ": " + std::string(text.status().message()));
  }
  const auto result =
      config::RunAssertions(options.test_file, *text, options.files, disk,
                            {options.accept_unsupported.begin(), options.accept_unsupported.end()});
  if (json) {
    Json failures = Json::array();
    for (const auto& failure : result.failures) {
      failures.push_back({{"line", failure.line}, {"message", failure.message}});
    }
    Print(env.out, {{"passed", result.passed},
                    {"failures", std::move(failures)},
                    {"diagnostics", DiagnosticsJson(result.diagnostics)}});
    return result.ok() ? kExitOk : kExitRefused;
  }
  if (config::HasErrors(result.diagnostics)) Print(env.err, config::Render(result.diagnostics));
  for (const auto& failure : result.failures) {
    Print(env.out, options.test_file + ":" + std::to_string(failure.line) + ": " + failure.message);
  }
  env.out << result.passed << " passed, " << result.failures.size() << " failed\n";
  return result.ok() ? kExitOk : kExitRefused;
}

int MigrateConfig(Environment& env, const ConfigOptions& options, bool json) {
  namespace fs = std::filesystem;
  const fs::path folder(options.folder);
  std::error_code error;
  fs::path root = folder;
  if (fs::is_directory(folder, error)) {
    root = folder / "config";
    if (!fs::exists(root, error)) root = folder / "powermta.conf";
  }
  if (!fs::is_regular_file(root, error)) {
    return Usage(env, "there is neither " + PrintableText((folder / "config").string()) + " nor " +
                          PrintableText((folder / "powermta.conf").string()));
  }
  if (!options.out_folder.empty() &&
      fs::weakly_canonical(options.out_folder, error) ==
          fs::weakly_canonical(fs::absolute(root).parent_path(), error)) {
    return Usage(env, "--out must be another folder than that of the original");
  }
  config::DiskFiles disk;
  const config::Migration migration = config::Migrate(root.string(), disk);
  size_t written = 0;
  for (const config::MigratedFile& file : migration.files) {
    if (options.out_folder.empty()) break;
    fs::path relative = fs::path(file.path).lexically_relative(root.parent_path());
    // A file from elsewhere keeps its place, and its include line.
    if (relative.empty() || *relative.begin() == "..") continue;
    const fs::path path = fs::path(options.out_folder) / relative;
    if (!WriteLike(file.path, path, file.text)) {
      return Usage(env, "cannot write " + PrintableText(path.string()));
    }
    ++written;
  }
  if (!options.out_folder.empty()) {
    std::string report;
    for (const std::string& line : migration.report) report += PrintableText(line) + "\n";
    const fs::path path = fs::path(options.out_folder) / kReportFile;
    if (!WriteLike(root, path, report)) {
      return Usage(env, "cannot write " + PrintableText(path.string()));
    }
  }
  if (json) {
    Json files = Json::array();
    for (const auto& file : migration.files) files.push_back(file.path);
    Print(env.out, {{"equivalent", migration.equivalent},
                    {"files", std::move(files)},
                    {"written", written},
                    {"summary", TallyJson(migration.tally)},
                    {"report", migration.report}});
  } else {
    for (const std::string& line : migration.report) Print(env.out, line);
    Print(env.out, config::Render(migration.diagnostics) + TallyText(migration.tally));
    env.out << migration.files.size() << " files";
    if (options.out_folder.empty()) {
      env.out << ", nothing written (--out FOLDER writes them)";
    } else if (written < migration.files.size()) {
      env.out << ", " << written << " written: those from outside of the folder stay as they are";
    }
    env.out << (migration.equivalent ? "; the same in effect\n"
                                     : "; not compared, for the original does not load\n");
  }
  return migration.equivalent ? kExitOk : kExitRefused;
}

}  // namespace sluice::ctl
