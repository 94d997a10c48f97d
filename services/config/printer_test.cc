// What the printer writes compiles to the same sections, for every directive and for many
// configurations made at random.
#include "services/config/printer.h"

#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/snapshot_hash.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

class NoFiles final : public FileSource {
 public:
  // Every auth-plain file is there, without users.
  absl::StatusOr<std::string> Read(const std::string&) override { return ""; }
  absl::StatusOr<std::vector<std::string>> Glob(const std::string&, size_t*) override {
    return std::vector<std::string>();
  }
};

Compiled CompileOrFail(const std::string& text) {
  NoFiles files;
  CompileOptions options;
  for (const Directive& directive : AllDirectives()) {
    options.accept_unsupported.emplace(directive.name);
  }
  options.accept_unsupported.emplace("smtp-pattern-list");
  Compiled compiled = CompileText("a.conf", text, files, options);
  EXPECT_TRUE(compiled.ok()) << text << "\n" << Render(compiled.diagnostics);
  return compiled;
}

void ExpectRoundTrip(const std::string& text) {
  const Compiled once = CompileOrFail(text);
  const std::string printed = PrintSnapshot(once.snapshot, /*with_secrets=*/true);
  const Compiled again = CompileOrFail(printed);
  EXPECT_EQ(SectionsHash(once.snapshot), SectionsHash(again.snapshot))
      << text << "----\n"
      << printed << "----\n"
      << once.snapshot.ShortDebugString() << "\n"
      << again.snapshot.ShortDebugString();
}

using Random = std::mt19937;

template <class T>
const T& AnyOf(Random& random, const std::vector<T>& all) {
  return all[random() % all.size()];
}

