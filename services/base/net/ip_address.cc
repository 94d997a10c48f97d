#include "services/base/net/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "services/base/check.h"

namespace sluice {
namespace {

template <typename T>
std::optional<T> ParseNumber(std::string_view text, T max) {
  T value = 0;
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value > max) return std::nullopt;
  return value;
}

}  // namespace

IpAddress IpAddress::V4(uint32_t host_order) {
  IpAddress a;
  for (int i = 0; i < 4; ++i) a.bytes_[i] = static_cast<uint8_t>(host_order >> (24 - 8 * i));
  return a;
}

IpAddress IpAddress::V6(const std::array<uint8_t, 16>& bytes) {
  static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  IpAddress a;
  if (std::memcmp(bytes.data(), kMapped, sizeof(kMapped)) == 0) {
    std::copy_n(bytes.begin() + 12, 4, a.bytes_.begin());
    return a;
  }
  a.v4_ = false;
  a.bytes_ = bytes;
  return a;
}

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  char copy[INET6_ADDRSTRLEN + 1];
  if (text.empty() || text.size() >= sizeof(copy) || text.find('\0') != text.npos) {
    return std::nullopt;
  }
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  if (text.find(':') == text.npos) {
    in_addr v4;
    if (::inet_pton(AF_INET, copy, &v4) != 1) return std::nullopt;
    return V4(ntohl(v4.s_addr));
  }
  std::array<uint8_t, 16> v6;
  if (::inet_pton(AF_INET6, copy, v6.data()) != 1) return std::nullopt;
  return V6(v6);
}

std::optional<IpAddress> IpAddress::FromSockaddr(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return V4(ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr));
  }
  if (address->sa_family == AF_INET6) {
    std::array<uint8_t, 16> bytes;
    std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, 16);
    return V6(bytes);
  }
  return std::nullopt;
}

uint32_t IpAddress::v4() const {
  SLUICE_CHECK(v4_);
  return uint32_t{bytes_[0]} << 24 | uint32_t{bytes_[1]} << 16 | uint32_t{bytes_[2]} << 8 |
         uint32_t{bytes_[3]};
}

bool IpAddress::IsUnspecified() const {
  return std::all_of(bytes_.begin(), bytes_.end(), [](uint8_t b) { return b == 0; });
}

bool IpAddress::IsLoopback() const {
  if (v4_) return bytes_[0] == 127;
  return bytes_[15] == 1 &&
         std::all_of(bytes_.begin(), bytes_.begin() + 15, [](uint8_t b) { return b == 0; });
}

bool IpAddress::IsPrivate() const {
  if (!v4_) return (bytes_[0] & 0xfe) == 0xfc;
  return bytes_[0] == 10 || (bytes_[0] == 172 && (bytes_[1] & 0xf0) == 16) ||
         (bytes_[0] == 192 && bytes_[1] == 168) || (bytes_[0] == 100 && (bytes_[1] & 0xc0) == 64);
}

bool IpAddress::IsLinkLocal() const {
  if (!v4_) return bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
  return bytes_[0] == 169 && bytes_[1] == 254;
}

bool IpAddress::IsPublic() const {
  if (IsUnspecified() || IsLoopback() || IsPrivate() || IsLinkLocal()) return false;
  if (v4_) {
    return bytes_[0] != 0 && bytes_[0] < 224 &&                        // RFC 1122, 5771
           !(bytes_[0] == 192 && bytes_[1] == 0 && bytes_[2] == 0) &&  // RFC 6890
           !(bytes_[0] == 198 && (bytes_[1] & 0xfe) == 18);            // RFC 2544
  }
  if (bytes_[0] == 0xff) return false;                                // multicast
  if (bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0xc0) return false;  // old site-local
  const auto embedded = [this](size_t at) {
    return V4(uint32_t{bytes_[at]} << 24 | uint32_t{bytes_[at + 1]} << 16 |
              uint32_t{bytes_[at + 2]} << 8 | uint32_t{bytes_[at + 3]});
  };
  static constexpr uint8_t kNat64[12] = {0, 0x64, 0xff, 0x9b};            // RFC 6052
  static constexpr uint8_t kLocalNat64[6] = {0, 0x64, 0xff, 0x9b, 0, 1};  // RFC 8215
  static constexpr uint8_t kCompatible[12] = {};
  static constexpr uint8_t kTeredo[4] = {0x20, 1, 0, 0};
  if (std::memcmp(bytes_.data(), kLocalNat64, sizeof(kLocalNat64)) == 0) return false;
  if (std::memcmp(bytes_.data(), kNat64, sizeof(kNat64)) == 0 ||
      std::memcmp(bytes_.data(), kCompatible, sizeof(kCompatible)) == 0) {
    return embedded(12).IsPublic();
  }
  if (bytes_[0] == 0x20 && bytes_[1] == 2) return embedded(2).IsPublic();  // 6to4
  return std::memcmp(bytes_.data(), kTeredo, sizeof(kTeredo)) != 0;
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN];
  ::inet_ntop(v4_ ? AF_INET : AF_INET6, bytes_.data(), text, sizeof(text));
  return text;
}

