// Mail that ends or begins on this machine: local ends of <domain>, aliases, pickup folders.
#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kEverywhere = kDomain | kVirtualMta | kGlobal;
constexpr auto kQueue = Target::kQueueSettings;

}  // namespace

std::vector<Directive> LocalDirectives() {
  return {
      {.name = "type",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "type",
       .grammar = Grammar::kChoice,
       .help = "How the domain's mail is delivered.",
       .choices = "smtp,lmtp,file,pipe,discard,http-delivery"},
      {.name = "file-destination",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "file_destination",
       .grammar = Grammar::kFile,
       .help = "Folder, or with append-mbox the file, into which type file delivers; ${local}, "
               "${domain}, "
               "${rcpt}, ${from} and ${id} stand for what they say."},
      {.name = "file-format",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "file_format",
       .grammar = Grammar::kChoice,
       .help = "What type file writes.",
       .choices = "newfile-plain,newfile-pickup,append-mbox,maildir"},
      {.name = "command",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "command",
       .grammar = Grammar::kText,
       .help =
           "Program of type pipe, with its arguments and the variables of file-destination; the "
           "message is its standard input, its exit status one of sysexits. There is no shell, and "
           "one that is named runs no variable."},
      {.name = "http-delivery-url",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "http_delivery_url",
       .grammar = Grammar::kUrl,
       .help = "Where type http-delivery posts messages; what it wants to know of us stands in "
               "http-delivery-header, not here."},
      {.name = "http-delivery-header",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "http_delivery_headers",
       .grammar = Grammar::kHeaderLines,
       .help = "A further header field of what http-delivery posts.",
       .appends = true,
       .secret = true},
      {.name = "http-delivery-extra-headers",
       .scopes = kEverywhere,
       .grammar = Grammar::kFile,
       .help = "File of header fields, a line each, that http-delivery posts besides those of "
               "http-delivery-header; at most 32 KiB."},
      {.name = "macro-variables-preserve-case",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "macro_variables_preserve_case",
       .grammar = Grammar::kBool,
       .help = "The variables of command and file-destination are as they were given; else in "
               "lower case."},
      {.name = "discard-as-bounce",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "discard_as_bounce",
       .grammar = Grammar::kBool,
       .help = "What type discard takes counts as failed; suppress-local-dsn keeps reports of it "
               "back."},
      {.name = "bcc-upon-delivery",
       .scopes = kEverywhere,
       .target = kQueue,
       .field = "bcc_upon_delivery",
       .grammar = Grammar::kEmail,
       .help = "Who gets a copy of each message that was delivered."},
      {.name = "alias",
       .scopes = kGlobal,
       .grammar = Grammar::kAddressPair,
       .help = "Mail to the first address goes to the second. Without a domain the first is one of "
               "this host."},
      {.name = "relay-address",
       .scopes = kGlobal,
       .grammar = Grammar::kAddressRule,
       .help = "Address, or /regex/ of addresses, that every client may send to."},
      {.name = "pickup",
       .scopes = kGlobal,
       .grammar = Grammar::kFolderPair,
       .help = "Folder whose files are taken in as messages, and where bad ones are put."},
      {.name = "pickup-retry-interval",
       .scopes = kGlobal,
       .target = Target::kGlobalSettings,
       .field = "pickup_retry_interval_us",
       .grammar = Grammar::kDuration,
       .help = "Wait of a pickup folder one of whose messages was put off.",
       .min = 100'000,
       .max = uint64_t{366} * 86400 * 1'000'000},
      {.name = "pickup-remove-dot",
       .scopes = kGlobal,
       .target = Target::kGlobalSettings,
       .field = "pickup_remove_dot",
       .grammar = Grammar::kBool,
       .help = "Files of pickup folders are written as for SMTP's DATA: a line of one dot ends the "
               "message, and another line's first dot is taken away."},
  };
}

}  // namespace sluice::config
