// <domain> directives without effect yet, or without a meaning here.
#include <utility>

#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kEverywhere = kDomain | kVirtualMta | kGlobal;

class QueueTable {
 public:
  Directive& Add(std::string_view name, Grammar grammar, std::string_view help,
                 Status status = Status::kNotYet, uint32_t scopes = kEverywhere) {
    return all.emplace_back(Planned(name, scopes, grammar, help, status));
  }
  void Bool(std::string_view name, std::string_view help, Status status = Status::kNotYet) {
    Add(name, Grammar::kBool, help, status);
  }
  void Unsupported(std::string_view name, Grammar grammar, std::string_view help,
                   std::string_view reason, bool restricts = false) {
    Directive& directive = Add(name, grammar, help, Status::kUnsupported);
    directive.reason = reason;
    directive.restricts = restricts;
  }

  std::vector<Directive> all;
};

void AddLimits(QueueTable* t) {
  constexpr auto kRefused = Status::kRefused;
  t->Add("max-cold-virtual-mta-msg", Grammar::kRateList,
         "Messages a day, day after day, that a cold virtual MTA may send to the domain.",
         kRefused);
}

void AddBackoff(QueueTable* t) {
  t->Add("bounce-pattern-file", Grammar::kFile, "File of patterns that class bounces.").reason =
      kBounces;
}

void AddDkim(QueueTable* t) {
  t->Bool("dkim-sign", "Sign mail with DKIM.");
  t->Bool("dk-sign", "DomainKeys.", Status::kUnsupported);
  t->all.back().reason = "DomainKeys (RFC 4870) is historic; DKIM took its place";
  t->Add("dkim-selector", Grammar::kSelector, "Selector of the key.");
  t->Add("dkim-key", Grammar::kFile, "File of the key.");
  t->Bool("dkim-add-body-limit", "Sign the body's length.");
  t->Bool("dkim-add-timestamp", "Say when it was signed.");
  t->Add("dkim-algorithm", Grammar::kChoice, "Algorithm of signatures.").choices =
      "rsa-sha1,rsa-sha256,ed25519-sha256";
  for (const std::string_view name : {"dkim-body-canon", "dkim-headers-canon"}) {
    t->Add(name, Grammar::kChoice, "Canonical form.").choices = "simple,relaxed";
  }
  t->Add("dkim-expire-after", Grammar::kDuration, "Time for which signatures hold.").unlimited = 0;
  t->Add("dkim-query-method", Grammar::kText, "Method that signatures name.");
  t->Add("dkim-headers", Grammar::kHeaders, "Fields that are signed.");
  t->Add("dkim-disallow-adding-headers", Grammar::kHeaders, "Fields that nobody may add.");
  for (const auto& [name, help] :
       {std::pair("dkim-identity", "Identity that signatures name."),
        std::pair("dkim-identity-fallback", "Identity where that one has no key.")}) {
    t->Add(name, Grammar::kIdentity, help).choices = "sender-or-from";
  }
  t->Add("bounce-domain", Grammar::kHostName, "Domain of the return path of this sender domain.")
      .reason = kBounces;
  t->Add("spf-identity", Grammar::kChoice, "Identity that SPF is about.").choices = "mfrom,helo";
  t->Bool("check-spf-outbound", "Check the sender's SPF before sending.");
}

void AddTls(QueueTable* t) {
  t->Unsupported("smtp-tls-allow-sslv3", Grammar::kBool, "SSL 3.",
                 "SSL 3 is broken, and OpenSSL no longer has it");
}

void AddReplies(QueueTable* t) {
  t->Bool("pix-bug-workaround", "Nothing: the PIX bug is of 2000.", Status::kNoEffect);
  for (const std::string_view name :
       {"allow-priority-interruption-during-transfer", "allow-cancel-during-transfer"}) {
    t->Bool(name,
            "Nothing: a message that is being sent is never broken off, for nobody would know "
            "whether the remote host has it.",
            Status::kNoEffect);
  }
}

void AddReports(QueueTable* t) {
  t->Add("log-data", Grammar::kBool, "Log what is sent.", Status::kUnsupported, kDomain).reason =
      "the text of a message never stands in a log; log-transfer-failures and events say what "
      "happened to it";
  t->Add("disable-acct-records", Grammar::kWords,
         "Accounting records that the queue does not make.")
      .choices = kAccountingRecords;
  t->Bool("track-recipient-events",
          "Nothing: every event of every recipient is kept, for as long as events-keep says.",
          Status::kNoEffect);
}

void AddOtherWays(QueueTable* t) {
  constexpr std::string_view kSparkPost = "it is of the SparkPost service";
  t->Unsupported("add-x-msys-api-header", Grammar::kBool, "A header of SparkPost.", kSparkPost);
  t->Unsupported("sparkpost-sandbox", Grammar::kBool, "SparkPost's sandbox.", kSparkPost, true);
  t->Unsupported("sparkpost-ip-pool", Grammar::kText, "SparkPost's pool.", kSparkPost);
}

}  // namespace

std::vector<Directive> PlannedQueueDirectives() {
  QueueTable table;
  const auto add = [&table](void (*part)(QueueTable*), std::string_view capability) {
    const size_t first = table.all.size();
    part(&table);
    ComesWith(capability, &table.all, first);
  };
  add(AddLimits, kWarmUp);
  add(AddBackoff, "rerouting by rule");
  add(AddDkim, kDkim);
  add(AddTls, "TLS");
  add(AddReplies, "replies");
  add(AddReports, kAccounting);
  add(AddOtherWays, "local delivery");
  return std::move(table.all);
}

}  // namespace sluice::config
