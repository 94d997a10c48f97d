// <smtp-listener>, <pattern-list> and <source-group> directives.
#include "services/config/registry_tables.h"

namespace sluice::config {

std::vector<Directive> ListenerDirectives() {
  return {
      {.name = "source",
       .scopes = kListener,
       .target = Target::kListenerSettings,
       .field = "source",
       .grammar = Grammar::kSectionName,
       .help = "A named <source>, laid over those of the client's network.",
       .choices = "source"},
      {.name = "mail-from",
       .scopes = kPatternList,
       .grammar = Grammar::kPattern,
       .help = "Mail of senders that match goes out by this virtual MTA or pool."},
      {.name = "rcpt-to",
       .scopes = kPatternList,
       .grammar = Grammar::kPattern,
       .help = "Recipients that match are sent to by this virtual MTA or pool."},
      {.name = "header",
       .scopes = kPatternList,
       .grammar = Grammar::kPattern,
       .help = "Messages with such a header field go out by this virtual MTA or pool."},
      {.name = "max-smtp-in",
       .scopes = kSourceGroup,
       .target = Target::kSourceGroup,
       .field = "max_smtp_in",
       .grammar = Grammar::kCount,
       .help = "Connections of the whole group at once; 0 is no limit.",
       .max = 1'000'000,
       .unlimited = 0,
       .unset = "unlimited"},
      {.name = "reserved-smtp-in",
       .scopes = kSourceGroup,
       .target = Target::kSourceGroup,
       .field = "reserved_smtp_in",
       .grammar = Grammar::kCount,
       .help = "Connections of total-max-smtp-in that only this group may have.",
       .max = 1'000'000,
       .unset = "0"},
  };
}

}  // namespace sluice::config
