#include "services/config/compiler.h"

#include <map>

#include "gtest/gtest.h"
#include "services/config/policy_view.h"
#include "services/config/snapshot_hash.h"
#include "services/config/testing/compile.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::MemoryFiles;
using testing::ViewOf;

// The first diagnostic of a text that has exactly one.
std::string Complaint(const std::string& text) {
  const Compiled compiled = CompileOne(text);
  EXPECT_EQ(compiled.diagnostics.size(), 1u) << Render(compiled.diagnostics);
  return compiled.diagnostics.empty() ? "" : compiled.diagnostics[0].ToString();
}

constexpr char kQuickstart[] = R"(
host-name mx.example.net
postmaster postmaster@example.net
max-message-size 50M
smtp-listener 127.0.0.1:2525
smtp-listener [::1]:2525
name-server 127.0.0.1:5353

<source 127.0.0.0/8>
  always-allow-relaying yes
  default-virtual-mta marketing
  process-x-virtual-mta yes
  process-x-job yes
</source>
<virtual-mta news>
  smtp-source-host 127.0.0.2 news.example.net
  max-smtp-out 7
  <domain slow.example>
    max-smtp-out 1
  </domain>
</virtual-mta>
<virtual-mta Offers>
  smtp-source-host 127.0.0.3
</virtual-mta>
<virtual-mta-pool marketing>
  virtual-mta news
  virtual-mta offers
</virtual-mta-pool>
<domain *>
  max-smtp-out 20
  retry-after 10m,30m,1h
  bounce-after 4d12h
</domain>
<domain slow.example>
  max-smtp-out 2
  max-msg-rate 200/s
  smtp-route relay.example:26, [::1]:27
</domain>
)";

TEST(CompilerTest, AFileBecomesSettings) {
  const auto view = ViewOf(kQuickstart);
  EXPECT_EQ(view->global().host_name(), "mx.example.net");
  EXPECT_EQ(view->global().max_message_size(), uint64_t{50} << 20);
  ASSERT_EQ(view->global().smtp_listeners().values_size(), 2);
  EXPECT_EQ(view->global().smtp_listeners().values(1), "[::1]:2525");
  EXPECT_EQ(view->global().name_servers().values(0), "127.0.0.1:5353");

  EXPECT_TRUE(view->ForClient("127.0.0.9")->process_x_job());
  EXPECT_EQ(view->ForClient("127.0.0.9")->default_virtual_mta(), "marketing");
  EXPECT_FALSE(view->ForClient("192.0.2.1")->allow_relay());

  ASSERT_NE(view->FindVirtualMta("NEWS"), nullptr);
  EXPECT_EQ(view->FindVirtualMta("news")->source_hosts(0).host_name(), "news.example.net");
  EXPECT_EQ(view->FindVirtualMta("news")->max_smtp_out(), 7u);
  EXPECT_EQ(view->FindVirtualMta("offers")->source_hosts(0).host_name(), "mx.example.net");
  ASSERT_NE(view->FindPool("marketing"), nullptr);
  EXPECT_EQ(view->FindPool("marketing")->virtual_mtas(1), "Offers");
  EXPECT_NE(view->FindVirtualMta("default"), nullptr);

  EXPECT_EQ(view->ForQueue("other.example", "news", "")->retry_after().us_size(), 3);
  EXPECT_EQ(view->ForQueue("slow.example", "offers", "")->max_smtp_out(), 2u);
  EXPECT_EQ(view->ForQueue("slow.example", "news", "")->max_smtp_out(), 1u);
  EXPECT_EQ(view->ForQueue("slow.example", "news", "")->smtp_hosts().values(1), "[::1]:27");
  EXPECT_EQ(view->ForQueue("slow.example", "news", "")->max_msg_rate().count(), 200u);
}

TEST(CompilerTest, SameMeaningSameHashWhateverTheOrderAndLineEnds) {
  const Compiled one = CompileOne("host-name a.test\n<domain b>\nmax-smtp-out 1\n</domain>\n");
  const Compiled two =
      CompileOne("\xEF\xBB\xBF<DOMAIN B> # x\r\n  Max-Smtp-Out 1\r\n</domain>\r\nhostname a.test");
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(SectionsHash(one.snapshot), SectionsHash(two.snapshot));
  const Compiled three = CompileOne("host-name a.test\n<domain b>\nmax-smtp-out 2\n</domain>\n");
  EXPECT_NE(SectionsHash(one.snapshot), SectionsHash(three.snapshot));
}

