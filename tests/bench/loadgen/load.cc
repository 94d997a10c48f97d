#include "tests/bench/loadgen/load.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>

#include "nlohmann/json.hpp"

namespace sluice::bench {

DomainPicker::DomainPicker(const LoadOptions& options)
    : domains_(std::max<uint64_t>(options.domains, 1)),
      suffix_(options.domain),
      random_(options.seed * 0x9e3779b97f4a7c15 | 1) {
  if (domains_ == 1) name_ = suffix_;
  if (domains_ == 1 || options.zipf <= 0) return;
  cumulative_.reserve(domains_);
  double sum = 0;
  for (uint64_t i = 1; i <= domains_; ++i) {
    sum += std::pow(static_cast<double>(i), -options.zipf);
    cumulative_.push_back(sum);
  }
}

uint64_t DomainPicker::Random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

const std::string& DomainPicker::Next() {
  if (domains_ == 1) return name_;
  uint64_t index = 0;
  if (cumulative_.empty()) {
    index = (Random() >> 16) % domains_;
  } else {
    double point = static_cast<double>(Random() >> 11) * 0x1p-53 * cumulative_.back();
    auto it = std::upper_bound(cumulative_.begin(), cumulative_.end(), point);
    index = std::min<uint64_t>(static_cast<uint64_t>(it - cumulative_.begin()), domains_ - 1);
  }
  name_ = "d" + std::to_string(index + 1) + "." + suffix_;
  return name_;
}

MessageMaker::MessageMaker(const LoadOptions& options) : prefix_(options.test_id) {
  fixed_ = "From: <" + options.from + ">\r\nTo: undisclosed-recipients:;\r\n" +
           "Subject: load\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n";
  for (const std::string& header : options.headers) fixed_ += header + "\r\n";
  fixed_ += "X-Test-Id: " + prefix_ + "-";
  size_t header_bytes = Header(0, WallTime(Duration(1'700'000'000'000'000))).size();
  size_t wanted = options.size_bytes > header_bytes + 2 ? options.size_bytes - header_bytes : 2;
  std::string body;
  body.reserve(wanted);
  // Lines of 76 letters, as encoded text has, of little repetition.
  uint64_t state = 88172645463325252;
  while (body.size() + 2 < wanted) {
    size_t line = std::min<size_t>(76, wanted - body.size() - 2);
    for (size_t i = 0; i < line; ++i) {
      state ^= state << 13;
      state ^= state >> 7;
      state ^= state << 17;
      body.push_back(static_cast<char>('A' + (state >> 32) % 26));
    }
    if (body.size() + 2 < wanted) body += "\r\n";
  }
  if (!body.ends_with("\r\n")) body += "\r\n";
  body_ = Body(std::move(body));
}

std::string MessageMaker::Header(uint64_t number, WallTime now) const {
  char numbers[160];
  int length = std::snprintf(
      numbers, sizeof(numbers),
      "%012llu\r\nMessage-ID: <%012llu.%lld@load.test>\r\n"
      "X-Sent-Us: %lld\r\n\r\n",
      static_cast<unsigned long long>(number), static_cast<unsigned long long>(number),
      static_cast<long long>(ToUnixMicros(now)), static_cast<long long>(ToUnixMicros(now)));
  std::string header;
  header.reserve(fixed_.size() + static_cast<size_t>(length));
  header.append(fixed_).append(numbers, static_cast<size_t>(length));
  return header;
}

std::string MessageMaker::Recipient(uint64_t number, uint32_t index,
                                    const std::string& domain) const {
  std::string address = prefix_ + std::to_string(number);
  if (index > 0) address += "." + std::to_string(index);
  return address + "@" + domain;
}

std::string LoadResult::ToJson() const {
  rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  double elapsed_s = static_cast<double>(elapsed.count()) * 1e-6;
  nlohmann::json json = {
      {"accepted", accepted},
      {"deferred", deferred},
      {"rejected", rejected},
      {"lost", lost},
      {"connections", connections},
      {"connect_errors", connect_errors},
      {"tls_handshakes", tls_handshakes},
      {"tls_resumed", tls_resumed},
      {"elapsed_s", elapsed_s},
      {"accepted_per_s", elapsed_s > 0 ? static_cast<double>(accepted) / elapsed_s : 0.0},
      {"cpu_s", seconds(usage.ru_utime) + seconds(usage.ru_stime)},
      {"latency",
       {{"mean_us", latency.mean_us()},
        {"p50_us", latency.PercentileUs(0.5)},
        {"p90_us", latency.PercentileUs(0.9)},
        {"p99_us", latency.PercentileUs(0.99)},
        {"max_us", latency.max_us()}}}};
  return json.dump(1);
}

}  // namespace sluice::bench
