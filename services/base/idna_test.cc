// Proves that names beyond ASCII become the names that DNS has, and that what is no name is
// none.
#include "services/base/idna.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(Idna, NamesAsDnsHasThem) {
  EXPECT_EQ(HostNameToAscii("b\xc3\xbc"
                            "cher.example"),
            "xn--bcher-kva.example");
  EXPECT_EQ(HostNameToAscii("B\xc3\x9c"
                            "CHER.Example"),
            "xn--bcher-kva.example");
  EXPECT_EQ(HostNameToAscii("bu\xcc\x88"
                            "cher.example"),
            "xn--bcher-kva.example");                                      // not composed
  EXPECT_EQ(HostNameToAscii("fa\xc3\x9f.example"), "xn--fa-hia.example");  // not "fass"
  EXPECT_EQ(HostNameToAscii("\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88"),
            "xn--r8jz45g.xn--zckzah");
  EXPECT_EQ(HostNameToAscii("plain.example"), "plain.example");
}

TEST(Idna, WhatIsNone) {
  for (const std::string& name :
       {std::string("\xff.example"), std::string("\xc3\xbc\0.example", 11), std::string(2000, 'x'),
        std::string("\xe2\x98\x83\xe2\x80\x8b-.example")}) {
    EXPECT_EQ(HostNameToAscii(name), std::nullopt) << name;
  }
}

// Beside the letters beyond ASCII, and as what these are mapped to (full-width forms, the
// ideographic space): nothing of it may end an address, a command or a line.
TEST(Idna, NothingThatEndsAnAddress) {
  const std::string name = "b\xc3\xbc";
  ASSERT_TRUE(HostNameToAscii(name + ".example"));
  for (const std::string& end :
       {std::string("\r\nDATA"), std::string("\n"), std::string("> NOTIFY=NEVER"), std::string(" "),
        std::string("@a"), std::string("\x7f"), std::string("\x01"), std::string("[1]"),
        std::string("\xef\xbc\x9e"), std::string("\xef\xbc\xa0"), std::string("\xe3\x80\x80"),
        std::string("\xef\xbc\x9e\xe3\x80\x80NOTIFY\xef\xbc\x9dNEVER")}) {
    EXPECT_EQ(HostNameToAscii(name + end), std::nullopt) << end;
    EXPECT_EQ(HostNameToAscii(name + end + ".example"), std::nullopt) << end;
    EXPECT_EQ(HostNameToAscii(end + "." + name), std::nullopt) << end;
  }
  EXPECT_EQ(HostNameToAscii("_dmarc." + name), "_dmarc.xn--b-eha");
}

}  // namespace
}  // namespace sluice