TEST(CompilerTest, ErrorsNameThePlaceAndTheRemedy) {
  EXPECT_EQ(Complaint("host-name a.test\n<domain x>\n  max-smpt-out 5\n</domain>\n"),
            "a.conf:3:3: error: unknown directive \"max-smpt-out\" in <domain>\n"
            "    max-smpt-out 5\n"
            "    ^\n"
            "  did you mean \"max-smtp-out\"?");
  EXPECT_EQ(Complaint("<virtual-mta news>\n</virtual-mta>\n<virtual-mta-pool p>\n"
                      "  virtual-mta nwes\n</virtual-mta-pool>\n"),
            "a.conf:4:15: error: there is no virtual MTA \"nwes\"\n"
            "    virtual-mta nwes\n"
            "                ^\n"
            "  did you mean \"news\"?");
  EXPECT_EQ(Complaint("domain-macro a b.test,$a\n"),
            "a.conf:1:16: error: there is no domain-macro \"a\" above\n"
            "  domain-macro a b.test,$a\n"
            "                 ^");
  EXPECT_EQ(Complaint("retry-after soon\n"),
            "a.conf:1:13: error: \"soon\" is no value of retry-after; it is written "
            "TIME,TIME,... (10m,30m,1h)\n"
            "  retry-after soon\n"
            "              ^");
  EXPECT_EQ(Complaint("<source *>\n\nuse-danne yes\n</source>\n"),
            "a.conf:3:1: error: unknown directive \"use-danne\" in <source>\n"
            "  use-danne yes\n"
            "  ^\n"
            "  did you mean \"use-dane\"? it belongs in: global, <virtual-mta>, <domain>");
}

// Of a list that goes on in further lines, the line and the word are named.
TEST(CompilerTest, AnErrorInAFurtherLineIsShownThere) {
  EXPECT_EQ(Complaint("domain-macro m a.test,\n# and\n  b.test, c..d,\n  e.test\n"),
            "a.conf:3:11: error: \"c..d\" is no domain\n"
            "    b.test, c..d,\n"
            "            ^");
  EXPECT_EQ(Complaint("retry-after 10m,\n  30m, soon,\n  1h\n"),
            "a.conf:2:8: error: \"soon\" is no value of retry-after; it is written "
            "TIME,TIME,... (10m,30m,1h)\n"
            "    30m, soon,\n"
            "         ^");
  const Compiled secret = CompileOne("auth-password a,\n  hunter2, hunter2\n\tx\n");
  EXPECT_EQ(Render(secret.diagnostics).find("hunter2"), std::string::npos);
}

// One mistake, one message: what comes after the forgotten end is read as it was meant.
TEST(CompilerTest, AForgottenEndOfASectionIsSaidOnce) {
  const Compiled compiled = CompileOne(
      "<virtual-mta a>\nmax-smtp-out 5\n<virtual-mta b>\nmax-smtp-out 6\n<domain x.test>\n"
      "max-smtp-out 7\n<domain y.test>\nmax-smtp-out 8\n</domain>\n</virtual-mta>\n"
      "domain-macro z z.test\n");
  EXPECT_EQ(Render(compiled.diagnostics),
            "a.conf:3:1: error: <virtual-mta> may not be inside <virtual-mta>\n"
            "  <virtual-mta b>\n"
            "  ^\n"
            "  is </virtual-mta> missing above? the other one begins in line 1\n"
            "a.conf:7:1: error: <domain> may not be inside <domain>\n"
            "  <domain y.test>\n"
            "  ^\n"
            "  is </domain> missing above? the other one begins in line 5\n");
}

TEST(CompilerTest, EveryKindOfMistakeIsAnError) {
  for (const char* text : {
           "no-such-directive yes",
           "<domain x>\n",
           "</domain>",
           "<domain x>\n</source>\n</domain>",
           "<domain x>\n<source 10/8>\n</source>\n</domain>",
           "<domain a..b>\n</domain>",
           "<domain>\n</domain>",
           "<source nowhere>\n</source>",
           "<source 10.0.0.1/8>\n</source>",
           "<source 10/8>\nmax-msg-rate 5/s\n</source>",
           "<nonsense>\n</nonsense>",
           "<virtual-mta a/b>\n</virtual-mta>",
           "<virtual-mta a>\nsmtp-source-host 300.1.1.1 x\n</virtual-mta>",
           "<virtual-mta a>\nsmtp-source-host 0.0.0.0 x\n</virtual-mta>",
           "<virtual-mta-pool p>\nvirtual-mta nobody\n</virtual-mta-pool>",
           "<virtual-mta-pool p>\n</virtual-mta-pool>",
           "default-virtual-mta nobody",
           "max-smtp-out",
           "max-smtp-out -1",
           "default-smtp-port 70000",
           "max-message-size 1",
           "smtp-listener somewhere",
           "postmaster nobody",
           "dsn-return-default some",
           "host-name \"\x01\"",
           "smtp-client-certificate a b c",
           "smtp-server-tls-certificate",
           "<domain $m>\n</domain>",
           "domain-macro m",
           "include",
           "include missing.conf",
           "include http://x/y",
           "host-name \"open",
       }) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.ok()) << text;
    for (const Diagnostic& diagnostic : compiled.diagnostics) {
      EXPECT_TRUE(diagnostic.ToString().starts_with("a.conf:")) << diagnostic.ToString();
    }
  }
}

