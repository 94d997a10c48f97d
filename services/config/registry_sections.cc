// The kinds of sections, and the directives of those that are not about queues and clients.
#include <tuple>
#include <utility>

#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kProcessors = kBounceProcessor | kFeedbackLoopProcessor;

class Table {
 public:
  Directive& Add(std::string_view name, uint32_t scopes, Grammar grammar, std::string_view help,
                 Status status = Status::kNotYet) {
    return all.emplace_back(Planned(name, scopes, grammar, help, status));
  }
  Directive& Words(std::string_view name, uint32_t scopes, uint64_t min, uint64_t max,
                   std::string_view syntax, std::string_view help) {
    Directive& directive = Add(name, scopes, Grammar::kArguments, help);
    directive.min = min;
    directive.max = max;
    directive.syntax = syntax;
    directive.appends = true;
    return directive;
  }

  std::vector<Directive> all;
};

void AddProcessors(Table* t) {
  t->Add("deliver-unmatched-email", kProcessors, Grammar::kBool, "Deliver what is no report.");
  t->Add("deliver-matched-email", kProcessors, Grammar::kBool, "Deliver reports too.");
  t->Add("deliver-email", kProcessors, Grammar::kBool, "The old name of deliver-unmatched-email.");
  t->Add("forward-unmatched-to", kProcessors, Grammar::kEmail, "What is no report goes here.");
  t->Add("forward-errors-to", kProcessors, Grammar::kEmail, "What cannot be read goes here.");
  t->Add("address", kAddressList, Grammar::kMailOrRegex, "Address whose mail is processed.")
      .appends = true;
  t->Add("address-file", kAddressList, Grammar::kFile, "File of such addresses.").appends = true;
  t->Add("domain", kAddressList, Grammar::kDomainPatterns, "Domain whose mail is processed.")
      .appends = true;
  t->Add("body-pattern-file", kEmailPatterns, Grammar::kFile, "File of patterns for texts.");
  t->Add("log-match-info", kEmailPatterns, Grammar::kBool, "Log which pattern matched.");
}

void AddListeners(Table* t) {
  t->Add("await-slot", kListener, Grammar::kBool,
         "Nothing: a connection over the limit is answered at once.", Status::kNoEffect);
  Directive& certificate = t->Words("tls-certificate", kTransmissionsApiListener, 1, 2,
                                    "FILE [PASSWORD]", "Certificate and key.");
  certificate.secret = true;
  for (const std::string_view name :
       {"tls-allow-tlsv1.3", "tls-allow-tlsv1.2", "tls-allow-tlsv1.1", "tls-allow-tlsv1"}) {
    t->Add(name, kTransmissionsApiListener, Grammar::kBool, "TLS version of the listener.");
  }
  t->Add("tls-allow-sslv3", kListener | kTransmissionsApiListener, Grammar::kBool, "SSL 3.",
         Status::kUnsupported)
      .reason = "SSL 3 is broken, and OpenSSL no longer has it";
  t->Add("tls-ciphers", kTransmissionsApiListener, Grammar::kText, "Ciphers.");
  t->Add("tls-tlsv1.3-ciphersuites", kTransmissionsApiListener, Grammar::kText,
         "TLS 1.3 cipher suites.");
  t->Add("tls-dh-key-length", kTransmissionsApiListener, Grammar::kCount,
         "Bits of Diffie-Hellman keys.");
  t->Add("tls-ca-file", kTransmissionsApiListener, Grammar::kFile, "Authorities of clients.");
  for (const std::string_view name : {"log-requests", "log-data", "log-tls"}) {
    t->Add(name, kTransmissionsApi, Grammar::kBool, "Log of the HTTP injection.");
  }
  t->Add("api-key", kTransmissionsApi, Grammar::kText, "Key of the HTTP injection.").secret = true;
}

void AddSending(Table* t) {
  t->Add("cold-virtual-mta", kVirtualMta, Grammar::kTargetName,
         "Cold virtual MTA that takes its daily share first.", Status::kRefused);
  t->Add("auto-cold-virtual-mta", kVirtualMta, Grammar::kText,
         "Source address that is warmed up by itself.", Status::kRefused);
  const size_t vault = t->all.size();
  t->Add("server-url", kVault, Grammar::kUrl, "The vault.").aliases = {"server"};
  t->Add("access-token", kVault, Grammar::kText, "Token for the vault.").secret = true;
  t->Add("cache-ttl", kVault, Grammar::kDuration, "Time for which secrets are kept.");
  ComesWith(kDkim, &t->all, vault);
}

