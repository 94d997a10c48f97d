// Commands for configurations.
#include <optional>
#include <set>

#include "tools/ctl/command_line.h"
#include "tools/ctl/config_help.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {

void Commands::Config() {
  CLI::App* config = app_.add_subcommand("config", "Configuration files");
  config->require_subcommand(1);
  config->footer(kConfigHelp);
  ConfigOptions& o = args_.config;
  CLI::App* check = Command(
      *config, "check",
      "Compile files and change nothing: exit code 0 all effective, 1 warnings, 2 does not load",
      [this](Context& c) {
        if (args_.config.files.empty() || args_.on_server) {
          if (args_.live) {
            c.env.err
                << "sluicectl: config check: --live is for files of this machine: name them\n";
            return static_cast<int>(kExitUsage);
          }
          return CheckConfig(c, args_.config.files, args_.config.strict);
        }
        std::optional<std::set<std::string>> owned;
        if (args_.live && !OwnedAddresses(c, &owned.emplace())) {
          return static_cast<int>(kExitUnreachable);
        }
        return CheckFiles(c.env, args_.config, c.json, owned);
      });
  check->add_option("file", o.files, "files; none: those that the policy service has");
  check->add_flag("--strict", o.strict, "a warning is as bad as an error");
  check->add_flag("--on-server", args_.on_server, "the files are the policy service's");
  check->add_flag("--live", args_.live, "ask the server which source addresses workers have");
  Accept(*check);
  check->footer(kCheckHelp);
  CLI::App* explain = Command(
      *config, "explain", "What holds for a queue, and the line that says so", [this](Context& c) {
        return args_.running ? ExplainRunning(c, args_.config)
                             : ExplainConfig(c.env, args_.config, c.json);
      });
  explain->add_option("domain", o.domain, "the queue's domain");
  explain->add_option("--vmta", o.vmta, "the queue's virtual MTA, or a pool");
  explain->add_option("--pool", o.pool, "the pool that the mail was for");
  explain->add_option("--source", o.source, "an outbound address");
  explain->add_option("--mx", o.mx, "the domain's best MX host, for <mx-rollup-list>");
  explain->add_option("--client", o.client, "a client's address");
  explain->add_flag("--all", o.all, "defaults too");
  explain->add_flag("--running", args_.running, "what is in force on the server, not in files");
  Files(*explain);
  explain->footer(kExplainHelp);
  CLI::App* directives =
      Command(*config, "directives", "Every directive: value, status, meaning",
              [this](Context& c) { return ListDirectives(c.env, args_.config, c.json); });
  directives->add_option("prefix", o.prefix, "only names that begin so");
  directives->add_option("--section", o.section, "only those of <section>, or global");
  directives->footer(kDirectivesHelp);
  CLI::App* show = Command(*config, "show", "All that the files say, tidied",
                           [this](Context& c) { return ShowConfig(c.env, args_.config, c.json); });
  show->add_option("file", o.files, "files")->required();
  Accept(*show);
  show->footer(kShowHelp);
  CLI::App* diff = Command(*config, "diff", "What a new file changes in effect, queue by queue",
                           [this](Context& c) { return DiffFiles(c.env, args_.config, c.json); });
  diff->add_option("old", o.old_file, "file before")->required();
  diff->add_option("new", o.new_file, "file after")->required();
  Accept(*diff);
  diff->footer(kDiffHelp);
  CLI::App* test = Command(*config, "test", "Run the assertions of a file",
                           [this](Context& c) { return TestConfig(c.env, args_.config, c.json); });
  test->add_option("file", o.test_file, "assertions, one a line")->required();
  Files(*test);
  test->footer(kTestHelp);
  CLI::App* migrate =
      Command(*config, "migrate", "Rewrite a PowerMTA configuration in this system's names",
              [this](Context& c) { return MigrateConfig(c.env, args_.config, c.json); });
  migrate->add_option("folder", o.folder, "such as /etc/pmta, or its main file")->required();
  migrate->add_option("--out", o.out_folder, "folder for the result; none: only the report");
  migrate->footer(kMigrateHelp);
  CLI::App* reload = Command(app_, "reload", "Read the configuration again, wait for every service",
                             [this](Context& c) { return Reload(c, args_.wait_ms); });
  reload->add_option("--wait", args_.wait_ms, "milliseconds to wait for all services")
      ->capture_default_str();
}

void Commands::Files(CLI::App& c) {
  c.add_option("--config", args_.config.files, "directive file, repeatable")
      ->envname("SLUICE_CONFIG")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  Accept(c);
}

void Commands::Accept(CLI::App& c) {
  c.add_option("--accept-unsupported", args_.config.accept_unsupported,
               "directive or section that restricts and may be gone without; separated by commas")
      ->delimiter(',')
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

}  // namespace sluice::ctl