TEST(CompilerTest, WhatHasNoEffectIsAWarning) {
  const Compiled compiled = CompileOne(
      "run-as-root no\n<acct-file /var/log/a.csv>\n  records d,b\n  max-size 5M\n</acct-file>\n"
      "<domain *>\ndk-sign yes\ndkim-sign yes\n</domain>\n");
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  // The section is named once, not line by line.
  EXPECT_EQ(compiled.diagnostics.size(), 4u) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.tally.no_meaning, 1u);
  EXPECT_EQ(compiled.tally.unsupported, 1u);
  EXPECT_EQ(compiled.tally.planned, 3u);
  EXPECT_FALSE(CompileOne("<acct-file /var/log/a.csv>\nmax-size large\n</acct-file>").ok());
}

// A directive that does what it says, but for one value.
TEST(CompilerTest, AValueThatDoesNothingIsAWarning) {
  for (const char* value : {"system", "System"}) {
    const Compiled compiled = CompileOne(std::string("<smtp-user u>\nauthentication-method ") +
                                         value + "\n</smtp-user>\n");
    EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
    ASSERT_EQ(compiled.diagnostics.size(), 1u) << Render(compiled.diagnostics);
    EXPECT_EQ(compiled.diagnostics[0].where.line, 2);
    EXPECT_NE(compiled.diagnostics[0].message.find(
                  "authentication-method system is unsupported and has no effect: it lets nobody"),
              std::string::npos)
        << compiled.diagnostics[0].message;
    EXPECT_EQ(compiled.tally.unsupported, 1u);
    EXPECT_EQ(compiled.tally.effective, 0u);
  }
  const Compiled password =
      CompileOne("<smtp-user u>\nauthentication-method password\npassword x\n</smtp-user>\n");
  EXPECT_TRUE(password.diagnostics.empty()) << Render(password.diagnostics);
  EXPECT_EQ(password.tally.effective, 2u);
}

TEST(CompilerTest, LimitsInEverySpelling) {
  const Compiled compiled = CompileOne(
      "<virtual-mta v>\n<domain a.test>\n<limits throttle 7/min>\n</limits>\n</domain>\n"
      "</virtual-mta>\n"
      "<virtual-mta-pool p>\nvirtual-mta v\n<domain a.test>\n<limits>\nthrottle 8/min\n"
      "</limits>\n</domain>\n</virtual-mta-pool>\n"
      "<domain *>\n<limits>\nerror-throttle 10/hour on 4xx,5xx\n</limits>\n</domain>\n"
      "<domain a.test>\n<limits throttle 500/hour>\ndefer-throttle 5/h on 421, 450\n</limits>\n"
      "</domain>\n"
      "<bind source-vmta=\"v\" destination-domain=\"b.test\">\n<limits throttle 9/min>\n"
      "</limits>\n</bind>\n"
      "<domain free.test>\n<limits throttle unlimited>\n</limits>\n</domain>\n");
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  const auto view = *PolicyView::Build(compiled.snapshot);
  const auto a = view->ForQueue("a.test", "v", "p");
  EXPECT_EQ(a->domain_throttle().rate().count(), 500u);
  EXPECT_EQ(a->domain_throttle().rate().period_us(), 3'600'000'000u);
  EXPECT_EQ(a->pool_throttle().rate().count(), 8u);
  EXPECT_EQ(a->binding_throttle().rate().count(), 7u);
  EXPECT_EQ(a->domain_error_throttle().rate().count(), 10u) << "from the general section";
  EXPECT_EQ(a->domain_error_throttle().codes(1), "5xx");
  ASSERT_EQ(a->domain_defer_throttle().codes_size(), 2);
  EXPECT_EQ(a->domain_defer_throttle().codes(1), "450");
  const auto b = view->ForQueue("b.test", "v", "");
  EXPECT_EQ(b->binding_throttle().rate().count(), 9u);
  EXPECT_FALSE(b->has_domain_throttle());
  EXPECT_TRUE(view->ForQueue("free.test", "v", "")->domain_throttle().rate().unlimited());

  for (const char* text : {"<limits>\nthrottle fast\n</limits>", "<limits throttle>\n</limits>",
                           "<limits 5/hour>\n</limits>", "<limits>\nerror-throttle 5/h\n</limits>",
                           "<limits>\nmax-smtp-out 5\n</limits>"}) {
    EXPECT_FALSE(CompileOne("<domain a.test>\n" + std::string(text) + "\n</domain>\n").ok())
        << text;
  }
}

TEST(CompilerTest, WhatRestrictsMayBeGoneWithoutWhenSomebodySaysSo) {
  MemoryFiles files;
  const std::string text =
      "<domain a.test>\nmax-cold-virtual-mta-msg 50/day\n</domain>\n<source 192.0.2.1>\n"
      "<schedule warmup>\n</schedule>\n</source>\n";
  EXPECT_FALSE(CompileText("a.conf", text, files).ok());
  EXPECT_FALSE(CompileText("a.conf", text, files, {{"schedule"}}).ok());
  const Compiled compiled =
      CompileText("a.conf", text, files, {{"schedule", "max-cold-virtual-mta-msg"}});
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.diagnostics.size(), 2u);
}

