#include "tools/ctl/app.h"

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <sstream>

#include "CLI/CLI.hpp"
#include "services/base/version.h"
#include "tools/ctl/client.h"
#include "tools/ctl/commands.h"
#include "tools/ctl/completion.h"
#include "tools/ctl/config_commands.h"
#include "tools/ctl/config_help.h"
#include "tools/ctl/inject.h"
#include "tools/ctl/text.h"
#include "tools/ctl/token.h"

namespace sluice::ctl {
namespace {

constexpr char kFooter[] =
    "Exit codes: 0 done, 1 refused by the server, 2 wrong arguments, 3 no answer from the server,\n"
    "4 not found, 5 done in part (a shard or worker did not answer, or some messages refused).";

// The options of all commands, in one place that outlives parsing.
struct Arguments {
  ClientOptions client;
  std::string output = "table";
  InjectOptions inject;
  QueueListOptions queues;
  TopOptions top;
  FilterOptions filter;
  ChangeOptions change;
  PauseOptions pause;
  QueueModeOptions mode;
  std::string top_interval = "2s", inject_retry, inject_delay, inject_within, queue_name,
              message_id, retry_pattern = "*/*";
  ConfigOptions config;
  TokenOptions token;
  bool on_server = false, live = false, running = false;
  uint64_t list_limit = 100;
  uint32_t events_limit = 1000;
  uint32_t wait_ms = 5000;
  bool body = false, retry_recipients = false;
};

using Action = std::function<int(Context&)>;

// Defines the commands; the one that was given leaves its action in `action`.
class Commands {
 public:
  Commands(CLI::App& app, Arguments& args, Action& action)
      : app_(app), args_(args), action_(action) {}

  void Define() {
    Global();
    Inject();
    Queues();
    Config();
    Pauses();
    Owners();
    Connections();
    Clock();
    Messages();
    Tokens();
  }

 private:
  CLI::App* Command(CLI::App& parent, const char* name, const char* help, Action action) {
    CLI::App* command = parent.add_subcommand(name, help);
    command->final_callback([this, action = std::move(action)] {
      if (!action_) action_ = action;
    });
    return command;
  }

