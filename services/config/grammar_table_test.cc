// Each value grammar of the registry in a table: spellings that are read, with what they mean as
// the printer says it, and spellings that are refused.
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/printer.h"
#include "services/config/registry.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

struct Row {
  Grammar grammar;
  std::string name;
  std::string file;                                       // the line stands at the "@"
  std::vector<std::pair<std::string, std::string>> good;  // value and, where kept, printed line
  std::vector<std::string> bad;
};

const char kHere[] = "@";
const char kInDomain[] = "<domain a.test>\n@</domain>\n";

std::vector<Row> Values() {
  return {
      {Grammar::kBool,
       "use-starttls",
       kInDomain,
       {{"yes", "use-starttls yes"}, {"FALSE", "use-starttls no"}},
       {"1", "on", "yes no", ""}},
      {Grammar::kCount,
       "max-smtp-out",
       kInDomain,
       {{"7", "max-smtp-out 7"}, {"unlimited", "max-smtp-out "}},
       {"-1", "7.5", "7k", "4294967296", "seven", ""}},
      {Grammar::kDuration,
       "bounce-after",
       kInDomain,
       {{"1w2d12h30m5s", "bounce-after 9d12h30m5s"},
        {"90", "bounce-after 1m30s"},
        {"2 hours", "bounce-after 2h"}},
       {"soon", "-1h", "1.5h", "5m30", "9999999w", ""}},
      {Grammar::kDurationList,
       "retry-after",
       kInDomain,
       {{"10m,30m,1h", "retry-after 10m,30m,1h"}, {"600, 3600", "retry-after 10m,1h"}},
       {"10m,,1h", "10m,soon", ""}},
      {Grammar::kRate,
       "max-msg-rate",
       kInDomain,
       {{"100/h", "max-msg-rate 100/h"},
        {"5/10s", "max-msg-rate 5/10s"},
        {"50/second", "max-msg-rate 50/s"},
        {"unlimited", "max-msg-rate unlimited"},
        {"0", "max-msg-rate 0"}},
       {"100", "100/", "/h", "5/0s", "5/fortnight", "1.5/s", ""}},
      {Grammar::kVolume,
       "max-data-volume-rate",
       kInDomain,
       {{"10M/2h", "max-data-volume-rate 10M/2h"}, {"512k/min", "max-data-volume-rate 512k/m"}},
       {"10M", "10X/h", "M/h", ""}},
      {Grammar::kRateList,
       "max-cold-virtual-mta-msg",
       kInDomain,
       {{"50/day,100/day", ""}},
       {"many", "50,100", ""}},
      {Grammar::kSize,
       "max-message-size",
       kHere,
       {{"50M", "max-message-size 50M"}, {"2048k", "max-message-size 2M"}},
       {"50X", "-1", "1.5M", "99999999999999999999", ""}},
      {Grammar::kText,
       "command",
       "<domain a.test>\ntype pipe\n@</domain>\n",
       {{"\"/bin/a b\"", "command \"/bin/a b\""}},
       {"\"open",
        "a\x01"
        "b",
        "\xff"}},
      {Grammar::kReplyText,
       "smtp-greeting",
       kHere,
       {{"\"a b\"", "smtp-greeting \"a b\""}, {"word", "smtp-greeting word"}},
       {"gr\xc3\xbc\xc3\x9f", std::string(201, 'a')}},
      {Grammar::kSelector, "dkim-selector", kInDomain, {{"Mail.a", ""}}, {"a..b", "a b"}},
      {Grammar::kDomains, "domain-macro", kHere, {{"m A.test,b.test", ""}}, {"m a..b", "m", ""}},
      {Grammar::kHeaderLines,
       "http-delivery-header",
       kInDomain,
       {{"\"X-A: b\"", "http-delivery-header (secret)"}},
       {"\"no field\"", "\": b\""}},
      {Grammar::kSectionName,
       "pattern-list",
       "<pattern-list l>\n</pattern-list>\n"
       "<source 10/8>\n@</source>\n",
       {{"l", "pattern-list l"}},
       {"nobody", "l l"}},
      {Grammar::kIps,
       "smtp-ip",
       kHere,
       {{"192.0.2.1,192.0.2.2", " 192.0.2.2:25"}},
       {"192.0.2", "host"}},
      {Grammar::kNetworks,
       "http-mgmt-source",
       kHere,
       {{"10/8", ""}, {"10/8,192.0.2.1", ""}},
       {"10.0.0.1/8", "host"}},
      {Grammar::kEmails,
       "backoff-notify",
       kInDomain,
       {{"a@b.test, c@D.test", "backoff-notify a@b.test"}},
       {"nobody", "a@b.test,nobody"}},
      {Grammar::kHeader,
       "jobid-header",
       kHere,
       {{"X-Camp", "jobid-header X-Camp"}},
       {"\"X Camp\"", "a b", "Sch\xc3\xb6n"}},
      {Grammar::kHeaders,
       "remove-header",
       kHere,
       {{"X-A:X-B, X-C", "remove-header X-A"}},
       {"Sch\xc3\xb6n"}},
      {Grammar::kFile,
       "file-destination",
       kInDomain,
       {{"/a/b", "file-destination /a/b"}},
       {"/a /b"}},
      {Grammar::kUrl,
       "http-delivery-url",
       kInDomain,
       {{"https://a.test:8080/x?y", "http-delivery-url \"https://a.test:8080/x?y\""}},
       {"a.test", "ftp://a.test", "https://", "https://u:p@a.test"}},
      {Grammar::kMailOrRegex,
       "address",
       "<bounce-processor>\n<address-list>\n@</address-list>\n</bounce-processor>\n",
       {{"a@b.test", ""}, {"/@b/", ""}},
       {"nobody"}},
      {Grammar::kIdentity,
       "dkim-identity",
       kInDomain,
       {{"@b.test", ""}, {"a@b.test", ""}, {"b.test", ""}, {"sender-or-from", ""}},
       {"a..b", "@", "a@"}},
      {Grammar::kBoolOrTime,
       "bounce-upon-no-mx",
       kInDomain,
       {{"4h", "bounce-upon-no-mx 4h"},
        {"yes", "bounce-upon-no-mx yes"},
        {"never", "bounce-upon-no-mx no"}},
       {"soon", "-1h", ""}},
      {Grammar::kArguments,
       "record-fields",
       "<acct-file /a>\n@</acct-file>\n",
       {{"d *,!orcpt,header_X", ""}},
       {"d"}},
      {Grammar::kWords, "http-access", kHere, {{"10/8 monitor", ""}}, {"10/8 king", "10/8"}},
      {Grammar::kChoice,
       "type",
       kInDomain,
       {{"smtp", "type smtp"}, {"LMTP", "type lmtp"}},
       {"post", "smtp lmtp", ""}},
      {Grammar::kHostName,
       "host-name",
       kHere,
       {{"MX.A.test.", "host-name mx.a.test"}, {"gr\xc3\xbc\xc3\x9f.test", "host-name xn--"}},
       {"a..b", "a b", "-", std::string(64, 'a') + ".test"}},
      {Grammar::kIpPorts,
       "smtp-listener",
       kHere,
       {{"192.0.2.1", "smtp-listener 192.0.2.1:25"},
        {"[2001:db8::1]:587", "smtp-listener [2001:db8::1]:587"}},
       {"192.0.2", "192.0.2.1:0", "192.0.2.1:70000", "host:25", ""}},
      {Grammar::kHostPorts,
       "smtp-hosts",
       kInDomain,
       {{"MX.b.test:587, 192.0.2.1", "smtp-hosts mx.b.test:587"}},
       {"a..b", "a.test:0", ""}},
      {Grammar::kDomainPatterns,
       "relay-domain",
       kHere,
       {{"A.test,*.b.test [*.]c.test", "relay-domain a.test"}},
       {"a..b", "*", "[10/8]", ""}},
      {Grammar::kEmail,
       "postmaster",
       kHere,
       {{"A@B.test", "postmaster A@b.test"}},
       {"nobody", "@b.test", "a@", "a b@c.test"}},
      {Grammar::kQueueName,
       "queue-to",
       kInDomain,
       {{"B.test", "queue-to b.test"}, {"b.test/{default}", "queue-to b.test/default"}},
       {"a..b", "b.test/", "b.test/nobody", "b.test/a/b"}},
      {Grammar::kTargetName,
       "default-virtual-mta",
       kHere,
       {{"{default}", "default-virtual-mta default"}},
       {"nobody", "a b"}},
      {Grammar::kSourceHost,
       "smtp-source-host",
       "<virtual-mta w>\n@</virtual-mta>\n",
       {{"192.0.2.1 A.test", "smtp-source-host 192.0.2.1 a.test"},
        {"192.0.2.0/31", "smtp-source-host 192.0.2.1"}},
       {"host", "192.0.2.1 a..b", "0.0.0.0/0", "10/8", "192.0.2.1 a.test b", ""}},
      {Grammar::kAddressPair,
       "alias",
       kHere,
       {{"A@x.test b@y.test", "alias a@x.test b@y.test"}},
       {"a@x.test", "a@x.test b@y.test c", "@x b"}},
      {Grammar::kFolderPair,
       "pickup",
       kHere,
       {{"/in \"/bad one\"", "pickup /in \"/bad one\""}},
       {"/in", "/in /in", "/in /bad /more"}},
      {Grammar::kAddressRule,
       "relay-address",
       kHere,
       {{"a@B.test", "relay-address a@b.test"}, {"/@b\\.test$/", "relay-address /@b\\.test$/"}},
       {"nobody", "/(/"}},
      {Grammar::kRegex,
       "backoff-trigger-pattern",
       kInDomain,
       {{"/too \"many\" \\/ x/i", "backoff-trigger-pattern /too \"many\" \\/ x/i"},
        {"^4", "backoff-trigger-pattern \"^4\""}},
       {"/(/", "/a#b/", "/x/ /y/", ""}},
      {Grammar::kIpDomain,
       "ip",
       kHere,
       {{"192.0.2.1 domain = A.test;", "ip 192.0.2.1 domain = a.test;"}},
       {"192.0.2.1", "192.0.2.1 domain a.test", "host domain = a.test"}},
      {Grammar::kThrottleOn,
       "error-throttle",
       "<domain a.test>\n<limits>\n@</limits>\n</domain>\n",
       {{"10/h on 4xx,550", "error-throttle 10/h on 4xx,550"}},
       {"10/h", "10/h on", "10/h on 250", "fast on 4xx"}},
      {Grammar::kSchedule,
       "from",
       "<source 192.0.2.1>\n<schedule w>\n@</schedule>\n</source>\n",
       {{"00:00 to 24:00 for 3d max-msg-rate 500/h", ""}},
       {"0 to 5 for 1d max-msg-rate 1/h", "12:00 to 08:00 for 1d max-msg-rate 1/h",
        "00:00 to 25:00 for 1d max-msg-rate 1/h", "00:00 to 12:00 for 1d"}},
      {Grammar::kGrowth,
       "increase",
       "<source 192.0.2.1>\n<schedule w>\n@</schedule>\n</source>\n",
       {{"10%/day", ""}, {"10% daily", ""}},
       {"10", "0%/day", "ten%/day", "10%"}},
      {Grammar::kTlsCertificate,
       "smtp-server-tls-certificate",
       kHere,
       {{"/a.pem \"a word\"", "smtp-server-tls-certificate (secret)"}},
       {"/a.pem b c", ""}},
      {Grammar::kDomainKey,
       "domain-key",
       kHere,
       {{"s, A.test, /k.pem", ""}, {"s,*,/k", ""}},
       {"s", "s,a.test", "a..b,c.test,/k", "s,a..b,/k"}},
      {Grammar::kPatternLine,
       "reply",
       "<smtp-pattern-list l>\n@</smtp-pattern-list>\n",
       {{"/a b/ mode=backoff, skip-mx", "reply /a b/ mode=backoff skip-mx"}},
       {"/x/", "/x/ mode=sleep", "/(/ skip-mx", "x skip-mx"}},
      {Grammar::kPattern,
       "mail-from",
       "<pattern-list l>\n@</pattern-list>\n",
       {{"/@a\\.test$/ virtual-mta=default", "mail-from /@a\\.test$/ virtual-mta=default"}},
       {"/x/", "/x/ virtual-mta=", "/(/ virtual-mta=default", "/x/ virtual-mta=nobody"}},
      {Grammar::kIp,
       "source-interface",
       "<virtual-mta v>\nsmtp-source-host 192.0.2.9\n"
       "<domain a.test>\n@</domain>\n</virtual-mta>\n",
       {{"192.0.2.9", "source-interface 192.0.2.9"}},
       {"192.0.2.8", "192.0.2", "host"}},
  };
}