TEST(CompilerTest, WhatRestrictsAndIsNotThereRefusesTheLoad) {
  for (const char* text : {
           "permanent-bounce-after 7d",
           "<domain a.test>\nmax-cold-virtual-mta-msg 50/day\n</domain>",
           "<source 192.0.2.1>\n<schedule warmup>\n</schedule>\n</source>",
           "<virtual-mta v>\ncold-virtual-mta w\n</virtual-mta>",
       }) {
    const Compiled compiled = CompileOne(text);
    ASSERT_EQ(compiled.diagnostics.size(), 1u) << Render(compiled.diagnostics);
    EXPECT_FALSE(compiled.ok()) << text;
    EXPECT_NE(compiled.diagnostics[0].ToString().find("is not possible in this version"),
              std::string::npos)
        << compiled.diagnostics[0].ToString();
  }
}

TEST(CompilerTest, AValueThatAsksForNoRestrictionIsLetIn) {
  const Compiled compiled = CompileOne(
      "max-smtp-out unlimited\n<domain *>\nrequire-starttls no\ntype smtp\nuse-dane no\n"
      "max-errors-per-connection 0\nmax-connect-rate unlimited\n"
      "source-ip-max-msg-rate 0/0 unlimited\n</domain>\n");
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  // Nothing passes at a rate of 0: that restricts.
  EXPECT_FALSE(CompileOne("<domain *>\nmax-cold-virtual-mta-msg 0\n</domain>").ok());
}

TEST(CompilerTest, TlsOfListenersClientsAndQueues) {
  const auto view = ViewOf(
      "smtp-server-tls-certificate /etc/a.pem\nsmtp-server-tls-certificate /etc/b.pem \"a "
      "secret\"\n"
      "smtp-server-tls-allow-tlsv1.2 no\nsmtp-server-tls-ciphers HIGH:!ADH\n"
      "<smtp-listener 192.0.2.1:465>\nimmediate-tls yes\ntls-certificate c.pem\n"
      "tls-tlsv1.3-ciphersuites TLS_AES_128_GCM_SHA256\n</smtp-listener>\n"
      "<source 192.0.2.0/24>\nallow-starttls yes\n</source>\n"
      "<domain a.test>\nrequire-starttls yes\nsmtp-client-certificate d.pem x\n"
      "smtp-tls-allow-tlsv1.1 no\nreuse-ssl-session yes\n</domain>\n");
  const auto& certificates = view->global().smtp_server_tls_certificates();
  ASSERT_EQ(certificates.values_size(), 2);
  EXPECT_EQ(certificates.values(0).file(), "/etc/a.pem");
  EXPECT_EQ(certificates.values(1).password(), "a secret");
  EXPECT_FALSE(view->global().smtp_server_tls_allow_tlsv1_2());
  EXPECT_TRUE(view->global().smtp_server_tls_allow_tlsv1_3());
  EXPECT_EQ(view->global().smtp_server_tls_ciphers(), "HIGH:!ADH");
  const auto* listener = view->FindListener("192.0.2.1:465");
  ASSERT_NE(listener, nullptr);
  EXPECT_TRUE(listener->immediate_tls());
  EXPECT_EQ(listener->tls_certificates().values(0).file(), "c.pem");
  EXPECT_EQ(listener->tls_ciphersuites(), "TLS_AES_128_GCM_SHA256");
  EXPECT_TRUE(view->ForClient("192.0.2.7")->allow_starttls());
  EXPECT_FALSE(view->ForClient("198.51.100.7")->allow_starttls());
  const auto queue = view->ForQueue("a.test", "v", "");
  EXPECT_TRUE(queue->require_starttls());
  EXPECT_EQ(queue->smtp_client_certificate().file(), "d.pem");
  EXPECT_FALSE(queue->smtp_tls_allow_tlsv1_1());
  EXPECT_TRUE(view->ForQueue("b.test", "v", "")->use_starttls());
  EXPECT_FALSE(view->ForQueue("b.test", "v", "")->require_starttls());
}

