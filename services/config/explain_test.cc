// `config explain` says what PolicyView says, and names the line. Five configurations in the style
// of large senders, with golden files of what holds for some of their queues, clients and
// addresses.
#include "services/config/explain.h"

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/config/policy_view.h"
#include "services/config/printer.h"
#include "services/config/registry.h"
#include "services/config/semantic_checks.h"
#include "services/config/snapshot_hash.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

constexpr char kFolder[] = "services/config/testdata/realistic/";

struct Case {
  const char* name;
  std::vector<std::array<const char*, 3>> queues;  // domain, virtual MTA, pool
  std::vector<const char*> clients;
  std::vector<const char*> sources;
};

const std::vector<Case>& Cases() {
  static const auto* const cases = new std::vector<Case>{
      {"newsletter",
       {{"gmail.com", "m1", "marketing"},
        {"googlemail.com", "m2", "marketing"},
        {"gmail.com", "t1", "transactional"},
        {"hotmail.com", "m1", "marketing"},
        {"aol.com", "m2", "marketing"},
        {"other.example", "m1", ""}},
       {"10.1.2.3", "10.9.0.1", "127.0.0.1", "192.0.2.99"},
       {"192.0.2.11"}},
      {"transactional",
       {{"deep.pager.example", "alerts", ""},
        {"partner.example", "receipts", ""},
        {"a.example", "receipts", ""}},
       {"10.1.7.7", "10.2.0.1"},
       {"198.51.100.2", "198.51.100.1"}},
      {"esp",
       {{"x.edu.example", "bolt", ""},
        {"campus.edu.example", "bolt", ""},
        {"edu.example", "bolt", ""},
        {"old.example", "acme", ""}},
       {"172.16.5.5", "8.8.8.8", "2001:db8::1"},
       {"203.0.113.3", "203.0.113.33"}},
      {"corporate",
       {{"corp.example", "default", ""},
        {"lab.corp.example", "default", ""},
        {"[10.3.3.3]", "default", ""},
        {"world.example", "default", ""}},
       {"10.4.4.4"},
       {}},
      {"warmup",
       {{"gmail.com", "fresh", ""}, {"gmail.com", "old", ""}, {"b.example", "fresh", ""}},
       {"127.0.0.1"},
       {"192.0.2.200", "192.0.2.100"}},
  };
  return *cases;
}

Compiled CompileCase(const std::string& name) {
  DiskFiles files;
  CompileOptions options;
  options.keep_origins = true;
  Compiled compiled = Compile({absl::StrCat(kFolder, name, ".conf")}, files, options);
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  return compiled;
}

std::string Report(const Case& c, const Compiled& compiled) {
  std::string report = "== outside of sections\n" + RenderExplained(ExplainGlobal(compiled), false);
  for (const auto& [domain, vmta, pool] : c.queues) {
    absl::StrAppend(&report, "== queue ", domain, "/", vmta, " ", pool, "\n",
                    RenderExplained(ExplainQueue(compiled, domain, vmta, pool), false));
  }
  for (const char* ip : c.clients) {
    absl::StrAppend(&report, "== client ", ip, "\n",
                    RenderExplained(ExplainClient(compiled, ip), false));
  }
  for (const char* ip : c.sources) {
    absl::StrAppend(&report, "== source ", ip, "\n",
                    RenderExplained(ExplainSource(compiled, ip), false));
  }
  const size_t folder = sizeof(kFolder) - 1;
  for (size_t at = report.find(kFolder); at != report.npos; at = report.find(kFolder, at)) {
    report.erase(at, folder);
  }
  return report;
}

TEST(ExplainTest, RealisticConfigurations) {
  for (const Case& c : Cases()) {
    const std::string report = Report(c, CompileCase(c.name));
    const std::string name = absl::StrCat(c.name, ".explained");
    if (const char* const folder = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR")) {
      std::ofstream(absl::StrCat(folder, "/", name)) << report;
    }
    std::ifstream file(kFolder + name);
    std::stringstream golden;
    golden << file.rdbuf();
    EXPECT_EQ(report, golden.str()) << c.name;
  }
}

