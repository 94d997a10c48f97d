// Proves that directive files become the settings that they say, in every spelling.
#include "services/config/compiler.h"

#include "gtest/gtest.h"
#include "services/config/policy_view.h"
#include "services/config/snapshot_hash.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::ViewOf;

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

TEST(CompilerTest, TheSmtpPortIsAListenerOnEveryAddress) {
  const auto view = ViewOf("smtp-port 2525\nsmtp-listener 127.0.0.1:25\n");
  ASSERT_EQ(view->global().smtp_listeners().values_size(), 2);
  EXPECT_EQ(view->global().smtp_listeners().values(1), "0.0.0.0:2525");
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

TEST(CompilerTest, MacrosInListsOfDomains) {
  const auto view = ViewOf("domain-macro ours a.test,b.test\nrelay-domain $Ours, c.test\n");
  ASSERT_EQ(view->global().relay_domains().values_size(), 3);
  EXPECT_EQ(view->global().relay_domains().values(1), "b.test");
  EXPECT_FALSE(CompileOne("relay-domain $none\n").ok());
}

}  // namespace
}  // namespace sluice::config