TEST(CompilerTest, MacrosRepeatedSectionsAndClearing) {
  const auto view = ViewOf(
      "domain-macro big a.test,\n  b.test\ndomain-macro all $big, c.test\n"
      "<domain $all>\nmax-smtp-out 5\nsmtp-hosts x.test\n</domain>\n"
      "<domain b.test>\nmax-smtp-out 6\n</domain>\n"
      "<domain b.test>\nsmtp-hosts \"\"\nbounce-after 1h\n</domain>\n");
  EXPECT_EQ(view->ForQueue("c.test", "default", "")->max_smtp_out(), 5u);
  const auto b = view->ForQueue("b.test", "default", "");
  EXPECT_EQ(b->max_smtp_out(), 6u);
  EXPECT_EQ(b->smtp_hosts().values_size(), 0);
  EXPECT_EQ(b->bounce_after_us(), int64_t{3600} * 1'000'000);
}

// name "": the default, whatever a more general place said.
TEST(CompilerTest, AnEmptyValueClearsWhateverKindItIs) {
  const auto view = ViewOf(
      "retry-after 1h\nmax-msg-rate 5/h\ntype discard\nuse-starttls no\nbounce-after 1d\n"
      "source-ip-max-smtp-out 10/8 5\nbackoff-trigger-pattern /x/\n<domain a.test>\n"
      "max-smtp-out 3\n</domain>\n<virtual-mta v>\nsmtp-source-host 192.0.2.1 v.test\n"
      "<domain a.test>\nretry-after \"\"\nmax-msg-rate \"\"\ntype \"\"\nuse-starttls \"\"\n"
      "bounce-after \"\"\nmax-smtp-out \"\"\nbackoff-trigger-pattern \"\"\n</domain>\n"
      "</virtual-mta>\n");
  const auto a = view->ForQueue("a.test", "v", "");
  EXPECT_EQ(a->retry_after().us(0), int64_t{600} * 1'000'000);
  EXPECT_TRUE(a->max_msg_rate().unlimited());
  EXPECT_EQ(a->type(), "smtp");
  EXPECT_TRUE(a->use_starttls());
  EXPECT_EQ(a->bounce_after_us(), int64_t{108} * 3600 * 1'000'000);
  EXPECT_EQ(a->max_smtp_out(), 20u);
  EXPECT_EQ(a->backoff_trigger_patterns().values_size(), 0);
  EXPECT_EQ(a->source_ip_max_smtp_out().entries_size(), 1);
  EXPECT_EQ(view->ForQueue("b.test", "v", "")->type(), "discard");
}

TEST(CompilerTest, SourcePoolsAreExpanded) {
  const auto view = ViewOf(
      "<source-pool 192.0.2.0/30>\nmax-smtp-out 9\n</source-pool>\n"
      "<virtual-mta v>\nhost-name out.test\nsource-pool 192.0.2.0/30\n</virtual-mta>\n"
      "<source 192.0.2.1>\nmax-msg-rate 5/m\n</source>\n<source *>\nsmtp-service yes\n</source>");
  const auto* const vmta = view->FindVirtualMta("v");
  ASSERT_EQ(vmta->source_hosts_size(), 4);
  EXPECT_EQ(vmta->source_hosts(3).ip(), "192.0.2.3");
  EXPECT_EQ(vmta->source_hosts(3).host_name(), "out.test");
  EXPECT_EQ(vmta->max_smtp_out(), 9u);
  EXPECT_EQ(view->ForSource("192.0.2.1")->max_msg_rate().count(), 5u);
}

TEST(CompilerTest, ASourcePoolsAddressesMayBeTakenAtRandom) {
  const auto view = ViewOf(
      "<source-pool 192.0.2.0/30>\nrandom-ip yes\n</source-pool>\n"
      "<virtual-mta v>\nsource-pool 192.0.2.0/30\n</virtual-mta>\n"
      "<virtual-mta w>\nsource-pool 192.0.2.0/30\nrandom-ip no\n</virtual-mta>\n");
  EXPECT_TRUE(view->FindVirtualMta("v")->random_ip());
  EXPECT_FALSE(view->FindVirtualMta("w")->random_ip());
}