void AddSeedSections(Table* t) {
  t->Add("from", kSchedule, Grammar::kSchedule, "Rate within these hours up to that day.",
         Status::kRefused)
      .appends = true;
  t->Add("start", kSchedule, Grammar::kRate, "Rate of the first day.", Status::kRefused);
  t->Add("increase", kSchedule, Grammar::kGrowth, "Growth a day.");
  t->Add("until", kSchedule, Grammar::kRate, "Rate at which growth ends.");
  for (const auto& [name, grammar, help] :
       std::vector<std::tuple<const char*, Grammar, const char*>>{
           {"throttle", Grammar::kRate, "Recipients attempted in a time, by the whole cluster."},
           {"error-throttle", Grammar::kThrottleOn,
            "The same, from a reply with such a code on, until its time has passed without one."},
           {"defer-throttle", Grammar::kThrottleOn,
            "As error-throttle; both hold, each for its own codes."}}) {
    t->Add(name, kLimits, grammar, help, Status::kActive).target = Target::kCompiler;
  }
  for (const auto& [name, grammar, help] :
       std::vector<std::tuple<const char*, Grammar, const char*>>{
           {"pattern", Grammar::kRegex, "A reply that keeps the queue waiting."},
           {"initial-pts", Grammar::kDuration,
            "For how long, the first time; a minute if not said."},
           {"max-pts", Grammar::kDuration,
            "For how long at the most: each penalty without a delivery since the one before is "
            "twice "
            "as long; an hour if not said."}}) {
    Directive& directive = t->Add(name, kSmtpPattern, grammar, help, Status::kActive);
    directive.target = Target::kCompiler;
    directive.appends = grammar == Grammar::kRegex;
  }
  t->Add("sign", kBind, Grammar::kBool, "Sign with DKIM.").reason = kDkim;
  const size_t statistics = t->all.size();
  t->Add("host", kStatistics, Grammar::kHostName, "Host that gets the statistics.");
  t->Add("port", kStatistics, Grammar::kCount, "Its port.").max = 65535;
  t->Add("prefix", kStatistics, Grammar::kText, "Before every name.");
  ComesWith(kManagement, &t->all, statistics);
}

void AddPatterns(Table* t) {
  const auto line = [t](std::string_view name, Scope scope, std::string_view syntax,
                        std::string_view help) {
    Directive& directive = t->Add(name, scope, Grammar::kPatternLine, help);
    directive.syntax = syntax;
    directive.appends = true;
  };
  line("reply", kSmtpPatternList, "/REGEX/ ACTION [ACTION ...]",
       "What such a reply does; bounce-queue and defer-queue are about the whole queue, and under "
       "<mx-rollup-list> about every queue of the rollup.");
  t->all.back().status = Status::kActive;
  t->all.back().target = Target::kCompiler;
  line("mx", kMxRollupList, "MX-PATTERN QUEUE-NAME",
       "Domains whose best MX matches share limits, mode and settings: those of <domain "
       "QUEUE-NAME>; the first line that matches counts.");
  t->all.back().status = Status::kActive;
  t->all.back().target = Target::kCompiler;
  line("/", kBounceCategories, "/REGEX/ CATEGORY",
       "Class of failures whose status and reply match, as events and the log show it.");
  t->all.back().status = Status::kActive;
  t->all.back().target = Target::kCompiler;
}

void AddSpoolAndDns(Table* t) {
  t->Add("delete-file-holders", kSpool, Grammar::kBool, "Nothing: the spool has no such files.",
         Status::kNoEffect);
  Directive& deliver_only = t->Add(
      "deliver-only", kSpool, Grammar::kBool,
      "Shards take no new mail, which is put off, and deliver what they have.", Status::kActive);
  deliver_only.target = Target::kGlobalSettings;
  deliver_only.field = "spool_deliver_only";
  t->Add("priority", kSpool, Grammar::kCount,
         "Nothing: a shard has one spool, and mail goes to the less loaded of two shards.",
         Status::kNoEffect);
  t->Add("min-free-space", kSpool, Grammar::kSize,
         "As spool-min-free-space: free space below which new mail is put off.", Status::kActive)
      .target = Target::kCompiler;
  t->all.back().unset = "0";
  t->Add("precached-domains-file", kDns, Grammar::kFile,
         "Domains whose MX is looked up ahead of their mail, at the start and again and again.",
         Status::kActive)
      .target = Target::kCompiler;
  const auto ahead = [t](std::string_view name, std::string_view field, Grammar grammar,
                         std::string_view help) {
    Directive& directive = t->Add(name, kDns, grammar, help, Status::kActive);
    directive.target = Target::kGlobalSettings;
    directive.field = field;
    directive.min = 1;
  };
  ahead("precached-refresh-interval", "precached_refresh_interval_us", Grammar::kDuration,
        "Time between such rounds; a shorter TTL is not stretched.");
  ahead("precached-max-domains", "precached_max_domains", Grammar::kCount,
        "Domains of such a round: the first ones of the file.");
}

}  // namespace