std::string IpAddress::ToSmtpLiteral() const { return v4_ ? ToString() : "IPv6:" + ToString(); }

Cidr::Cidr(const IpAddress& address, int prefix_bits)
    : prefix_bits_(std::clamp(prefix_bits, 0, address.is_v4() ? 32 : 128)) {
  std::string_view from = address.bytes();
  std::array<uint8_t, 16> bytes{};
  for (size_t i = 0; i < from.size(); ++i) {
    int bits = std::clamp(prefix_bits_ - static_cast<int>(8 * i), 0, 8);
    bytes[i] = static_cast<uint8_t>(from[i]) & static_cast<uint8_t>(0xff00 >> bits);
  }
  address_ = address.is_v4() ? IpAddress::V4(uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 |
                                             uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]})
                             : IpAddress::V6(bytes);
}

std::optional<Cidr> Cidr::Parse(std::string_view text) {
  size_t slash = text.find('/');
  auto address = IpAddress::Parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  int longest = address->is_v4() ? 32 : 128;
  if (slash == text.npos) return Cidr(*address, longest);
  auto bits = ParseNumber<int>(text.substr(slash + 1), longest);
  if (!bits || *bits < 0) return std::nullopt;
  return Cidr(*address, *bits);
}

bool Cidr::Contains(const IpAddress& address) const {
  return address.is_v4() == address_.is_v4() && Cidr(address, prefix_bits_) == *this;
}

std::string Cidr::ToString() const {
  return address_.ToString() + "/" + std::to_string(prefix_bits_);
}

std::optional<Endpoint> Endpoint::Parse(std::string_view text) {
  size_t colon = text.rfind(':');
  if (colon == text.npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  auto ip = IpAddress::Parse(host);
  auto port = ParseNumber<uint32_t>(text.substr(colon + 1), 65535);
  if (!ip || !port || bracketed != (host.find(':') != host.npos)) return std::nullopt;
  return Endpoint{*ip, static_cast<uint16_t>(*port)};
}

std::optional<Endpoint> Endpoint::FromSockaddr(const sockaddr* address) {
  auto ip = IpAddress::FromSockaddr(address);
  if (!ip) return std::nullopt;
  in_port_t port = address->sa_family == AF_INET
                       ? reinterpret_cast<const sockaddr_in*>(address)->sin_port
                       : reinterpret_cast<const sockaddr_in6*>(address)->sin6_port;
  return Endpoint{*ip, ntohs(port)};
}

std::string Endpoint::ToString() const {
  std::string host = ip.is_v4() ? ip.ToString() : "[" + ip.ToString() + "]";
  return host + ":" + std::to_string(port);
}

socklen_t Endpoint::ToSockaddr(sockaddr_storage* storage) const {
  std::memset(storage, 0, sizeof(*storage));
  std::string_view bytes = ip.bytes();
  if (ip.is_v4()) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    std::memcpy(&v4->sin_addr, bytes.data(), bytes.size());
    return sizeof(*v4);
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(storage);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  std::memcpy(&v6->sin6_addr, bytes.data(), bytes.size());
  return sizeof(*v6);
}

}  // namespace sluice