template <class Settings>
void ExpectSame(const std::vector<ExplainedSetting>& explained, const Settings& settings,
                Target target, Scope scope) {
  for (const ExplainedSetting& setting : explained) {
    const Directive* const directive = FindDirective(scope, setting.directive);
    if (directive == nullptr || directive->target != target) continue;
    const auto values = PrintValues(*directive, settings);
    ASSERT_FALSE(values.empty()) << setting.directive;
    EXPECT_EQ(setting.value.substr(0, values[0].size()), values[0]) << setting.directive;
  }
}

TEST(ExplainTest, SaysWhatPolicyViewSays) {
  for (const Case& c : Cases()) {
    const Compiled compiled = CompileCase(c.name);
    const auto view = *PolicyView::Build(compiled.snapshot);
    for (const auto& [domain, vmta, pool] : c.queues) {
      ExpectSame(ExplainQueue(compiled, domain, vmta, pool), *view->ForQueue(domain, vmta, pool),
                 Target::kQueueSettings, kDomain);
    }
    for (const char* ip : c.clients) {
      ExpectSame(ExplainClient(compiled, ip), *view->ForClient(ip), Target::kClientSettings,
                 kSource);
    }
  }
}

TEST(ExplainTest, PrintedConfigurationsAreTheSame) {
  DiskFiles files;
  for (const Case& c : Cases()) {
    const Compiled compiled = CompileCase(c.name);
    const Compiled again = CompileText("printed", PrintSnapshot(compiled.snapshot, true), files);
    EXPECT_EQ(SectionsHash(compiled.snapshot), SectionsHash(again.snapshot)) << c.name;
  }
}

// Everything in them is in force, and nothing is doubtful.
TEST(ExplainTest, RealisticConfigurationsPassTheCheck) {
  DiskFiles files;
  for (const Case& c : Cases()) {
    const Compiled compiled = CompileCase(c.name);
    EXPECT_EQ(Render(compiled.diagnostics), "") << c.name;
    EXPECT_EQ(Render(CheckSemantics(compiled, files, std::nullopt)), "") << c.name;
    EXPECT_EQ(compiled.tally.planned + compiled.tally.no_meaning + compiled.tally.unsupported, 0u);
    EXPECT_GT(compiled.tally.effective + compiled.tally.aliases, 20u) << c.name;
  }
}

// Where an address comes from that no smtp-listener line says.
TEST(ExplainTest, ListenersOfAPortSayTheLineOfThePort) {
  testing::MemoryFiles files;
  CompileOptions options;
  options.keep_origins = true;
  const auto where = [&](const std::string& text) {
    for (const auto& setting : ExplainGlobal(CompileText("f", text, files, options))) {
      if (setting.directive == "smtp-listener") return setting.value + " " + setting.where;
    }
    return std::string();
  };
  EXPECT_EQ(where("host-name a.test\nsmtp-port 2525\n"), "0.0.0.0:2525 f:2");
  EXPECT_EQ(where("smtp-port 2525\nsmtp-ip 192.0.2.1\n"), "192.0.2.1:2525 f:2");
  EXPECT_EQ(where("smtp-listener 192.0.2.1:25\n"), "192.0.2.1:25 f:1");
}

TEST(ExplainTest, PoolsAndWhatIsNoName) {
  const Compiled compiled = CompileCase("newsletter");
  ExplainQuestion question;
  question.vmta = "Marketing";
  const auto pool = Explain(compiled, question);
  ASSERT_TRUE(pool.ok());
  ASSERT_EQ(pool->subjects.size(), 1u);
  EXPECT_EQ(pool->subjects[0].second.back().value, "m1 m2");
  question = {};
  question.domain = "GMAIL.com.";
  EXPECT_EQ(Explain(compiled, question)->subjects[0].first,
            "queue gmail.com/* (no virtual MTA's own)");
  question.domain = "gmail..com";
  EXPECT_TRUE(absl::IsInvalidArgument(Explain(compiled, question).status()));
  question = {};
  question.source = "192.0.2";
  EXPECT_TRUE(absl::IsInvalidArgument(Explain(compiled, question).status()));
}

