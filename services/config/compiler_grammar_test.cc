// Values that name something - hosts, domains, addresses, header fields, files - are read as what
// they name, in every section that takes them: what is no such name is an error at its place.
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/registry.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::Complaint;
using testing::ViewOf;

using Words = std::vector<std::string>;

// Not the names of things of that kind, though somebody may write them.
Words BadOnes(Grammar grammar) {
  switch (grammar) {
    case Grammar::kHostName:
      return {"192.0.2.1", "300.1.1.1", "-a.test",  "a-.test",   "a..test",      "a_b.test/",
              "a b.test",  ".a.test",   "*.a.test", "a.test:25", "http://a.test"};
    case Grammar::kDomains:
      return {"*.a.test", "a@b.test", "192.0.2.1", "a..test"};
    case Grammar::kDomainPatterns:
      return {"*", "[10/8]", "*a.test", "[*]a.test", "a.*", "@a.test"};
    case Grammar::kIp:
    case Grammar::kIps:
      return {"192.0.2", "192.0.2.256", "192.0.2.1:25", "2001:db8::g", "a.test", "192.0.2.0/24"};
    case Grammar::kIpPorts:
      return {"a.test:25",  "192.0.2.1:0",   "192.0.2.1:65536",
              "192.0.2.1:", "2001:db8::1:x", "192.0.2.0/24:25"};
    case Grammar::kHostPorts:
      return {"a.test:0", "a.test:65536", "a.test:smtp",  "300.1.1.1",
              "a..test",  "[2001:db8::1", "smtp://a.test"};
    case Grammar::kEmail:
    case Grammar::kEmails:
      return {"a",           "a@",         "@a.test",     "a@b@c.test",
              "a..b@c.test", ".a@b.test",  "a.@b.test",   "a@192.0.2.1",
              "a@[192.0.2]", "a@b_.test-", "a(b)@c.test", "\"Ann Lee <a@b.test>\""};
    case Grammar::kHeader:
      return {"\"X Job\"", "X:Job", "::"};
    case Grammar::kHeaders:
      return {"X\xc3\xb6", ":"};
    case Grammar::kQueueName:
      return {"a.test/v/w"};
    case Grammar::kUrl:
      return {"a.test/x", "ftp://a.test", "http://", "http:///x", "https://a..test/"};
    default:
      return {};
  }
}

// Where the value may stand, as a file with a place for the line.
std::string In(Scope scope, const std::string& line) {
  const std::string vmta = "<virtual-mta v>\nsmtp-source-host 192.0.2.9 v.test\n";
  switch (scope) {
    case kGlobal:
      return line + "\n";
    case kVirtualMta:
      return vmta + line + "\n</virtual-mta>\n";
    case kDomain:
      return vmta + "<domain a.test>\n" + line + "\n</domain>\n</virtual-mta>\n";
    case kSource:
      return "<source 192.0.2.1>\n" + line + "\n</source>\n";
    default:
      return "";
  }
}

TEST(CompilerGrammarTest, NoNameIsTakenForAName) {
  size_t tried = 0;
  for (const Directive& directive : AllDirectives()) {
    if (directive.name == "domain-macro" || directive.status != Status::kActive) continue;
    for (const Scope scope : {kGlobal, kVirtualMta, kDomain, kSource}) {
      if ((directive.scopes & scope) == 0) continue;
      std::vector<std::string_view> names = directive.aliases;
      names.push_back(directive.name);
      for (const std::string_view name : names) {
        for (const std::string& bad : BadOnes(directive.grammar)) {
          const std::string line = std::string(name) + " " + bad;
          const Compiled compiled = CompileOne(In(scope, line));
          EXPECT_FALSE(compiled.ok()) << ScopeName(scope) << " " << line;
          ++tried;
        }
      }
    }
  }
  EXPECT_GE(tried, 300u);
}

TEST(CompilerGrammarTest, ThePlaceIsNamed) {
  EXPECT_EQ(Complaint("<source 10/8>\n\tjobid-header X Job\n</source>\n"),
            "a.conf:2:15: error: \"X Job\" is no value of jobid-header; it is written HEADER\n"
            "   jobid-header X Job\n"
            "                ^");
}

