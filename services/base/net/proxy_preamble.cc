#include "services/base/net/proxy_preamble.h"

#include <string_view>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr std::string_view kSignature("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr char kVersion2Proxy = 0x21;
constexpr char kTcpOverIpv4 = 0x11;
constexpr char kTcpOverIpv6 = 0x21;

void Append16(std::string* text, size_t value) {
  text->push_back(static_cast<char>(value >> 8 & 0xff));
  text->push_back(static_cast<char>(value & 0xff));
}

}  // namespace

std::string ProxyPreambleV1(const Endpoint& source, const Endpoint& destination) {
  if (source.ip.is_v4() != destination.ip.is_v4()) return "PROXY UNKNOWN\r\n";
  return absl::StrCat("PROXY ", source.ip.is_v4() ? "TCP4 " : "TCP6 ", source.ip.ToString(), " ",
                      destination.ip.ToString(), " ", source.port, " ", destination.port, "\r\n");
}

std::string ProxyPreambleV2(const Endpoint& source, const Endpoint& destination) {
  std::string text(kSignature);
  text.push_back(kVersion2Proxy);
  if (source.ip.is_v4() != destination.ip.is_v4()) {
    text.append(3, '\0');
    return text;
  }
  text.push_back(source.ip.is_v4() ? kTcpOverIpv4 : kTcpOverIpv6);
  Append16(&text, 2 * source.ip.bytes().size() + 4);
  text.append(source.ip.bytes());
  text.append(destination.ip.bytes());
  Append16(&text, source.port);
  Append16(&text, destination.port);
  return text;
}

}  // namespace sluice
