// Global directives without effect yet, or without a meaning here.
#include <utility>

#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kSending = kGlobal | kVirtualMta | kPool;

Directive Global(std::string_view name, Grammar grammar, std::string_view help,
                 Status status = Status::kNotYet) {
  return Planned(name, kGlobal, grammar, help, status);
}

Directive NoMeaning(std::string_view name, Grammar grammar, std::string_view help) {
  return Global(name, grammar, help, Status::kNoEffect);
}

Directive Arguments(Directive directive, uint64_t min, uint64_t max, std::string_view syntax) {
  directive.grammar = Grammar::kArguments;
  directive.min = min;
  directive.max = max;
  directive.syntax = syntax;
  return directive;
}

Directive Secret(Directive directive) {
  directive.secret = true;
  return directive;
}

Directive Keyed(Directive directive, Key key) {
  directive.key = key;
  directive.appends = true;
  return directive;
}

Directive Words(Directive directive, std::string_view words) {
  directive.choices = words;
  return directive;
}

Directive Because(Directive directive, std::string_view reason) {
  directive.reason = reason;
  return directive;
}

void AddSpool(std::vector<Directive>* all) {
  all->push_back(NoMeaning("spool-delete-corrupted", Grammar::kBool,
                           "Nothing: a damaged record is set aside and named, never deleted."));
  all->push_back(
      Words(NoMeaning("spool-max-recipients", Grammar::kCount,
                      "Nothing: a queue on disk is not bounded by memory; see max-queue-size."),
            "auto"));
  for (const std::string_view name : {"sync-msg-create", "sync-msg-update"}) {
    all->push_back(
        NoMeaning(name, Grammar::kBool, "Nothing: what is acknowledged is always on disk."));
  }
  all->push_back(Global("track-time-first-attempt", Grammar::kBool,
                        "Keep the time of the first attempt for accounting."));
}

void AddProcess(std::vector<Directive>* all) {
  all->push_back(NoMeaning("run-as-root", Grammar::kBool,
                           "Nothing: the daemon never needs root; the port is handed to it."));
  for (const std::string_view name : {"thread-min-priority", "thread-max-priority"}) {
    all->push_back(NoMeaning(name, Grammar::kCount, "Nothing: there are no thread priorities."));
  }
  all->push_back(
      NoMeaning("thread-reuse", Grammar::kBool, "Nothing: threads are never made anew."));
  all->push_back(NoMeaning("host-id", Grammar::kCount,
                           "Nothing: message ids are unique without a number of the host."));
  all->push_back(NoMeaning("smtp-await-slot", Grammar::kBool,
                           "Nothing: a connection over the limit is answered at once."));
  all->push_back(NoMeaning("pmc-acct-min-free-space", Grammar::kText,
                           "Nothing: there is no Management Console."));
  all->push_back(Because(Secret(Global("volume-audit-api-key", Grammar::kText, "Licence audit.",
                                       Status::kUnsupported)),
                         "there is no licence to audit"));
  all->push_back(
      NoMeaning("dummy-smtp-ip", Grammar::kIps, "Nothing: sluice-sink is the receiver for tests."));
  for (const std::string_view name : {"dummy-smtp-port", "dummy-smtp-latency"}) {
    all->push_back(
        NoMeaning(name, Grammar::kText, "Nothing: sluice-sink is the receiver for tests."));
  }
  for (const std::string_view name :
       {"dummy-smtp-await-slot", "dummy-smtp-has-chunking", "dummy-smtp-has-pipelining",
        "dummy-smtp-has-verp", "dummy-smtp-update-stats"}) {
    all->push_back(
        NoMeaning(name, Grammar::kBool, "Nothing: sluice-sink is the receiver for tests."));
  }
}