Compiled CompileLine(const Row& row, const std::string& value) {
  static const CompileOptions options = [] {
    CompileOptions all;
    for (const Directive& directive : AllDirectives()) {
      all.accept_unsupported.emplace(directive.name);
    }
    all.accept_unsupported.emplace("schedule");
    return all;
  }();
  testing::MemoryFiles files;
  const std::string line = absl::StrCat(row.name, " ", value, "\n");
  return CompileText("f", absl::StrReplaceAll(row.file, {{"@", line}}), files, options);
}

TEST(GrammarTableTest, WhatIsReadMeansTheSameAndTheRestIsRefused) {
  for (const Row& row : Values()) {
    for (const auto& [value, printed] : row.good) {
      const Compiled compiled = CompileLine(row, value);
      EXPECT_TRUE(compiled.ok()) << row.name << " " << value << "\n"
                                 << Render(compiled.diagnostics);
      EXPECT_NE(PrintSnapshot(compiled.snapshot).find(printed), std::string::npos)
          << printed << " is not in\n"
          << PrintSnapshot(compiled.snapshot);
    }
    for (const std::string& value : row.bad) {
      EXPECT_FALSE(CompileLine(row, value).ok()) << row.name << " " << value;
    }
  }
}

TEST(GrammarTableTest, EveryGrammarHasARow) {
  std::set<Grammar> tested;
  for (const Row& row : Values()) tested.insert(row.grammar);
  for (const Directive& directive : AllDirectives()) {
    EXPECT_TRUE(tested.contains(directive.grammar)) << directive.name;
  }
}

}  // namespace
}  // namespace sluice::config