std::vector<Directive> SectionDirectives() {
  Table table;
  const auto add = [&table](void (*part)(Table*), std::string_view capability) {
    const size_t first = table.all.size();
    part(&table);
    ComesWith(capability, &table.all, first);
  };
  add(AddProcessors, kBounces);
  add(AddListeners, kManagement);
  add(AddSending, kWarmUp);
  add(AddSeedSections, kWarmUp);
  add(AddPatterns, kBounces);
  add(AddSpoolAndDns, "several spools");
  return std::move(table.all);
}

std::vector<SectionKind> Sections() {
  constexpr auto kPlanned = Status::kNotYet;
  constexpr auto kRefused = Status::kRefused;
  return {
      {"source", kSource, kGlobal, "NETWORK | NAME",
       "Clients of a network, and an outbound address."},
      {"accepted-connect", kSource, kGlobal, "NETWORK", "The same, by its other name."},
      {"virtual-mta", kVirtualMta, kGlobal, "NAME", "A sending identity."},
      {"virtual-mta-pool", kPool, kGlobal, "NAME", "Virtual MTAs that share mail."},
      {"source-pool", kSourcePool, kGlobal, "NETWORK", "A pool of addresses."},
      {"domain", kDomain, kGlobal | kVirtualMta | kPool, "PATTERN", "Mail to these domains."},
      {"spool", kSpool, kGlobal, "FOLDER", "The spool's folder, as disk-queue says it."},
      {"bounce-processor", kBounceProcessor, kGlobal, "", "Bounces that come in.", kPlanned,
       kBounces},
      {"feedback-loop-processor", kFeedbackLoopProcessor, kGlobal, "", "Complaints.", kPlanned,
       kBounces},
      {"address-list", kAddressList, kProcessors, "", "Whose mail is processed.", kPlanned,
       kBounces},
      {"email-patterns", kEmailPatterns, kGlobal | kProcessors, "[NAME]", "How texts are classed.",
       kPlanned, kBounces},
      {"smtp-user", kSmtpUser, kGlobal, "NAME", "A user who may authenticate."},
      {"source-group", kSourceGroup, kGlobal, "NAME", "Client networks that share a limit."},
      {"acct-file", kAcctFile, kGlobal, "FILE", "An accounting file.", kPlanned, kAccounting},
      {"pattern-list", kPatternList, kGlobal, "NAME",
       "The first line that matches chooses the virtual MTA."},
      {"smtp-pattern-list", kSmtpPatternList, kGlobal, "NAME",
       "Patterns of replies and what they do."},
      {"bounce-category-patterns", kBounceCategories, kGlobal, "",
       "Classes of what fails, by status and reply; the first line that matches counts."},
      {"dns", kDns, kGlobal, "", "The resolver."},
      {"smtp-listener", kListener, kGlobal, "IP:PORT", "An address that takes SMTP connections."},
      {"rewrite-list", kRewriteList, kGlobal, "NAME", "What the senders of messages become."},
      {"domain-key-list", kDomainKeyList, kGlobal, "[NAME]", "DKIM keys.", kPlanned, kDkim},
      {"transmissions-api", kTransmissionsApi, kGlobal, "[NAME]", "Injection by HTTP.", kPlanned,
       kManagement},
      {"transmissions-api-listener", kTransmissionsApiListener, kGlobal | kTransmissionsApi,
       "IP:PORT", "Its listener.", kPlanned, kManagement},
      {"proxy", kProxy, kGlobal, "NAME", "A proxy that connections go through."},
      {"vault", kVault, kGlobal, "[NAME]", "A HashiCorp vault.", kPlanned, kDkim},
      {"schedule", kSchedule, kSource, "NAME", "Warm-up.", kRefused, kWarmUp},
      {"limits", kLimits, kDomain | kBind, "[throttle RATE]",
       "Rates over all workers and all queues of the domain, of the pool's or virtual MTA's where "
       "the section is in one."},
      {"smtp-pattern", kSmtpPattern, kGlobal | kDomain, "NAME",
       "Replies that keep a queue waiting, for longer each time."},
      {"statistics", kStatistics, kGlobal, "NAME", "Where statistics go.", kPlanned, kManagement},
      {"bind", kBind, kGlobal, "NAME=VALUE ...",
       "Mail of source-vmta=NAME to destination-domain=PATTERN; <domain> directives."},
      {"mx-rollup-list", kMxRollupList, kGlobal, "",
       "Domains that are put together by their MX hosts."},
  };
}

}  // namespace sluice::config