TEST(ExplainTest, LimitsOfTheCluster) {
  testing::MemoryFiles files;
  CompileOptions options;
  options.keep_origins = true;
  const Compiled compiled = CompileText(
      "a.conf",
      "<domain *>\n<limits>\nthrottle 5/h\nerror-throttle 2/m on 4xx\n</limits>\n</domain>\n"
      "<domain a.test>\n<limits throttle 9/h>\n</limits>\n</domain>\n",
      files, options);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  std::string said;
  for (const ExplainedSetting& setting : ExplainQueue(compiled, "a.test", "v", "")) {
    if (!setting.directive.starts_with("limits")) continue;
    said += setting.directive + " = " + setting.value + " from " + setting.where + "\n";
  }
  EXPECT_EQ(
      said,
      "limits throttle = 9/h (all mail to the domain, by the whole cluster) from a.conf:8\n"
      "limits error-throttle = 2/m on 4xx (all mail to the domain, by the whole cluster) from "
      "a.conf:4\n");
}

TEST(ExplainTest, ARollupIsShownForTheMxAndNoted) {
  testing::MemoryFiles files;
  CompileOptions options;
  options.keep_origins = true;
  const Compiled compiled =
      CompileText("/k/a.conf",
                  "<mx-rollup-list>\nmx *.google.com gmail.rollup\n</mx-rollup-list>\n"
                  "<domain gmail.rollup>\nmax-smtp-out 7\n</domain>\n"
                  "<domain x.example>\nmax-smtp-out 3\nrequire-starttls yes\n</domain>\n"
                  "<domain y.example>\nmax-smtp-out 3\ndisable-mx-rollup yes\n</domain>\n"
                  "<domain z.example>\nmax-smtp-out 3\nsmtp-hosts relay.example\n</domain>\n",
                  files, options);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  const auto explain = [&](const std::string& domain, const std::string& mx) {
    ExplainQuestion question;
    question.domain = domain;
    question.mx = mx;
    auto answer = Explain(compiled, question);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return *std::move(answer);
  };
  const auto out = [](const Explanation& answer) {
    for (const auto& setting : answer.subjects.at(0).second) {
      if (setting.directive == "max-smtp-out") return setting.value + " " + setting.where;
    }
    return std::string();
  };
  const auto rolled = explain("x.example", "ASPMX.l.google.com");
  EXPECT_EQ(rolled.subjects[0].first,
            "queue x.example/* (no virtual MTA's own), which is of gmail.rollup/* (no virtual "
            "MTA's own) (mx *.google.com gmail.rollup)");
  EXPECT_EQ(out(rolled), "7 /k/a.conf:5");
  EXPECT_EQ(rolled.notes,
            std::vector<std::string>{"require-starttls yes of x.example holds all the same"});
  EXPECT_EQ(out(explain("x.example", "mx.elsewhere.example")), "3 /k/a.conf:8");
  EXPECT_EQ(out(explain("y.example", "aspmx.l.google.com")), "3 /k/a.conf:12");
  EXPECT_EQ(out(explain("z.example", "aspmx.l.google.com")), "3 /k/a.conf:16");
  EXPECT_NE(explain("x.example", "").notes.at(0).find("give --mx HOST"), std::string::npos);
  EXPECT_EQ(explain("gmail.rollup", "").notes.at(0),
            "of all domains whose best MX matches *.google.com together (<mx-rollup-list>)");
}

TEST(ExplainTest, SecretsAndUnknownNames) {
  const Compiled compiled = CompileCase("newsletter");
  EXPECT_TRUE(ExplainVirtualMta(compiled, "nobody").empty());
  EXPECT_FALSE(ExplainVirtualMta(compiled, "M1").empty());
  EXPECT_EQ(PoolsOf(compiled.snapshot, "M2"), std::vector<std::string>{"marketing"});
}

}  // namespace
}  // namespace sluice::config
