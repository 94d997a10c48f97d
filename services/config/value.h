// The grammars of directive values. All functions are pure, take any bytes, and give nothing where
// the text is not of the grammar or does not fit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {

// yes no true false, any case.
std::optional<bool> ParseBool(std::string_view text);
// Decimal digits only.
std::optional<uint64_t> ParseCount(std::string_view text);
// "1w2d12h30m5s", "90 seconds", "500ms"; a bare number is seconds. In microseconds.
std::optional<int64_t> ParseDurationUs(std::string_view text);
// "10m,30m,1h".
std::optional<std::vector<int64_t>> ParseDurationListUs(std::string_view text);
// "100/h", "5/10s", "unlimited", "0".
std::optional<policy::v1::Rate> ParseRate(std::string_view text);
// "10M/h", "500k/10s", "unlimited", "0": bytes in a time.
std::optional<policy::v1::Rate> ParseVolumeRate(std::string_view text);
// "50M", "512k", "10b"; a bare number is bytes. In bytes; k is 1024.
std::optional<uint64_t> ParseSizeBytes(std::string_view text);
// "ip", "ip:port", "[v6]:port". `default_port` 0: the port must be there. As "ip:port".
std::optional<std::string> ParseIpPort(std::string_view text, uint16_t default_port);
// A network, "10.0.0.0/8", with PowerMTA's short forms "10/8" and "0/0", or one address. Host bits
// must be zero. As text, "10.0.0.0/8", "192.0.2.1/32".
std::optional<std::string> ParseNetwork(std::string_view text);
// "host", "host:port", an address or "[v6]:port"; lower case.
std::optional<std::string> ParseHostPort(std::string_view text);
// Letters, digits, "-" and "_" in labels of at most 63 bytes that neither begin nor end with "-",
// 253 bytes in all (RFC 1123 2.1, and "_" as DNS has it). The last label is no number: that would
// be an address, most likely one that is written wrong. UTF-8 names become A-labels (IDNA 2008).
// Lower case, without the dot at the end.
std::optional<std::string> ParseHostName(std::string_view text);
// The same, and numbers too: "2026".
std::optional<std::string> ParseSelector(std::string_view text);
// Atoms with dots between them, at most 64 bytes (RFC 5321 4.1.2); UTF-8 too (RFC 6531). Not what
// would have to be quoted.
bool IsLocalPart(std::string_view text);
// "local@domain", "local@[192.0.2.1]"; the domain in lower case.
std::optional<std::string> ParseEmail(std::string_view text);
// A header field's name (RFC 5322 3.6.8), without the colon.
std::optional<std::string> ParseHeaderName(std::string_view text);
// "http://host[:port][/path]", "https://...".
bool IsUrl(std::string_view text);
// "*", "d", "*.d", "[*.]d", "[ip]", "[ip/mask]", lower case.
std::optional<std::string> ParseDomainPattern(std::string_view text);
// The name of a virtual MTA or pool: "{default}" is the one that is called "default".
std::string PlainTargetName(std::string_view name);
// Written back: "1h30m", "0"; in microseconds.
std::string DurationText(uint64_t us);
// "50M", with `unit` behind a number of bytes that no larger unit divides.
std::string SizeText(uint64_t bytes, std::string_view unit);
// The units of times with their microseconds, the largest first.
inline constexpr std::pair<const char*, uint64_t> kTimeUnits[] = {{"d", 86'400'000'000},
                                                                  {"h", 3'600'000'000},
                                                                  {"m", 60'000'000},
                                                                  {"s", 1'000'000},
                                                                  {"ms", 1'000}};

// Splits at commas, semicolons and blanks; no empty items.
std::vector<std::string> SplitList(std::string_view text);

}  // namespace sluice::config
