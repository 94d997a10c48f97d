// Which virtual MTA has which source addresses, and which of them a binding uses.
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::Complaint;
using testing::ViewOf;

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

}  // namespace
}  // namespace sluice::config
