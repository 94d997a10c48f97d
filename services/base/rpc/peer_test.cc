// Proves that a caller's address is read from what gRPC says of it.
#include "services/base/rpc/peer.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(PeerIp, IsTheAddressAlone) {
  EXPECT_EQ(PeerIp("ipv4:192.0.2.1:4711"), "192.0.2.1");
  EXPECT_EQ(PeerIp("ipv6:%5B2001:db8::1%5D:4711"), "2001:db8::1");
  EXPECT_EQ(PeerIp("ipv6:[::1]:4711"), "::1");
  EXPECT_EQ(PeerIp("unix:/run/sluice.sock"), "");
  EXPECT_EQ(PeerIp("inproc"), "");
  EXPECT_EQ(PeerIp(""), "");
}

}  // namespace
}  // namespace sluice
