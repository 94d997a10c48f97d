// <acct-file> directives.
#include <utility>

#include "services/config/registry_tables.h"

namespace sluice::config {

std::vector<Directive> AccountingDirectives() {
  std::vector<Directive> all;
  const auto add = [&](std::string_view name, Grammar grammar,
                       std::string_view help) -> Directive& {
    return all.emplace_back(Planned(name, kAcctFile, grammar, help));
  };
  const auto words = [&](std::string_view name, uint64_t min, uint64_t max, std::string_view syntax,
                         std::string_view help) -> Directive& {
    Directive& directive = add(name, Grammar::kArguments, help);
    directive.min = min;
    directive.max = max;
    directive.syntax = syntax;
    directive.appends = true;
    return directive;
  };
  add("delete-after", Grammar::kDuration, "Age at which files are removed.").unlimited = 0;
  add("move-to", Grammar::kFile, "Folder that finished files go to.");
  add("move-interval", Grammar::kDuration, "Time after which a file is finished.");
  add("max-size", Grammar::kSize, "Size at which a file is finished.");
  add("rotate", Grammar::kCount, "Files that are kept.");
  add("queue-filter", Grammar::kWords, "Queues whose records are written.");
  add("retry-interval", Grammar::kDuration, "Time between tries of a web hook.");
  add("iso-times", Grammar::kBool, "Times as 2019-02-08 21:54:05+0000.");
  add("user-string", Grammar::kText, "A text in every record.");
  add("write-timeout", Grammar::kDuration, "Longest wait for a pipe.");
  words("map-header-to-field", 3, 3, "RECORD-TYPE header_NAME FIELD",
        "A field under another name.");
  Directive& records = add("records", Grammar::kWords, "Types of records that are written.");
  records.aliases = {"record"};
  records.choices = kAccountingRecords;
  words("record-fields", 2, 100, "RECORD-TYPE FIELD,FIELD,...", "Fields of a type of records.");
  add("world-readable", Grammar::kBool, "Everybody may read the files.");
  add("count-moved-records", Grammar::kBool, "Count the records of moved files.");
  add("sync", Grammar::kBool, "Every record is on disk at once.");
  words("privacy-policy", 1, 2,
        "retain | redact | siphash | siphash-hexkey KEY | hmac-sha256 KEY | hmac-sha256-hexkey KEY",
        "How addresses are written.")
      .secret = true;
  add("http-webhook-url", Grammar::kUrl, "Where records are posted.");
  add("http-webhook-extra-headers", Grammar::kFile, "File of HTTP headers.");
  add("http-webhook-certificate", Grammar::kFile, "Certificate for it.");
  add("http-webhook-ca-file", Grammar::kFile, "Authorities for it.");
  add("http-webhook-max-interval", Grammar::kDuration, "Longest time without a post.");
  add("http-webhook-transfer-encoding", Grammar::kChoice, "Compression.").choices = "gzip";
  add("http-webhook-log-verbose", Grammar::kBool, "Log posts in full.");
  add("http-webhook-connect-timeout", Grammar::kDuration, "Longest wait for a connection.");
  add("http-webhook-io-timeout", Grammar::kDuration, "Longest wait for an answer.");
  ComesWith(kAccounting, &all, 0);
  return all;
}

}  // namespace sluice::config