void AddHttp(std::vector<Directive>* all) {
  all->push_back(Global("http-mgmt-auth", Grammar::kFile, "htpasswd file of the management HTTP."));
  all->push_back(Words(
      Keyed(Global("http-access", Grammar::kWords, "Who may use the management."), Key::kNetwork),
      "monitor,deny-logs,operator,admin,none"));
  for (const std::string_view name : {"http-mgmt-source", "no-http-mgmt-source"}) {
    all->push_back(
        Keyed(Global(name, Grammar::kNetworks, "Who may use the management; see http-access."),
              Key::kNothing));
  }
  for (const std::string_view name :
       {"http-redirect-to-https", "http-csrf-protection", "http-tls-allow-tlsv1",
        "http-tls-allow-tlsv1.1", "http-tls-allow-tlsv1.2", "http-tls-allow-tlsv1.3",
        "http-log-tls", "http-log-data", "http-log-requests"}) {
    all->push_back(Global(name, Grammar::kBool, "Of the management HTTP."));
  }
  all->push_back(Secret(Global("http-api-key", Grammar::kText, "Key of the management HTTP.")));
  all->push_back(Global("http-strict-transport-security-max-age", Grammar::kCount,
                        "Seconds for which browsers insist on TLS."));
  all->push_back(
      Because(Global("http-tls-allow-sslv3", Grammar::kBool, "SSL 3.", Status::kUnsupported),
              "SSL 3 is broken, and OpenSSL no longer has it"));
  all->push_back(Global("http-tls-ciphers", Grammar::kText, "Ciphers of the management HTTP."));
  all->push_back(Global("http-tls-tlsv1.3-ciphersuites", Grammar::kText,
                        "TLS 1.3 cipher suites of the management HTTP."));
  all->push_back(Global("http-tls-dh-key-length", Grammar::kCount, "Bits of Diffie-Hellman keys."));
  all->push_back(Global("http-tls-ca-file", Grammar::kFile, "Authorities that clients are of."));
  all->push_back(Global("http-default-max-items", Grammar::kCount, "Rows of a list."));
  all->push_back(Words(Global("http-default-sort-order", Grammar::kChoice, "Order of lists."),
                       "rcpt,name,size"));
  all->push_back(Global("snmp-port", Grammar::kCount, "Port of SNMP statistics."));
  all->push_back(Secret(Global("snmp-community", Grammar::kText, "Community of SNMP.")));
  all->push_back(Global("statistics-interval", Grammar::kDuration, "Time between statistics."));
}

void AddLogs(std::vector<Directive>* all) {
  all->push_back(Keyed(Arguments(Global("log-format-extended", Grammar::kText,
                                        "A log of deliveries in a format of its own."),
                                 2, 2, "\"FILE\" \"FORMAT\""),
                       Key::kNothing));
  const size_t bounces = all->size();
  for (const std::string_view name : {"bounce-log", "bounce-category-log"}) {
    all->push_back(Planned(name, kGlobal | kVirtualMta, Grammar::kFile, "A log of bounces."));
  }
  all->push_back(Global("permanent-bounce-after", Grammar::kDuration,
                        "Time of soft bounces after which an address is suppressed.",
                        Status::kRefused));
  ComesWith(kBounces, all, bounces);
}

void AddSending(std::vector<Directive>* all) {
  Directive key = Planned("domain-key", kSending | kDomainKeyList, Grammar::kDomainKey,
                          "DKIM key: selector, sender domain or *, file.");
  key.appends = true;
  all->push_back(std::move(key));
  const size_t adaptive = all->size();
  all->push_back(Global("adaptive-max-smtp-out", Grammar::kBool,
                        "Fewer connections to a domain that defers much.", Status::kRefused));
  all->push_back(Global("adaptive-soft-bounce-limit", Grammar::kCount,
                        "Soft bounces a minute that are much."));
  all->push_back(
      Global("adaptive-backoff-interval", Grammar::kDuration, "Time with fewer connections."));
  ComesWith(kAdaptive, all, adaptive);
}

void AddServerTls(std::vector<Directive>* all) {
  all->push_back(
      Because(Global("smtp-server-tls-allow-sslv3", Grammar::kBool, "SSL 3.", Status::kUnsupported),
              "SSL 3 is broken, and OpenSSL no longer has it"));
}

}  // namespace

std::vector<Directive> PlannedGlobalDirectives() {
  std::vector<Directive> all;
  const auto add = [&all](void (*part)(std::vector<Directive>*), std::string_view capability) {
    const size_t first = all.size();
    part(&all);
    ComesWith(capability, &all, first);
  };
  add(AddSpool, kAccounting);
  add(AddProcess, kManagement);
  add(AddHttp, kManagement);
  add(AddLogs, kAccounting);
  add(AddSending, kDkim);
  add(AddServerTls, "TLS");
  return all;
}

}  // namespace sluice::config
