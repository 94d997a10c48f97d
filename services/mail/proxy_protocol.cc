#include "services/mail/proxy_protocol.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace sluice::mail {
namespace {

using Outcome = ProxyHeader::Outcome;

constexpr std::string_view kSignature2("\r\n\r\n\0\r\nQUIT\n", 12);
constexpr std::string_view kSignature1 = "PROXY ";
constexpr size_t kMaxLine1Bytes = 107;  // with CRLF
constexpr size_t kFixed2Bytes = 16;

ProxyHeader Malformed() { return {.outcome = Outcome::kMalformed}; }

// The one spelling that inet_ntop gives, so that "127.1" and "::ffff:1.2.3.4" have no second form.
std::optional<std::string> NormalIp(int family, std::string_view text) {
  unsigned char bytes[16];
  char normal[INET6_ADDRSTRLEN];
  if (inet_pton(family, std::string(text).c_str(), bytes) != 1 ||
      inet_ntop(family, bytes, normal, sizeof normal) == nullptr) {
    return std::nullopt;
  }
  return normal;
}

std::string IpOf(int family, const char* bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(family, bytes, text, sizeof text);
  return text;
}

uint16_t PortOf(const char* bytes) {
  return static_cast<uint16_t>(static_cast<unsigned char>(bytes[0]) << 8 |
                               static_cast<unsigned char>(bytes[1]));
}

bool ReadPort(std::string_view text, uint16_t& port) {
  if (text.empty() || (text[0] == '0' && text.size() > 1)) return false;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, port);
  return error == std::errc() && rest == end;
}

ProxyHeader ReadVersion1(std::string_view bytes) {
  const size_t end = bytes.substr(0, kMaxLine1Bytes).find('\n');
  if (end == std::string_view::npos) {
    return bytes.size() >= kMaxLine1Bytes ? Malformed() : ProxyHeader{};
  }
  if (end == 0 || bytes[end - 1] != '\r') return Malformed();
  std::string_view line = bytes.substr(0, end - 1);
  line.remove_prefix(kSignature1.size());
  ProxyHeader header;
  header.size = end + 1;
  if (line == "UNKNOWN" || line.starts_with("UNKNOWN ")) {
    header.outcome = Outcome::kLocal;
    return header;
  }
  std::array<std::string_view, 5> words;
  for (size_t i = 0; i < words.size(); ++i) {
    const size_t blank = line.find(' ');
    if ((blank == line.npos) != (i + 1 == words.size())) return Malformed();
    words[i] = line.substr(0, blank);
    if (blank != line.npos) line.remove_prefix(blank + 1);
  }
  const int family = words[0] == "TCP4" ? AF_INET : words[0] == "TCP6" ? AF_INET6 : AF_UNSPEC;
  if (family == AF_UNSPEC) return Malformed();
  const std::optional<std::string> client = NormalIp(family, words[1]);
  const std::optional<std::string> server = NormalIp(family, words[2]);
  if (!client || !server || !ReadPort(words[3], header.client_port) ||
      !ReadPort(words[4], header.server_port)) {
    return Malformed();
  }
  header.outcome = Outcome::kClient;
  header.client_ip = *client;
  header.server_ip = *server;
  return header;
}

ProxyHeader ReadVersion2(std::string_view bytes) {
  if (bytes.size() < kFixed2Bytes) return {};
  const auto version_command = static_cast<unsigned char>(bytes[12]);
  const auto family = static_cast<unsigned char>(bytes[13]);
  const size_t length = PortOf(bytes.data() + 14);
  if (version_command >> 4 != 2 || (version_command & 15) > 1) return Malformed();
  if (kFixed2Bytes + length > kMaxProxyHeaderBytes) return Malformed();
  const size_t addresses = family == 0x11 ? 12 : family == 0x21 ? 36 : 0;
  if (length < addresses) return Malformed();
  if (bytes.size() < kFixed2Bytes + length) return {};
  ProxyHeader header;
  header.size = kFixed2Bytes + length;
  if ((version_command & 15) == 0 || family == 0) {
    header.outcome = Outcome::kLocal;
    return header;
  }
  // Datagrams and Unix sockets do not bring mail.
  if (addresses == 0) return Malformed();
  const char* const at = bytes.data() + kFixed2Bytes;
  const int address_family = family == 0x11 ? AF_INET : AF_INET6;
  const size_t ip_bytes = family == 0x11 ? 4 : 16;
  header.outcome = Outcome::kClient;
  header.client_ip = IpOf(address_family, at);
  header.server_ip = IpOf(address_family, at + ip_bytes);
  header.client_port = PortOf(at + 2 * ip_bytes);
  header.server_port = PortOf(at + 2 * ip_bytes + 2);
  return header;
}

}  // namespace

ProxyHeader ReadProxyHeader(std::string_view bytes) {
  const auto begins = [&](std::string_view signature) {
    return bytes.substr(0, signature.size()) == signature.substr(0, bytes.size());
  };
  if (begins(kSignature2))
    return bytes.size() < kSignature2.size() ? ProxyHeader{} : ReadVersion2(bytes);
  if (begins(kSignature1))
    return bytes.size() < kSignature1.size() ? ProxyHeader{} : ReadVersion1(bytes);
  return Malformed();
}

}  // namespace sluice::mail