  void Global() {
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.footer(kFooter);
    app_.add_option("--server", args_.client.server, "HOST:PORT of the admin API")
        ->envname("SLUICE_SERVER")
        ->capture_default_str();
    app_.add_option("-o,--output", args_.output, "table, or json for scripts")
        ->check(CLI::IsMember({"table", "json"}))
        ->capture_default_str();
    app_.add_option("--timeout", args_.client.timeout_ms, "milliseconds for each answer")
        ->check(CLI::Range(1, 3'600'000))
        ->capture_default_str();
    app_.add_option("--tls-ca", args_.client.tls_ca, "PEM file: speak TLS, trust this authority")
        ->envname("SLUICE_TLS_CA");
    app_.add_option("--tls-cert", args_.client.tls_cert, "PEM file: own certificate (mTLS)")
        ->envname("SLUICE_TLS_CERT");
    app_.add_option("--tls-key", args_.client.tls_key, "PEM file: key of the own certificate")
        ->envname("SLUICE_TLS_KEY");
    app_.add_option("--token-file", args_.client.token_file,
                    "file with the token of the admin API, as `sluicectl token` writes it")
        ->envname("SLUICE_TOKEN_FILE");
    Command(app_, "status", "The whole cluster at a glance",
            [](Context& c) { return ctl::Status(c); });
    Command(app_, "completion", "Completion for bash: source <(sluicectl completion)",
            [](Context& c) {
              c.env.out << CompletionScript();
              return static_cast<int>(kExitOk);
            });
    CLI::App* top = Command(app_, "top", "Rates and the largest queues, again and again",
                            [this](Context& c) { return Top(c, args_.top); });
    top->add_flag("--once", args_.top.once, "one screen, then stop");
    top->add_option("--interval", args_.top_interval, "time between screens")
        ->capture_default_str();
    top->add_option("--limit", args_.top.limit, "queues shown")
        ->check(CLI::Range(1, 10'000))
        ->capture_default_str();
    CLI::App* events =
        Command(app_, "events", "What happened to a message, in order of time",
                [this](Context& c) { return ListEvents(c, args_.message_id, args_.events_limit); });
    events->add_option("--message", args_.message_id, "the message's id")->required();
    events->add_option("--limit", args_.events_limit, "events at most")->capture_default_str();
  }

  void Tokens() {
    TokenOptions& o = args_.token;
    CLI::App* c = Command(app_, "token",
                          "Make a token of the admin API, and print its line for --admin-tokens of "
                          "the policy service",
                          [&o](Context& context) { return MakeToken(o, context.env); });
    c->add_option("name", o.name, "who it is for; the log calls them so")->required();
    c->add_option("--role", o.role, "monitor sees, operator changes mail, admin reloads too")
        ->check(CLI::IsMember({"monitor", "operator", "admin"}))
        ->capture_default_str();
    c->add_option("--to", o.to, "file for the token; must not be there yet")->required();
  }

  void Inject() {
    InjectOptions& o = args_.inject;
    CLI::App* c =
        Command(app_, "inject", "Send messages in by gRPC: files, standard input (-), or made up",
                [this](Context& context) {
                  args_.inject.json = context.json;
                  return ctl::Inject(context.client, args_.inject, context.env);
                });
    c->add_option("file", o.files, "message files (RFC 5322); - is standard input; none: made up");
    c->add_option("--from", o.from, "envelope sender; <> is the null sender; %n: message's number")
        ->required();
    c->add_option("--to", o.to, "envelope recipient, repeatable; %n: the message's number")
        ->required()
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    c->add_option("--count", o.count, "messages to make up, or copies of each file")
        ->check(CLI::Range(uint64_t{1}, uint64_t{100'000'000}))
        ->capture_default_str();
    c->add_option("--size", o.size_bytes, "bytes of a message made up")
        ->check(CLI::Range(size_t{0}, size_t{64} << 20))
        ->capture_default_str();
    c->add_option("--vmta", o.vmta, "virtual MTA or pool");
    c->add_option("--job", o.job, "job id");
    c->add_option("--envid", o.envid, "envelope id");
    c->add_option("--tenant", o.tenant, "whose mail it is, for records and events");
    c->add_option("--delay", args_.inject_delay, "nothing leaves before that time from now");
    c->add_option("--deliver-within", args_.inject_within,
                  "what is not delivered within that time from now bounces, such as 2h");
    c->add_option("--priority", o.priority, "1 to 100; 0: not given")->check(CLI::Range(0, 100));
    c->add_option("--metadata", o.metadata, "key=value, repeatable")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    c->add_option("--notify", o.notify, "never, success, failure, delay; separated by commas")
        ->delimiter(',')
        ->check(CLI::IsMember({"never", "success", "failure", "delay"}));
    c->add_option("--ret", o.ret, "what a bounce returns: full or hdrs")
        ->check(CLI::IsMember({"full", "hdrs"}));
    c->add_option("--traceparent", o.traceparent, "W3C trace context");
    c->add_option("--idempotency-key", o.idempotency_key,
                  "a repeated key is taken once; %n: the message's number");
    c->add_option("--retry", args_.inject_retry,
                  "repeat what is refused for now, or unanswered, this long (such as 30s)");
    c->add_flag("--unary", o.unary, "one call a message, not a stream");
    c->add_option("--window", o.window, "messages on the stream without an answer")
        ->check(CLI::Range(uint64_t{1}, uint64_t{100'000}))
        ->capture_default_str();
    c->add_flag("--ids", o.ids, "print the id of each message taken");
    c->add_option("--ingest", args_.client.ingest, "HOST:PORT of ingest (default: --server)")
        ->envname("SLUICE_INGEST");
  }

  void Queues() {
    CLI::App* queues = app_.add_subcommand("queues", "Queues with mail; alone: `queues list`");
    queues->require_subcommand(0, 1);
    queues->final_callback([this, queues] {
      if (!queues->get_subcommands().empty() || action_) return;
      action_ = [this](Context& c) { return ListQueues(c, args_.queues); };
    });
    CLI::App* list = Command(*queues, "list", "All, or those that match a pattern",
                             [this](Context& c) { return ListQueues(c, args_.queues); });
    list->add_option("pattern", args_.queues.pattern, "DOMAIN/VMTA with * and ?");
    list->add_option("--limit", args_.queues.limit, "queues at most")
        ->check(CLI::Range(1, 10'000))
        ->capture_default_str();
    list->add_option("--after", args_.queues.after, "go on after this name (with --sort name)");
    list->add_option("--sort", args_.queues.sort, "rcpt: largest first; name")
        ->check(CLI::IsMember({"rcpt", "name"}))
        ->capture_default_str();
    list->add_option("--mode", args_.queues.mode, "only those in this mode")
        ->check(CLI::IsMember({"normal", "retry", "backoff"}));
    list->add_flag("--paused", args_.queues.paused_only, "only paused ones");
    CLI::App* show = Command(*queues, "show", "One queue: mode, reason, next time, last replies",
                             [this](Context& c) { return ShowQueue(c, args_.queue_name); });
    show->add_option("name", args_.queue_name, "DOMAIN/VMTA")->required();
    CLI::App* retry = Command(
        *queues, "retry", "End retry mode of matching queues",
        [this](Context& c) { return RetryQueues(c, args_.retry_pattern, args_.retry_recipients); });
    retry->add_option("pattern", args_.retry_pattern, "DOMAIN/VMTA with * and ?")->required();
    retry->add_flag("--recipients", args_.retry_recipients, "deferred recipients are due now too");
    QueueModes(*queues);
  }

  void QueueModes(CLI::App& queues) {
    QueueModeOptions& o = args_.mode;
    const auto common = [&o](CLI::App& c) {
      c.add_option("pattern", o.patterns,
                   "queues: DOMAIN/VMTA, repeatable; with * and ? those that there are, without "
                   "them also one that has no mail now")
          ->required();
      c.add_option("--reason", o.reason, "shown to whoever asks why");
      c.add_option("--author", o.author, "who did it (default: you)");
    };
    CLI::App* backoff =
        Command(queues, "backoff", "Put queues into backoff mode until `queues normal`, or --for",
                [this](Context& c) { return SetQueueMode(c, true, args_.mode); });
    common(*backoff);
    backoff->add_option("--for", o.span, "normal again by itself after this time, such as 2h");
    common(*Command(queues, "normal", "End backoff mode of queues, whoever began it",
                    [this](Context& c) { return SetQueueMode(c, false, args_.mode); }));
    CLI::App* disable = Command(queues, "disable-source", "Do without a source address for queues",
                                [this](Context& c) { return SetQueueSource(c, true, args_.mode); });
    common(*disable);
    disable->add_option("--for", o.span, "used again by itself after this time, such as 2h");
    CLI::App* enable =
        Command(queues, "enable-source", "Use a disabled source address again, whoever disabled it",
                [this](Context& c) { return SetQueueSource(c, false, args_.mode); });
    common(*enable);
    for (CLI::App* c : {disable, enable}) {
      c->add_option("--source", o.source, "the source's IP address")->required();
    }
  }

  void Config() {
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
    CLI::App* explain =
        Command(*config, "explain", "What holds for a queue, and the line that says so",
                [this](Context& c) {
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
    CLI::App* show = Command(*config, "show", "All that the files say, tidied", [this](Context& c) {
      return ShowConfig(c.env, args_.config, c.json);
    });
    show->add_option("file", o.files, "files")->required();
    Accept(*show);
    show->footer(kShowHelp);
    CLI::App* diff = Command(*config, "diff", "What a new file changes in effect, queue by queue",
                             [this](Context& c) { return DiffFiles(c.env, args_.config, c.json); });
    diff->add_option("old", o.old_file, "file before")->required();
    diff->add_option("new", o.new_file, "file after")->required();
    Accept(*diff);
    diff->footer(kDiffHelp);
    CLI::App* test = Command(*config, "test", "Run the assertions of a file", [this](Context& c) {
      return TestConfig(c.env, args_.config, c.json);
    });
    test->add_option("file", o.test_file, "assertions, one a line")->required();
    Files(*test);
    test->footer(kTestHelp);
    CLI::App* migrate =
        Command(*config, "migrate", "Rewrite a PowerMTA configuration in this system's names",
                [this](Context& c) { return MigrateConfig(c.env, args_.config, c.json); });
    migrate->add_option("folder", o.folder, "such as /etc/pmta, or its main file")->required();
    migrate->add_option("--out", o.out_folder, "folder for the result; none: only the report");
    migrate->footer(kMigrateHelp);
    CLI::App* reload =
        Command(app_, "reload", "Read the configuration again, wait for every service",
                [this](Context& c) { return Reload(c, args_.wait_ms); });
    reload->add_option("--wait", args_.wait_ms, "milliseconds to wait for all services")
        ->capture_default_str();
  }

  void Files(CLI::App& c) {
    c.add_option("--config", args_.config.files, "directive file, repeatable")
        ->envname("SLUICE_CONFIG")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
    Accept(c);
  }

  void Accept(CLI::App& c) {
    c.add_option("--accept-unsupported", args_.config.accept_unsupported,
                 "directive or section that restricts and may be gone without; separated by commas")
        ->delimiter(',')
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->allow_extra_args(false);
  }

  void Pauses() {
    PauseOptions& o = args_.pause;
    CLI::App* pause = Command(app_, "pause", "Stop delivery of queues or jobs until resumed",
                              [this](Context& c) { return Pause(c, args_.pause); });
    pause->add_option("pattern", o.pattern, "queues: DOMAIN/VMTA with * and ?");
    pause->add_option("--job", o.job, "only this job");
    pause->add_option("--reason", o.reason, "shown to whoever asks why");
    pause->add_option("--author", o.author, "who did it (default: you)");
    pause->add_option("--for", o.span, "lifts itself after this time, such as 2h");
    CLI::App* resume = Command(app_, "resume", "Lift a pause",
                               [this](Context& c) { return Resume(c, args_.pause); });
    resume->add_option("pattern", o.pattern, "exactly as paused");
    resume->add_option("--job", o.job, "pauses of this job");
    resume->add_option("--id", o.id, "the pause's id");
    Command(app_, "pauses", "What is paused, by whom and why",
            [](Context& c) { return ListPauses(c); });
  }

  void Owners() {
    Command(app_, "owners", "Which worker sends from which source address, and what changes hands",
            [](Context& c) { return ListOwners(c); });
  }

  void Connections() {
    CLI::App* connections =
        Command(app_, "connections", "Outbound connections of the workers",
                [this](Context& c) { return ListConnections(c, args_.queues.pattern); });
    connections->add_option("pattern", args_.queues.pattern, "of queues: DOMAIN/VMTA with * and ?");
  }

  void Clock() {
    CLI::App* clock = app_.add_subcommand("clock", "Wall clocks of the shards");
    clock->require_subcommand(1);
    Command(*clock, "show", "Each shard's clock, and whether mail does not expire because of it",
            [](Context& c) { return ShowClock(c); });
    CLI::App* confirm = Command(
        *clock, "confirm",
        "The clocks are right: mail expires again at once in shards that saw a clock being set",
        [this](Context& c) { return ConfirmClock(c, args_.change.author); });
    confirm->add_option("--author", args_.change.author, "who says so (default: you)");
  }

  void Filter(CLI::App& c) {
    FilterOptions& o = args_.filter;
    c.add_option("--id", o.id, "message id");
    c.add_option("--queue", o.queue, "DOMAIN/VMTA with * and ?");
    c.add_option("--sender", o.sender, "envelope sender");
    c.add_option("--rcpt", o.rcpt, "recipient");
    c.add_option("--job", o.job, "job id");
    c.add_option("--envid", o.envid, "envelope id");
    c.add_option("--vmta", o.vmta, "virtual MTA");
    c.add_option("--older-than", o.older_than, "queued longer than this, such as 4h");
    c.add_flag("--held", o.held, "only held ones");
  }

  void Change(CLI::App& c) {
    Filter(c);
    c.add_flag("--all", args_.filter.all, "every queued recipient");
    c.add_option("--author", args_.change.author, "who did it (default: you)");
    c.add_option("--reason", args_.change.reason, "kept with the events");
    c.add_option("--limit", args_.change.limit, "recipients at most");
  }

  void Messages() {
    CLI::App* messages = app_.add_subcommand("messages", "Queued messages, by recipient");
    messages->require_subcommand(1);
    CLI::App* list =
        Command(*messages, "list", "Queued recipients; all given filters must match",
                [this](Context& c) { return ListMessages(c, args_.filter, args_.list_limit); });
    Filter(*list);
    list->add_option("--limit", args_.list_limit, "recipients at most")
        ->check(CLI::Range(uint64_t{1}, uint64_t{1'000'000}))
        ->capture_default_str();
    CLI::App* show =
        Command(*messages, "show", "One message with its recipients",
                [this](Context& c) { return ShowMessage(c, args_.message_id, args_.body); });
    show->add_option("id", args_.message_id, "message id")->required();
    show->add_flag("--body", args_.body, "with its text (the first 1 MiB)");
    CLI::App* remove =
        Command(*messages, "delete", "Remove matching recipients from the queues",
                [this](Context& c) { return DeleteMessages(c, args_.filter, args_.change); });
    Change(*remove);
    remove->add_flag("--bounce", args_.change.bounce, "tell the senders, as for a failure");
    CLI::App* reroute =
        Command(*messages, "reroute", "Move matching recipients to another virtual MTA",
                [this](Context& c) { return RerouteMessages(c, args_.filter, args_.change); });
    Change(*reroute);
    reroute->add_option("--target", args_.change.target, "virtual MTA or pool")->required();
    CLI::App* release = Command(*messages, "release", "Lift holds", [this](Context& c) {
      return ReleaseMessages(c, args_.filter, args_.change);
    });
    Change(*release);
  }

  CLI::App& app_;
  Arguments& args_;
  Action& action_;
};

bool Span(const char* option, const std::string& text, int64_t& span_us, Environment& env) {
  if (text.empty()) return true;
  const auto parsed = ParseSpanUs(text);
  if (!parsed.has_value()) {
    env.err << "sluicectl: " << option << " " << PrintableText(text)
            << ": give a time such as 500ms, 2s or 1m\n";
    return false;
  }
  span_us = *parsed;
  return true;
}

}  // namespace

int Run(const std::vector<std::string>& arguments, Environment& env) {
  CLI::App app("Talks to a Sluice cluster: puts mail in, shows and changes what it holds.",
               "sluicectl");
  app.set_version_flag("--version", VersionText(), "print version, build and formats, and exit");
  Arguments args;
  Action action;
  Commands commands(app, args, action);  // the commands' actions refer to it
  commands.Define();
  if (!arguments.empty() && arguments[0] == "__complete") {
    for (const std::string& word : Complete(app, {arguments.begin() + 1, arguments.end()})) {
      env.out << word << "\n";
    }
    return kExitOk;
  }
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    std::ostringstream text;
    const int code = app.exit(error, text, text);
    // Arguments may come from a script's input: nothing of them may drive the terminal.
    std::istringstream lines(text.str());
    std::ostream& to = code == 0 ? env.out : env.err;
    for (std::string line; std::getline(lines, line);) to << PrintableText(line) << "\n";
    return code == 0 ? kExitOk : kExitUsage;
  }
  if (!Span("--interval", args.top_interval, args.top.interval_us, env) ||
      !Span("--retry", args.inject_retry, args.inject.retry_us, env) ||
      !Span("--delay", args.inject_delay, args.inject.delay_us, env) ||
      !Span("--deliver-within", args.inject_within, args.inject.deliver_within_us, env)) {
    return kExitUsage;
  }
  std::string error;
  const std::unique_ptr<Client> client = Client::Create(args.client, error);
  if (client == nullptr) {
    env.err << "sluicectl: " << error << "\n";
    return kExitUsage;
  }
  Context context{*client, env, args.output == "json"};
  return action(context);
}

}  // namespace sluice::ctl