TEST(CompilerTest, ASendersDomainHasAVirtualMtaOfItsAddresses) {
  const auto view = ViewOf(
      "host-name mx.test\nip 192.0.2.1 domain = Example.com;\nip 192.0.2.7 domain=b.test\n"
      "ip 192.0.2.8 domain = b.test;\n"
      "<virtual-mta both>\nsmtp-source-host 192.0.2.8 eight.test\nsmtp-source-host 192.0.2.1\n"
      "</virtual-mta>\n<virtual-mta one>\nsmtp-source-host 192.0.2.1 one.test\n</virtual-mta>\n");
  ASSERT_EQ(view->global().sender_sources_size(), 2);
  EXPECT_EQ(view->global().sender_sources(0).domain(), "b.test");
  EXPECT_EQ(view->global().sender_sources(0).virtual_mta(), "ip-b.test");
  EXPECT_EQ(view->global().sender_sources(1).virtual_mta(), "one");
  const auto* const made = view->FindVirtualMta("ip-b.test");
  ASSERT_NE(made, nullptr);
  ASSERT_EQ(made->source_hosts_size(), 2);
  EXPECT_EQ(made->source_hosts(0).host_name(), "mx.test");
  EXPECT_EQ(made->source_hosts(1).host_name(), "eight.test");
  EXPECT_FALSE(CompileOne("ip 192.0.2.1 domains = a.test;\n").ok());
}

TEST(CompilerTest, ASourceMayNameItsVirtualMta) {
  const auto view = ViewOf(
      "host-name mx.test\n<source 192.0.2.9>\nvirtual-mta News\nmax-smtp-out 3\n</source>\n"
      "<virtual-mta news>\nsmtp-source-host 192.0.2.8 out.test\n</virtual-mta>\n");
  const auto* const vmta = view->FindVirtualMta("news");
  ASSERT_EQ(vmta->source_hosts_size(), 2);
  EXPECT_EQ(vmta->source_hosts(1).ip(), "192.0.2.9");
  EXPECT_EQ(vmta->source_hosts(1).host_name(), "mx.test");
  EXPECT_EQ(view->ForSource("192.0.2.9")->max_smtp_out(), 3u);

  EXPECT_FALSE(CompileOne("<source 192.0.2.9>\nvirtual-mta none\n</source>").ok());
  EXPECT_FALSE(CompileOne("<virtual-mta v>\n</virtual-mta>\n"
                          "<source 192.0.2.0/24>\nvirtual-mta v\n</source>")
                   .ok());
}

TEST(CompilerTest, TheSmtpPortIsAListenerOnEveryAddress) {
  const auto view = ViewOf("smtp-port 2525\nsmtp-listener 127.0.0.1:25\n");
  ASSERT_EQ(view->global().smtp_listeners().values_size(), 2);
  EXPECT_EQ(view->global().smtp_listeners().values(1), "0.0.0.0:2525");
}

TEST(CompilerTest, ABindingIsADomainOfAVirtualMta) {
  const auto view = ViewOf(
      "<bind source-vmta=\"News\" destination-domain=\"gmail.com\">\nmax-smtp-out 3\n</bind>\n"
      "<virtual-mta news>\nsmtp-source-host 192.0.2.1\n<domain gmail.com>\nmax-smtp-out 9\n"
      "bounce-after 1d\n</domain>\n</virtual-mta>\n"
      "<bind destination-domain=x.test>\nmax-smtp-out 4\n</bind>\n");
  EXPECT_EQ(view->ForQueue("gmail.com", "news", "")->max_smtp_out(), 3u);
  EXPECT_EQ(view->ForQueue("gmail.com", "news", "")->bounce_after_us(), int64_t{86400} * 1'000'000);
  EXPECT_EQ(view->ForQueue("x.test", "default", "")->max_smtp_out(), 4u);
  EXPECT_FALSE(CompileOne("<bind source-vmta=none>\n</bind>").ok());
  EXPECT_FALSE(CompileOne("<bind to=x.test>\n</bind>").ok());
  EXPECT_FALSE(CompileOne("<bind>\n</bind>").ok());
}

