// What sluicectl says of the cluster, its pauses, clocks, sources and tokens.
#include "tools/ctl/command_line.h"

#include "tools/ctl/completion.h"

namespace sluice::ctl {
namespace {

constexpr char kFooter[] =
    "Exit codes: 0 done, 1 refused by the server, 2 wrong arguments, 3 no answer from the server,\n"
    "4 not found, 5 done in part (a shard or worker did not answer, or some messages refused).";

}  // namespace

void Commands::Define() {
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

CLI::App* Commands::Command(CLI::App& parent, const char* name, const char* help, Action action) {
  CLI::App* command = parent.add_subcommand(name, help);
  command->final_callback([this, action = std::move(action)] {
    if (!action_) action_ = action;
  });
  return command;
}

void Commands::Global() {
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
  top->add_option("--interval", args_.top_interval, "time between screens")->capture_default_str();
  top->add_option("--limit", args_.top.limit, "queues shown")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  CLI::App* events =
      Command(app_, "events", "What happened to a message, in order of time",
              [this](Context& c) { return ListEvents(c, args_.message_id, args_.events_limit); });
  events->add_option("--message", args_.message_id, "the message's id")->required();
  events->add_option("--limit", args_.events_limit, "events at most")->capture_default_str();
}

void Commands::Tokens() {
  TokenOptions& o = args_.token;
  CLI::App* c = Command(app_, "token",
                        "Make a token of the admin API, and print its line for --admin-tokens of "
                        "the policy service",
                        [&o](Context& context) { return MakeToken(o, context.env, context.json); });
  c->add_option("name", o.name, "who it is for; the log calls them so")->required();
  c->add_option("--role", o.role, "monitor sees, operator changes mail, admin reloads too")
      ->check(CLI::IsMember({"monitor", "operator", "admin"}))
      ->capture_default_str();
  c->add_option("--to", o.to, "file for the token; must not be there yet")->required();
}

void Commands::Pauses() {
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

void Commands::Owners() {
  Command(app_, "owners", "Which worker sends from which source address, and what changes hands",
          [](Context& c) { return ListOwners(c); });
}

void Commands::Connections() {
  CLI::App* connections =
      Command(app_, "connections", "Outbound connections of the workers",
              [this](Context& c) { return ListConnections(c, args_.queues.pattern); });
  connections->add_option("pattern", args_.queues.pattern, "of queues: DOMAIN/VMTA with * and ?");
}

void Commands::Clock() {
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

}  // namespace sluice::ctl
