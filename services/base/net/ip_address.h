// IP addresses, address blocks and TCP endpoints as values.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/hash/hash.h"

namespace sluice {

// An IPv4 or IPv6 address without a zone. Ordered IPv4 first. An IPv4-mapped IPv6 address
// (::ffff:a.b.c.d) becomes the IPv4 address that it stands for, so that one host has one value.
// Thread-safety: a value.
class IpAddress {
 public:
  // 0.0.0.0
  IpAddress() = default;
  static IpAddress V4(uint32_t host_order);
  static IpAddress V6(const std::array<uint8_t, 16>& bytes);

  // Dotted IPv4 or RFC 4291 IPv6, without brackets; nothing else (no octal, no short forms).
  static std::optional<IpAddress> Parse(std::string_view text);
  // Nothing for families other than IPv4 and IPv6.
  static std::optional<IpAddress> FromSockaddr(const sockaddr* address);

  bool is_v4() const { return v4_; }
  // Host order; only for IPv4.
  uint32_t v4() const;
  // Network order: four bytes for IPv4, sixteen for IPv6.
  std::string_view bytes() const {
    return {reinterpret_cast<const char*>(bytes_.data()), v4_ ? size_t{4} : size_t{16}};
  }
  bool IsUnspecified() const;  // 0.0.0.0 or ::
  bool IsLoopback() const;     // 127.0.0.0/8 or ::1
  bool IsPrivate() const;      // RFC 1918, RFC 6598 or RFC 4193
  bool IsLinkLocal() const;    // 169.254.0.0/16 or fe80::/10
  // May be met where somebody else named it: none of the above, nor multicast, reserved or of "this
  // network", and not an IPv6 form (NAT64, 6to4, Teredo, IPv4-compatible) of an IPv4 address that
  // may not. Documentation's networks may: nobody has them.
  bool IsPublic() const;

  // "192.0.2.1" or "2001:db8::1".
  std::string ToString() const;
  // As in an SMTP address literal (RFC 5321 4.1.3), without brackets: "192.0.2.1",
  // "IPv6:2001:db8::1".
  std::string ToSmtpLiteral() const;

  friend auto operator<=>(const IpAddress& a, const IpAddress& b) {
    if (a.v4_ != b.v4_) return a.v4_ ? std::strong_ordering::less : std::strong_ordering::greater;
    return a.bytes_ <=> b.bytes_;
  }
  friend bool operator==(const IpAddress&, const IpAddress&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const IpAddress& a) {
    return H::combine(H::combine_contiguous(std::move(h), a.bytes_.data(), a.bytes_.size()), a.v4_);
  }

 private:
  std::array<uint8_t, 16> bytes_{};  // IPv4 in the first four
  bool v4_ = true;
};

// A block of addresses, "10.0.0.0/8", "2001:db8::/32", or a single address.
// Thread-safety: a value.
class Cidr {
 public:
  // 0.0.0.0/32
  Cidr() = default;
  // Host bits are cleared. `prefix_bits` is at most the address's length, else it is cut to that.
  Cidr(const IpAddress& address, int prefix_bits);
  static std::optional<Cidr> Parse(std::string_view text);

  // Never true for an address of the other family.
  bool Contains(const IpAddress& address) const;
  const IpAddress& address() const { return address_; }
  int prefix_bits() const { return prefix_bits_; }
  std::string ToString() const;
  friend bool operator==(const Cidr&, const Cidr&) = default;

 private:
  IpAddress address_;
  int prefix_bits_ = 32;
};

// An IP address and a TCP or UDP port. Thread-safety: a value.
struct Endpoint {
  IpAddress ip;
  uint16_t port = 0;

  // "127.0.0.1:25", "[::1]:25".
  static std::optional<Endpoint> Parse(std::string_view text);
  static std::optional<Endpoint> FromSockaddr(const sockaddr* address);
  std::string ToString() const;
  // Fills `storage`; returns the length that bind(2) and connect(2) want.
  socklen_t ToSockaddr(sockaddr_storage* storage) const;

  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Endpoint& e) {
    return H::combine(std::move(h), e.ip, e.port);
  }
};

}  // namespace sluice