TEST(CompilerTest, ABindingsSourceIsOneOfItsVirtualMta) {
  const std::string vmta =
      "<virtual-mta v>\nsmtp-source-host 192.0.2.1 a.test\nsource-pool 192.0.2.8/31\n"
      "<domain y.test>\nsource-interface 192.0.2.1\n</domain>\n</virtual-mta>\n";
  const auto view = ViewOf(vmta +
                           "<bind source-vmta=\"V\" destination-domain=\"x.test\">\n"
                           "source-interface 192.0.2.9\n</bind>\n");
  EXPECT_EQ(view->ForQueue("x.test", "v", "")->source_interface(), "192.0.2.9");
  EXPECT_EQ(view->ForQueue("y.test", "v", "")->source_interface(), "192.0.2.1");
  EXPECT_EQ(view->ForQueue("z.test", "v", "")->source_interface(), "");
  EXPECT_NE(Complaint(vmta + "<bind source-vmta=\"v\">\nsource-interface 192.0.2.2\n</bind>\n")
                .find("the virtual MTA \"v\" has no source 192.0.2.2"),
            std::string::npos);
  for (const char* text : {"<bind destination-domain=\"x.test\">\nsource-interface 192.0.2.1\n"
                           "</bind>\n",
                           "<domain x.test>\nsource-interface 192.0.2.1\n</domain>\n"}) {
    EXPECT_NE(Complaint(vmta + text).find("source-interface is about one virtual MTA"),
              std::string::npos);
  }
}

TEST(CompilerTest, OldNamesOfWhatThereIs) {
  const auto view = ViewOf(
      "smtp-port 2525\nsmtp-ip 192.0.2.1, 192.0.2.2\nsmtp-source-host 192.0.2.9 out.test\n"
      "delivery-priority 70\n<domain a.test>\ndeliver-local-dsn no\n</domain>\n");
  ASSERT_EQ(view->global().smtp_listeners().values_size(), 2);
  EXPECT_EQ(view->global().smtp_listeners().values(1), "192.0.2.2:2525");
  EXPECT_EQ(view->FindVirtualMta("default")->source_hosts(0).host_name(), "out.test");
  EXPECT_TRUE(view->ForQueue("a.test", "default", "")->suppress_local_dsn());
  EXPECT_EQ(view->ForQueue("a.test", "default", "")->queue_priority(), 70u);
  EXPECT_FALSE(CompileOne("smtp-ip somewhere").ok());
}

TEST(CompilerTest, ASpoolSectionIsTheSpoolsFolder) {
  const Compiled compiled = CompileOne(
      "<spool /var/spool/pmta>\nmin-free-space 1500000k\n</spool>\n<spool /second>\n"
      "deliver-only yes\n</spool>\n");
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  ASSERT_EQ(compiled.diagnostics.size(), 1u);
  EXPECT_EQ(compiled.diagnostics[0].message,
            "there is one spool, in /var/spool/pmta; what is said of this one has no effect");
  const auto view = *PolicyView::Build(compiled.snapshot);
  EXPECT_EQ(view->global().disk_queue(), "/var/spool/pmta");
  EXPECT_EQ(view->global().spool_min_free_space_mb(), 1465u);
  EXPECT_FALSE(view->global().spool_deliver_only());
  const auto closed =
      PolicyView::Build(CompileOne("<spool /x>\ndeliver-only yes\n</spool>\n").snapshot);
  EXPECT_TRUE((*closed)->global().spool_deliver_only());
  EXPECT_FALSE(CompileOne("<spool /x>\nmin-free-space much\n</spool>\n").ok());
}

TEST(CompilerTest, SecretsAreInNoMessage) {
  for (const char* text :
       {"http-api-key hunter2\n", "http-api-key \"hunter2\n", "<domain x>\nauth-pasword hunter2\n",
        "<domain x>\npassword\thunter2\n</domain>\n",
        "http-delivery-url https://me:hunter2@a.test/x\n",
        "smtp-client-certificate /f hunter2 hunter2\n", "pasword hunter2\n",
        "<virtual-mta x>\nhttp-apikey hunter2\n</virtual-mta>\n",
        "<source *>\nhttp-api-key hunter2\n"}) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.diagnostics.empty()) << text;
    EXPECT_EQ(Render(compiled.diagnostics).find("hunter2"), std::string::npos)
        << Render(compiled.diagnostics);
  }
}

TEST(CompilerTest, MacrosInListsOfDomains) {
  const auto view = ViewOf("domain-macro ours a.test,b.test\nrelay-domain $Ours, c.test\n");
  ASSERT_EQ(view->global().relay_domains().values_size(), 3);
  EXPECT_EQ(view->global().relay_domains().values(1), "b.test");
  EXPECT_FALSE(CompileOne("relay-domain $none\n").ok());
}

