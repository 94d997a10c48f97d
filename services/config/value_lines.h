// Values of several words: schedules, growth, throttles, keys. All functions are pure, take any
// bytes, and give nothing where the text is not of the grammar.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {

// "00:00 to 23:59 for 7d max-msg-rate 2000/h", what follows `from` in <schedule>.
struct ScheduleLine {
  uint32_t from_minute = 0;  // of the day
  uint32_t to_minute = 0;    // the last one; 24:00 is 1440
  int64_t until_us = 0;      // since the schedule began
  policy::v1::Rate rate;
};
std::optional<ScheduleLine> ParseScheduleLine(std::string_view text);

// "10%/day", "10% daily".
struct Growth {
  uint64_t percent = 0;
  int64_t period_us = 0;
};
std::optional<Growth> ParseGrowth(std::string_view text);

// "10/h on 421,4xx": the codes as written, in lower case.
struct ThrottleOn {
  policy::v1::Rate rate;
  std::vector<std::string> codes;
};
std::optional<ThrottleOn> ParseThrottleOn(std::string_view text);

// "192.0.2.1 domain = example.com;": address and domain.
struct IpDomain {
  std::string ip;
  std::string domain;
};
std::optional<IpDomain> ParseIpDomain(std::string_view text);

// "SELECTOR,DOMAIN|*,FILE", also with blanks after the commas.
struct DomainKey {
  std::string selector;
  std::string domain;
  std::string file;
};
std::optional<DomainKey> ParseDomainKey(std::string_view text);

}  // namespace sluice::config