std::string AnyValue(Random& random, const Directive& directive) {
  static const std::vector<std::string> kTimes = {"1w2d",  "4d12h", "90 seconds",
                                                  "500ms", "1h30m", "45"};
  static const std::vector<std::string> kRates = {"100/h",     "5/10s", "unlimited", "0",
                                                  "40/second", "7/3d",  "1000/90min"};
  switch (directive.grammar) {
    case Grammar::kBool:
      return random() % 2 == 0 ? "yes" : "false";
    case Grammar::kBoolOrTime:
      return std::vector<std::string>{"yes", "false", "never", "90m", "2d"}[random() % 5];
    case Grammar::kCount: {
      if (directive.unlimited && random() % 4 == 0) return "unlimited";
      const uint64_t span = std::min<uint64_t>(directive.max - directive.min, 100'000);
      return absl::StrCat(directive.min + random() % (span + 1));
    }
    case Grammar::kSize:
      return absl::StrCat(std::max<uint64_t>(directive.min >> 10, 1) + random() % 1000,
                          AnyOf<std::string>(random, {"k", "M"}));
    case Grammar::kDuration: {
      if (directive.unlimited && random() % 4 == 0) return "never";
      if (directive.max < 1'000'000'000) return "2s";
      if (directive.min <= 500'000) return AnyOf(random, kTimes);
      return directive.max < uint64_t{4} * 86'400'000'000 ? "20h" : "4d";
    }
    case Grammar::kDurationList:
      return "10m,30m, 1h30m";
    case Grammar::kRate:
      return AnyOf(random, kRates);
    case Grammar::kVolume:
      return AnyOf<std::string>(random, {"10M/h", "512k/10s", "unlimited", "7/s"});
    case Grammar::kRateList:
      return "50/day,100/day,unlimited";
    case Grammar::kText:
      return AnyOf<std::string>(random, {"word", "\"two words\"", "\"a \\\"quote\\\" and # x\"",
                                         "\"\\\\\"", "\"comma,\"", "\"<x>\""});
    case Grammar::kReplyText:
      return AnyOf<std::string>(random, {"ready", "\"two words, and \\\"\""});
    case Grammar::kHeader:
      return "X-Campaign";
    case Grammar::kDomainPatterns:
      return "a.test, *.B.test [*.]c.test";
    case Grammar::kHeaderLines:
      return AnyOf<std::string>(random, {"\"X-A: b c\"", "\"X-D: \\\"e\\\"\"", "X-F:g"});
    case Grammar::kChoice: {
      const std::vector<std::string> words = SplitList(directive.choices);
      return words[random() % words.size()];
    }
    case Grammar::kHostName:
      return "Host.Example.test";
    case Grammar::kIp:
      return AnyOf<std::string>(random, {"192.0.2.7", "2001:db8::7"});
    case Grammar::kIps:
    case Grammar::kIpPorts:
      return AnyOf<std::string>(random, {"192.0.2.7", "192.0.2.8"});
    case Grammar::kHostPorts:
      return "relay.test:26, [::1]:27";
    case Grammar::kDomains:
      return "a.test, B.test";
    case Grammar::kWords:
      return directive.choices.empty()
                 ? "One, two"
                 : std::string(directive.choices.substr(0, directive.choices.find(',')));
    case Grammar::kHeaders:
      return "From:Subject:To";
    case Grammar::kEmail:
    case Grammar::kEmails:
    case Grammar::kMailOrRegex:
      return "post@Example.test";
    case Grammar::kFile:
      return "/etc/some/file";
    case Grammar::kTlsCertificate:
      return AnyOf<std::string>(random, {"/etc/a.pem", "\"/etc/b c.pem\" \"a \\\"secret\""});
    case Grammar::kQueueName:
      return "a.test/v";
    case Grammar::kTargetName:
      return "v";
    case Grammar::kUrl:
      return "https://a.test/x";
    default:
      return "";
  }
}

std::string AnySettings(Random& random, Scope scope) {
  std::string text;
  for (const Directive& directive : AllDirectives()) {
    if ((directive.scopes & scope) == 0 || random() % 4 != 0) continue;
    if (directive.target == Target::kCompiler || directive.target == Target::kNone) continue;
    if (directive.name == "source-interface") continue;  // one of a virtual MTA's own
    for (uint32_t lines = directive.appends ? random() % 3 + 1 : 1; lines > 0; --lines) {
      const bool clears = (directive.target == Target::kQueueSettings ||
                           directive.target == Target::kClientSettings) &&
                          directive.key == Key::kNothing && random() % 10 == 0;
      const std::string value = clears ? "\"\"" : AnyValue(random, directive);
      if (value.empty()) continue;
      absl::StrAppend(&text, std::string(directive.name), " ",
                      directive.key == Key::kNetwork ? "10/8 "
                      : directive.key == Key::kHost  ? "*.mx.test "
                      : directive.key == Key::kWord  ? "word "
                                                     : "",
                      value, "\n");
    }
  }
  return text;
}

TEST(PrinterTest, WhatIsPrintedCompilesToTheSame) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    std::string text = "<virtual-mta v>\nsmtp-source-host 192.0.2.1 v.test\n";
    absl::StrAppend(&text, AnySettings(random, kVirtualMta), "<domain *>\n",
                    AnySettings(random, kDomain), "</domain>\n</virtual-mta>\n");
    absl::StrAppend(&text, "<virtual-mta-pool p>\nvirtual-mta v\n", AnySettings(random, kPool),
                    "<domain [*.]p.test>\n", AnySettings(random, kDomain),
                    "</domain>\n</virtual-mta-pool>\n");
    absl::StrAppend(&text, AnySettings(random, kGlobal), "domain-macro big a.test, *.b.test\n",
                    "<domain $big>\n", AnySettings(random, kDomain), "</domain>\n<domain [10/8]>\n",
                    AnySettings(random, kDomain), "</domain>\n<source 192.0.2.1>\n",
                    AnySettings(random, kSource), "</source>\n<source *>\n</source>\n");
    ExpectRoundTrip(text);
    if (HasFailure()) return;
  }
}

TEST(PrinterTest, SectionsOfPatternsAndListeners) {
  ExpectRoundTrip(
      "<virtual-mta v>\n</virtual-mta>\n<source partners>\nrequire-auth yes\n</source>\n"
      "smtp-listener 192.0.2.1:25 source=partners\n<source-group g>\nmax-smtp-in 5\n"
      "</source-group>\n<source 10/8>\nsource-group g\npattern-list p\n</source>\n"
      "<pattern-list p>\nmail-from /news\\/|\\\\/ virtual-mta=v\nheader Subject /a \"b\"/Is "
      "virtual-mta=v\nrcpt-to /(?i)x/I virtual-mta=v\n</pattern-list>\n"
      "alias a@b.test c@d.test\nrelay-address x@y.test\nrelay-address /^(a)\\1@/\n"
      "pickup /in /bad\n<smtp-pattern-list s>\nreply /busy/ mode=backoff,skip-mx "
      "backoff-to-normal-after=1h\nreply /x/ bounce-queue disable-source-ip reenable-after=1h30m "
      "defer-queue=no\n</smtp-pattern-list>\n<bounce-category-patterns>\n/5\\.1\\.1/ "
      "bad-mailbox\n</bounce-category-patterns>\n<mx-rollup-list>\nmx *.x.test all.rollup\n"
      "</mx-rollup-list>\n");
  ExpectRoundTrip(
      "<smtp-pattern 4xx>\npattern ^4[0-9]2\npattern \"^45 # two words\"\ninitial-pts 60\n"
      "max-pts 1h\n</smtp-pattern>\n<domain a.test>\n<smtp-pattern b>\npattern /x \"y\" z/I\n"
      "</smtp-pattern>\nbackoff-trigger-pattern \"too many\"\nbackoff-trigger-pattern /a b/\n"
      "</domain>\n<smtp-pattern-list n>\nreply /x/ skip-mx=no\n</smtp-pattern-list>\n"
      "<source-pool 192.0.2.0/30>\nrandom-ip yes\nmax-smtp-out 7\n</source-pool>\n"
      "<virtual-mta r>\nsource-pool 192.0.2.0/30\n</virtual-mta>\n");
  ExpectRoundTrip(
      "<domain a.test>\n<limits throttle 5/h>\nerror-throttle 1/30s on 4xx,550\n</limits>\n"
      "</domain>\n<virtual-mta l>\n<domain a.test>\n<limits>\nthrottle unlimited\n</limits>\n"
      "</domain>\n</virtual-mta>\n");
  EXPECT_EQ(PrintRegex("(?i)a/b\\d"), "/a\\/b\\d/");
  EXPECT_EQ(PrintRegex("(?si)\\\\/"), "/(?si)\\\\\\//I");
}

TEST(PrinterTest, ABindingIsPrintedAsADomainOfItsVirtualMta) {
  ExpectRoundTrip(
      "<virtual-mta v>\nsmtp-source-host 192.0.2.1 v.test\nsmtp-source-host 192.0.2.2 v.test\n"
      "</virtual-mta>\n<bind source-vmta=v destination-domain=x.test>\n"
      "source-interface 192.0.2.2\nmax-smtp-out 3\n</bind>\n");
}

TEST(PrinterTest, ClearedValuesStayCleared) {
  ExpectRoundTrip("smtp-greeting \"\"\n<domain a.test>\nsmtp-hosts \"\"\nqueue-to \"\"\n</domain>");
}

TEST(PrinterTest, LinesAreAsOperatorsWriteThem) {
  const Compiled compiled = CompileOrFail(
      "<domain a.test>\nmax-msg-rate 1000/hour\nbounce-after 6480m\nsmtp-route x.test,y.test:26\n"
      "notify-of-delay-every never\nretry-after 600,1800\n</domain>\nmax-message-size 52428800\n");
  EXPECT_EQ(PrintSnapshot(compiled.snapshot),
            "max-message-size 50M\n"
            "\n<virtual-mta default>\n</virtual-mta>\n"
            "\n<domain a.test>\n"
            "  max-msg-rate 1000/h\n"
            "  bounce-after 4d12h\n"
            "  retry-after 10m,30m\n"
            "  smtp-hosts x.test y.test:26\n"
            "  notify-of-delay-every never\n"
            "</domain>\n");
}

}  // namespace
}  // namespace sluice::config
