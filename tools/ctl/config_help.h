// What `sluicectl config ... --help` says below the options: examples, exit codes, what is printed.
#pragma once

namespace sluice::ctl {

inline constexpr char kConfigHelp[] =
    "A configuration is one or more directive files; `include` in them reads others. All commands\n"
    "but those that say so work on files of this machine and ask no server, so they serve in CI.\n"
    "-o json prints for scripts: where the files do not load, {\"loads\": false, \"diagnostics\": "
    "[...]}.\n"
    "services/config/README.md tells the language, services/config/REFERENCE.md every directive.";

inline constexpr char kCheckHelp[] =
    "Tells each line that has no effect or that is likely not meant, by file:line:column, and "
    "sums\n"
    "up the lines by status: effective, effective by another name, planned, without a meaning "
    "here,\n"
    "unsupported. What restricts and is planned does not load, since going on without it would "
    "not\n"
    "be safe; --accept-unsupported NAME goes without it.\n"
    "\n"
    "Exit codes: 0 every line is effective and nothing is doubtful; 1 it loads, with warnings; 2 "
    "it\n"
    "would not load. With --strict 2 in place of 1. With --live also 3: no answer from the "
    "server.\n"
    "\n"
    "Examples:\n"
    "  sluicectl config check /etc/sluice/sluice.conf\n"
    "  sluicectl config check --strict relay.conf            # in CI\n"
    "  sluicectl config check --accept-unsupported schedule,limits /etc/pmta/config\n"
    "  sluicectl config check -o json a.conf | jq '.diagnostics[] | select(.severity==\"error\")'\n"
    "  sluicectl config check                                # what the policy service would load";

inline constexpr char kExplainHelp[] =
    "One line a setting: directive, value, file:line and section that say it. Defaults only with\n"
    "--all. Nothing but --config asks for what stands outside of sections. Secrets are not shown.\n"
    "\n"
    "Exit codes: 0 answered, 1 the files do not load, 2 wrong arguments, 4 no such virtual MTA or\n"
    "pool.\n"
    "\n"
    "Examples:\n"
    "  sluicectl config explain gmail.com --vmta marketing --config relay.conf\n"
    "  sluicectl config explain gmail.com --vmta m1 --pool marketing --all --config relay.conf\n"
    "  sluicectl config explain --source 192.0.2.1 --config relay.conf\n"
    "  sluicectl config explain --client 10.1.2.3 --config relay.conf\n"
    "  sluicectl config explain gmail.com --vmta m1 --running   # what the server has in force";

inline constexpr char kDirectivesHelp[] =
    "One line a name: name, value, status and meaning, separated by tabs.\n"
    "\n"
    "Exit codes: 0 some found, 4 none.\n"
    "\n"
    "Examples:\n"
    "  sluicectl config directives backoff\n"
    "  sluicectl config directives --section domain max-\n"
    "  sluicectl config directives -o json | jq '.[] | select(.status==\"planned\") | .name'";

inline constexpr char kShowHelp[] =
    "Includes and macros are resolved, old names replaced by the first ones, and repeated "
    "sections\n"
    "made one; what it prints compiles to the same. Secrets are shown as (secret).\n"
    "\n"
    "Exit codes: 0 shown, 1 the files do not load.";

inline constexpr char kDiffHelp[] =
    "For each queue pattern, virtual MTA, pool, source, client network and listener whose "
    "settings\n"
    "in force differ: the value before and after, and the line that says so. What is the same in\n"
    "effect is not told, however different the texts are.\n"
    "\n"
    "Exit codes: 0 compared, also where something changes; 1 one of the files does not load.\n"
    "\n"
    "Example:\n"
    "  git show HEAD~1:relay.conf > old.conf; sluicectl config diff old.conf relay.conf";

inline constexpr char kTestHelp[] =
    "One assertion a line; # begins a comment. Files that it names are relative to it.\n"
    "  config relay.conf                             the files under test (or --config)\n"
    "  accept-unsupported schedule\n"
    "  loads                                         or: refused\n"
    "  queue gmail.com/marketing: max-smtp-out == 20\n"
    "  queue gmail.com/m1: max-msg-rate <= 5000/h    a pool: each of its virtual MTAs\n"
    "  client 10.0.0.1: require-auth == yes\n"
    "  source 192.0.2.1: max-msg-rate <= 100/h\n"
    "  vmta m1: max-smtp-out >= 5\n"
    "  pool marketing: max-smtp-out <= 200\n"
    "  global: host-name == mx.example.com\n"
    "Operators: == != < <= > >=; values as in a directive file.\n"
    "\n"
    "Exit codes: 0 all hold, 1 one does not, 2 the file cannot be read.";

inline constexpr char kMigrateHelp[] =
    "Old names become the first ones, lines are indented, what has no effect here becomes a "
    "comment\n"
    "with its reason, what is planned gets a remark. The result is compiled and compared with the\n"
    "original: exit code 0 says that both mean the same. --out writes the files with the access\n"
    "rights of the originals, and migration-report.txt; files outside of the folder stay as they\n"
    "are. Keys and user files are not copied.\n"
    "\n"
    "Exit codes: 0 the same in effect, 1 the original does not load, 2 wrong arguments.\n"
    "\n"
    "Example:\n"
    "  sluicectl config migrate /etc/pmta --out /etc/sluice && sluicectl config check "
    "/etc/sluice/config";

}  // namespace sluice::ctl