TEST(CompilerGrammarTest, WhatIsKept) {
  const auto view = ViewOf(
      "relay-domain [*.]Relay.test, *.Sub.test plain.test.\npostmaster Ann.O'Neil+x@Example.TEST\n"
      "smtp-greeting \"ready, go\"\n<source 10/8>\njobid-header X-Campaign:\n"
      "remove-header X-One:X-Two, X-Three\nbcc arch@[IPv6:2001:DB8::1]\n</source>\n"
      "<virtual-mta v>\nsmtp-source-host 10.0.0.1 v.test\n</virtual-mta>\n"
      "<virtual-mta-pool p>\nvirtual-mta v\n</virtual-mta-pool>\n"
      "<domain a.test>\nqueue-to B.test/V\n</domain>\n<domain b.test>\nqueue-to b.test/p\n"
      "</domain>\n<source {auth}>\ndefault-virtual-mta By-SMTP-Source-IP\n</source>\n");
  EXPECT_EQ(view->global().relay_domains().values(0), "[*.]relay.test");
  EXPECT_EQ(view->global().relay_domains().values(1), "*.sub.test");
  EXPECT_EQ(view->global().relay_domains().values(2), "plain.test");
  EXPECT_EQ(view->global().postmaster(), "Ann.O'Neil+x@example.test");
  EXPECT_EQ(view->global().smtp_greeting(), "ready, go");
  const auto client = view->ForClient("10.0.0.1");
  EXPECT_EQ(client->jobid_header(), "X-Campaign");
  ASSERT_EQ(client->remove_header().values_size(), 3);
  EXPECT_EQ(client->remove_header().values(1), "X-Two");
  EXPECT_EQ(client->bcc(), "arch@[IPv6:2001:db8::1]");
  EXPECT_EQ(view->ForQueue("a.test", "v", "")->queue_to(), "b.test/V");
  EXPECT_EQ(view->ForClientOf("10.0.0.1", {"{auth}"})->default_virtual_mta(), "by-smtp-source-ip");
}

// Lines that the compiler reads itself.
TEST(CompilerGrammarTest, LinesOfTheirOwn) {
  for (const char* text :
       {"queue-to b.test",
        "<domain a.test>\nqueue-to b.test/none\n</domain>",
        "domain-macro a,b c.test",
        "domain-macro $a c.test",
        "<virtual-mta v>\nsource-pool 192.0.2.0/30 192.0.2.8/30\n</virtual-mta>",
        "<source-pool 192.0.2.0/30>\nmax-smtp-out 5 6\n</source-pool>",
        "pickup /in \"/b\x01\"",
        "<spool \"/a\x01\">\n</spool>",
        "auth-plain a b",
        "log-file /a b",
        "alias a@b@c.test x@y.test",
        "alias a..b x@y.test",
        "relay-address a@b@c.test",
        "custom-dsn-from-header \"Mail\rX: y <a@b.test>\"",
        "custom-dsn-from-header MAILER-DAEMON",
        "dsn-failed-from-template \"Mail <${subject}>\"",
        "dsn-failed-subject-template \"a\rb\"",
        "smtp-greeting \"caf\xc3\xa9\"",
        "http-delivery-header \"no colon\"",
        "relay-domain *",
        "<pattern-list p>\nheader X\xc3\xb6 /x/ virtual-mta=default\n</pattern-list>",
        "<bounce-processor>\n<address-list>\naddress /(/\n</address-list>\n</bounce-processor>",
        "dkim-identity a@b@c.test",
        "dkim-selector a..b",
        "smtp-hosts 300.1.1.1"}) {
    EXPECT_FALSE(CompileOne(text).ok()) << text;
  }
  const auto view = ViewOf(
      "pickup /in /bad\npickup /in /other\npickup /second /bad\n"
      "custom-dsn-from-header \"Mail System <mailer-daemon@${host}>\"\n"
      "dsn-failed-from-template postmaster@a.test\n");
  ASSERT_EQ(view->global().pickups_size(), 2);
  EXPECT_EQ(view->global().pickups(0).bad_folder(), "/other");
}

}  // namespace
}  // namespace sluice::config
