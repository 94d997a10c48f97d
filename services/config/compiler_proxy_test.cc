// Proves what files say of proxies that mail leaves through.
#include <algorithm>

#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::ViewOf;

using policy::v1::EgressProxy;

TEST(CompilerProxyTest, ClientsOfProxiesAreSources) {
  const auto view = ViewOf(
      "<proxy East>\nserver 10.0.0.1:5000\nclient 192.0.2.1 out1.test\n"
      "client [2001:db8::2]:4000 out2.test\nprotocol-version 2\n</proxy>\n"
      "<proxy west>\ntype socks5\nserver [::1]:1080\nclient 192.0.2.3\nusername u\n"
      "password \"p w\"\n</proxy>\n"
      "<virtual-mta a>\nhost-name a.test\nuse-proxy east,West\n</virtual-mta>\n");
  const auto* vmta = view->FindVirtualMta("a");
  ASSERT_EQ(vmta->source_hosts_size(), 3);
  const auto& first = vmta->source_hosts(0);
  EXPECT_EQ(first.ip(), "192.0.2.1");
  EXPECT_EQ(first.host_name(), "out1.test");
  EXPECT_EQ(first.proxy().protocol(), EgressProxy::PROTOCOL_PROXY_V2);
  EXPECT_EQ(first.proxy().server(), "10.0.0.1:5000");
  EXPECT_EQ(vmta->source_hosts(1).ip(), "2001:db8::2");
  EXPECT_EQ(vmta->source_hosts(1).proxy().client_port(), 4000u);
  const auto& socks = vmta->source_hosts(2);
  EXPECT_EQ(socks.host_name(), "a.test");
  EXPECT_EQ(socks.proxy().protocol(), EgressProxy::PROTOCOL_SOCKS5);
  EXPECT_EQ(socks.proxy().server(), "[::1]:1080");
  EXPECT_EQ(socks.proxy().username(), "u");
  EXPECT_EQ(socks.proxy().password(), "p w");
}

TEST(CompilerProxyTest, ProxySourceHostsInOneLine) {
  const auto view = ViewOf(
      "<virtual-mta a>\nsmtp-proxy-source-host 10.0.0.0/8 10.0.0.1:5000 192.0.2.1:40000 out.test\n"
      "proxy-protocol 2\n</virtual-mta>\n"
      "<virtual-mta b>\nsmtp-proxy-source-host 0/0 10.0.0.1:5000 192.0.2.2\n</virtual-mta>\n");
  const auto& a = view->FindVirtualMta("a")->source_hosts(0);
  EXPECT_EQ(a.ip(), "192.0.2.1");
  EXPECT_EQ(a.proxy().client_port(), 40000u);
  EXPECT_EQ(a.proxy().local_network(), "10.0.0.0/8");
  EXPECT_EQ(a.proxy().protocol(), EgressProxy::PROTOCOL_PROXY_V2);
  EXPECT_EQ(view->FindVirtualMta("b")->source_hosts(0).proxy().protocol(),
            EgressProxy::PROTOCOL_PROXY_V1);
}

// What is said outside of sections holds for virtual MTAs that say nothing.
TEST(CompilerProxyTest, GlobalUseAndItsEnd) {
  const auto view = ViewOf(
      "use-proxy p\n<proxy p>\nserver 10.0.0.1:1\nclient 192.0.2.1\n</proxy>\n"
      "<virtual-mta a>\nhost-name a.test\n</virtual-mta>\n"
      "<virtual-mta direct>\nuse-proxy none\nsmtp-source-host 192.0.2.9 d.test\n</virtual-mta>\n");
  EXPECT_TRUE(view->FindVirtualMta("a")->source_hosts(0).has_proxy());
  EXPECT_TRUE(view->FindVirtualMta("default")->source_hosts(0).has_proxy());
  ASSERT_EQ(view->FindVirtualMta("direct")->source_hosts_size(), 1);
  EXPECT_FALSE(view->FindVirtualMta("direct")->source_hosts(0).has_proxy());
}

TEST(CompilerProxyTest, WhatIsWrongIsSaid) {
  const std::string proxy = "<proxy p>\nserver 10.0.0.1:1\nclient 192.0.2.1\n</proxy>\n";
  for (const std::string& text : {
           std::string("<virtual-mta a>\nuse-proxy nosuch\n</virtual-mta>\n"),
           proxy +
               "<virtual-mta a>\nuse-proxy p\nsmtp-source-host 192.0.2.9 d.test\n</virtual-mta>",
           std::string("<proxy p>\nclient 192.0.2.1\n</proxy>\n"),
           std::string("<proxy p>\nserver 10.0.0.1:1\n</proxy>\n"),
           std::string("<proxy p>\nserver proxy.test\nclient 192.0.2.1\n</proxy>\n"),
           std::string("<proxy p>\nserver 10.0.0.1:1\nclient x\n</proxy>\n"),
           std::string(
               "<proxy p>\nserver 10.0.0.1:1\nclient 192.0.2.1\nprotocol-version 3\n</proxy>"),
           std::string("<proxy p>\nserver 10.0.0.1:1\nclient 192.0.2.1\nusername u\n</proxy>\n"),
           std::string("<proxy p>\nserver 10.0.0.1:1\nclient 192.0.2.1\ntype http\n</proxy>\n"),
           std::string("smtp-proxy-source-host x 10.0.0.1:1 192.0.2.1\n"),
       }) {
    const Compiled compiled =
        CompileOne(text + "\n<virtual-mta z>\nhost-name z.test\nuse-proxy p\n</virtual-mta>\n");
    const bool error = std::any_of(
        compiled.diagnostics.begin(), compiled.diagnostics.end(),
        [](const Diagnostic& each) { return each.severity == Diagnostic::Severity::kError; });
    EXPECT_TRUE(error) << text;
  }
}

}  // namespace
}  // namespace sluice::config