TEST(CompilerTest, AFolderIsIncludedAsItsConfFiles) {
  MemoryFiles files;
  files.files["/etc/a.conf"] = "include config.d\ninclude more/\n";
  files.files["/etc/config.d/1.conf"] = "host-name one.test\n";
  files.files["/etc/more/2.conf"] = "postmaster a@b.test\n";
  const Compiled compiled = Compile({"/etc/a.conf"}, files);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.files.size(), 3u);
}

TEST(CompilerTest, HostileFilesEndInABoundedDiagnosis) {
  std::string nested;
  for (int i = 0; i < 10'000; ++i) nested += "<domain a.test>\n";
  std::string doubling = "domain-macro m0 a.test,b.test\n";
  for (int i = 1; i < 40; ++i) {
    const std::string before = "$m" + std::to_string(i - 1);
    doubling += "domain-macro m" + std::to_string(i) + " " + before + "," + before + "\n";
  }
  std::string mistakes;
  for (int i = 0; i < 100'000; ++i) mistakes += "no-such-directive\n";
  for (const std::string& text :
       {nested, doubling, mistakes, "host-name " + std::string(size_t{2} << 20, 'a') + "\n",
        "host-name \"" + std::string(size_t{2} << 20, '"'), std::string(100'000, '<'),
        std::string(100'000, '\0')}) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.ok());
    EXPECT_LE(compiled.diagnostics.size(), 1'001u);
    // Each is shown with its line, which may be long.
    EXPECT_LE(Render(compiled.diagnostics).size(), size_t{2} << 20);
  }
}

// What is past the limit is not even read from the disk.
TEST(CompilerTest, ABombOfIncludesIsReadUpToTheLimit) {
  struct Counting final : FileSource {
    absl::StatusOr<std::string> Read(const std::string& path) override {
      ++reads;
      if (path == "bomb.conf") return bomb;
      return std::string(size_t{90} << 20, 'x');
    }
    std::vector<std::string> Glob(const std::string&) override { return {}; }
    std::string bomb;
    int reads = 0;
  } files;
  for (const char* line : {"include big\n", "include-headers-from big\n"}) {
    files.bomb.clear();
    for (int i = 0; i < 900; ++i) files.bomb += line;
    files.reads = 0;
    const Compiled compiled = Compile({"bomb.conf"}, files);
    EXPECT_FALSE(compiled.ok());
    EXPECT_LE(files.reads, 5) << line;
    EXPECT_NE(Render(compiled.diagnostics).find("larger than 256 MiB together"), std::string::npos);
  }
}

TEST(CompilerTest, IncludesReadAsIfWrittenThere) {
  MemoryFiles files;
  files.files["/etc/a.conf"] = "include conf.d/*.conf\n<domain x.test>\n  include x\n</domain>\n";
  files.files["/etc/conf.d/1.conf"] = "host-name one.test\n";
  files.files["/etc/conf.d/2.conf"] = "host-name two.test\n";
  files.files["/etc/x"] = "max-smtp-out 3\n";
  const Compiled compiled = Compile({"/etc/a.conf"}, files);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.files.size(), 4u);
  const auto view = *PolicyView::Build(compiled.snapshot);
  EXPECT_EQ(view->global().host_name(), "two.test");
  EXPECT_EQ(view->ForQueue("x.test", "default", "")->max_smtp_out(), 3u);
}

TEST(CompilerTest, IncludesThatCannotBe) {
  MemoryFiles files;
  files.files["/etc/a.conf"] = "include b.conf\n";
  files.files["/etc/b.conf"] = "include ../etc/a.conf\n";
  Compiled compiled = Compile({"/etc/a.conf"}, files);
  ASSERT_EQ(compiled.diagnostics.size(), 1u);
  EXPECT_TRUE(compiled.diagnostics[0].ToString().starts_with("/etc/b.conf:1:9: error: "))
      << compiled.diagnostics[0].ToString();

  // A section ends in the file in which it began.
  files.files["/etc/a.conf"] = "<domain x>\ninclude b.conf\n</domain>\n";
  files.files["/etc/b.conf"] = "</domain>\n";
  EXPECT_FALSE(Compile({"/etc/a.conf"}, files).ok());
  compiled = Compile({"/etc/none.conf"}, files);
  ASSERT_EQ(compiled.diagnostics.size(), 1u);
  EXPECT_EQ(compiled.diagnostics[0].ToString(), "/etc/none.conf: error: cannot open it");

  // Each includes the next one twice: 2^n files without a bound.
  for (int i = 0; i < 19; ++i) {
    const std::string next = "/w/" + std::to_string(i + 1);
    files.files["/w/" + std::to_string(i)] = "include " + next + "\ninclude " + next + "\n";
  }
  EXPECT_FALSE(Compile({"/w/0"}, files).ok());
}

}  // namespace
}  // namespace sluice::config
