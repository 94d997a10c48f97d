// Commands for mail: putting it in, queues, messages.
#include "tools/ctl/command_line.h"

namespace sluice::ctl {

void Commands::Inject() {
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

void Commands::Queues() {
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

void Commands::QueueModes(CLI::App& queues) {
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

void Commands::Filter(CLI::App& c) {
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

void Commands::Change(CLI::App& c) {
  Filter(c);
  c.add_flag("--all", args_.filter.all, "every queued recipient");
  c.add_option("--author", args_.change.author, "who did it (default: you)");
  c.add_option("--reason", args_.change.reason, "kept with the events");
  c.add_option("--limit", args_.change.limit, "recipients at most");
}

void Commands::Messages() {
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

}  // namespace sluice::ctl
