// Delivery reports, where a queue's mail goes besides its own virtual MTA, and what is logged of a
// queue.
#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kEverywhere = kDomain | kVirtualMta | kGlobal;
constexpr auto kQueue = Target::kQueueSettings;

Directive Queue(std::string_view name, std::string_view field, Grammar grammar,
                std::string_view help, Status status = Status::kActive) {
  return {.name = name,
          .scopes = kEverywhere,
          .target = kQueue,
          .field = field,
          .grammar = grammar,
          .help = help,
          .status = status};
}

Directive Global(std::string_view name, std::string_view field, Grammar grammar,
                 std::string_view help, Status status = Status::kActive) {
  return {.name = name,
          .scopes = kGlobal,
          .target = Target::kGlobalSettings,
          .field = field,
          .grammar = grammar,
          .help = help,
          .status = status};
}

// A text whose variables the compiler looks at.
Directive Template(std::string_view name, std::string_view help) {
  return {.name = name, .scopes = kGlobal, .grammar = Grammar::kText, .help = help};
}

void AddDsn(std::vector<Directive>* all) {
  all->push_back(Queue("dsn-format", "dsn_format", Grammar::kChoice,
                       "Form of delivery reports: a report in three parts (RFC 3464), or one "
                       "text."));
  all->back().choices = "standard,plain-text";
  all->push_back(Template("custom-dsn-from-header",
                          "From field of delivery reports; ${host}, ${sender}, ${recipient}, "
                          "${status}, ${diagnostic}, ${remote}, ${envid}, ${subject} and "
                          "${postmaster} stand for what they say."));
  all->push_back(Template("dsn-failed-from-template",
                          "From field of failure reports, with the variables of "
                          "custom-dsn-from-header."));
  all->push_back(Template("dsn-failed-subject-template",
                          "Subject of failure reports, with the same variables."));
  all->push_back(Template("dsn-failed-body-template-from",
                          "File with the text of failure reports, with the same variables; at "
                          "most 32 KiB."));
  all->back().grammar = Grammar::kFile;
}

void AddRoutes(std::vector<Directive>* all) {
  all->push_back(Queue("reroute-to-virtual-mta", "reroute_to_virtual_mta", Grammar::kTargetName,
                       "Virtual MTA or pool that takes the queue's mail, what waits already "
                       "included; a recipient is moved by this once."));
  all->push_back(Queue("backoff-reroute-to-virtual-mta", "backoff_reroute_to_virtual_mta",
                       Grammar::kTargetName,
                       "The same, while the queue is in backoff mode; what was moved stays where "
                       "it is."));
  all->push_back(Queue("allow-priority-interruption", "allow_priority_interruption", Grammar::kBool,
                       "Mail that comes goes before mail of lower priority that waits, and not "
                       "only in its turn."));
  all->push_back(Queue("disable-mx-rollup", "disable_mx_rollup", Grammar::kBool,
                       "The domain keeps limits of its own under <mx-rollup-list>."));
}

void AddLogs(std::vector<Directive>* all) {
  all->push_back(Queue("max-events-recorded", "max_events_recorded", Grammar::kCount,
                       "Last replies that are kept of a queue, for those who look why it does not "
                       "move."));
  all->back().max = 100;
  all->push_back(
      Queue("log-resolution", "log_resolution", Grammar::kBool,
            "Log each answer of DNS about the queue's domain: outcome, hosts, addresses, "
            "time."));
  all->push_back(Queue("log-transfer-failures", "log_transfer_failures", Grammar::kBool,
                       "Log each message whose transfer broke off, from DATA on, without the "
                       "remote host's reply."));
  all->push_back(Queue("log-tls", "log_tls", Grammar::kBool,
                       "Log version, cipher and verdict of each connection of the queue, and TLS "
                       "handshakes that fail."));
  all->back().scopes = kDomain;
  // At global level and in <source> they are about clients.
  all->push_back(Queue("log-connections", "log_connections", Grammar::kBool,
                       "Log the beginning and the end of each connection of the queue."));
  all->back().scopes = kDomain;
  all->push_back(Queue("log-commands", "log_commands", Grammar::kBool,
                       "Log the commands of each connection that is made for the queue, and the "
                       "replies; what AUTH says and texts of messages are left out."));
  all->back().scopes = kDomain;
}

void AddRewriting(std::vector<Directive>* all) {
  constexpr std::string_view kHelp =
      "<rewrite-list> that the senders (MAIL FROM) of mail sent by it are looked up in; the "
      "virtual MTA's goes before its pool's.";
  for (const bool pool : {false, true}) {
    all->push_back({.name = "rewrite-list",
                    .scopes = pool ? kPool : kVirtualMta,
                    .target = pool ? Target::kPool : Target::kVirtualMta,
                    .field = "rewrite_list",
                    .grammar = Grammar::kSectionName,
                    .help = kHelp,
                    .choices = "rewrite-list"});
  }
  all->push_back({.name = "mail-from",
                  .scopes = kRewriteList,
                  .grammar = Grammar::kArguments,
                  .help = "That sender becomes the other one, before any from-domain.",
                  .min = 2,
                  .max = 2,
                  .appends = true,
                  .syntax = "SOURCE-ADDRESS TARGET-ADDRESS"});
  all->push_back({.name = "from-domain",
                  .scopes = kRewriteList,
                  .grammar = Grammar::kArguments,
                  .help = "Senders of that domain become the same ones of the other.",
                  .min = 2,
                  .max = 2,
                  .appends = true,
                  .syntax = "SOURCE-DOMAIN TARGET-DOMAIN"});
  all->push_back({.name = "include-headers-from",
                  .scopes = kGlobal | kVirtualMta | kPool,
                  .grammar = Grammar::kFile,
                  .help = "File of header lines, at most 32 KiB, that every message is given on "
                          "its way out; the virtual MTA's goes before its pool's, and that before "
                          "the global one."});
}

void AddClients(std::vector<Directive>* all) {
  all->push_back({.name = "date-header-time",
                  .scopes = kSource | kGlobal,
                  .target = Target::kClientSettings,
                  .field = "date_header_time",
                  .grammar = Grammar::kChoice,
                  .help =
                      "Which time the Date field of add-date-header says: when the message came "
                      "in, or when each attempt began.",
                  .choices = "reception,delivery"});
}

void AddDns(std::vector<Directive>* all) {
  all->push_back(Global("edns-udp-length", "edns_udp_length", Grammar::kCount,
                        "Bytes of a DNS answer that may come over UDP."));
  all->back().unset = "1232";
  all->back().min = 512;
  all->back().max = 4096;
  all->back().needs_restart = true;
}

}  // namespace

std::vector<Directive> ReportDirectives() {
  std::vector<Directive> all;
  AddDsn(&all);
  AddRoutes(&all);
  AddLogs(&all);
  AddDns(&all);
  AddClients(&all);
  AddRewriting(&all);
  return all;
}

}  // namespace sluice::config
