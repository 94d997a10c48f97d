// What a load consists of, shared by all ways to inject it: messages, recipients, pace, results.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/body.h"
#include "services/base/clock.h"
#include "tools/sink/latency_histogram.h"

namespace sluice::bench {

struct LoadOptions {
  uint64_t messages = 10'000;
  size_t size_bytes = 10'240;  // header and body
  uint32_t recipients = 1;     // of a message
  uint64_t domains = 1;
  double zipf = 0;              // exponent; 0: every domain alike
  std::string domain = "test";  // the domain itself where there is one, else dN.DOMAIN
  std::string from = "load@sender.test";
  std::string test_id = "t";         // X-Test-Id: PREFIX-NUMBER
  std::vector<std::string> headers;  // more fields, "Name: value"
  double rate = 0;                   // messages a second; 0: as fast as replies come
  uint64_t seed = 1;
};

// Draws domains, Zipf-distributed over 1 ... n. Thread-safety: none.
class DomainPicker {
 public:
  explicit DomainPicker(const LoadOptions& options);
  // Good until the next call.
  const std::string& Next();

 private:
  uint64_t Random();

  std::vector<double> cumulative_;  // empty: uniform
  uint64_t domains_;
  std::string suffix_;
  std::string name_;
  uint64_t random_;
};

// Makes the messages of a load. The body is one shared block, only the header differs.
// Thread-safety: none.
class MessageMaker {
 public:
  explicit MessageMaker(const LoadOptions& options);
  // The header of message `number` with the blank line; it and body() together have size_bytes,
  // where that is enough for a header.
  std::string Header(uint64_t number, WallTime now) const;
  const Body& body() const { return body_; }
  // No line of it starts with a dot, and it ends with CRLF.
  std::string Recipient(uint64_t number, uint32_t index, const std::string& domain) const;

 private:
  std::string fixed_;
  std::string prefix_;
  Body body_;
};

struct LoadResult {
  uint64_t accepted = 0;
  uint64_t deferred = 0;  // 4xx for the message or all its recipients
  uint64_t rejected = 0;  // 5xx
  uint64_t lost = 0;      // no answer: the connection broke
  uint64_t connections = 0;
  uint64_t connect_errors = 0;
  uint64_t tls_handshakes = 0;
  uint64_t tls_resumed = 0;        // of these
  Duration elapsed{0};             // first byte to last reply
  sink::LatencyHistogram latency;  // of accepted ones: envelope sent to final reply

  uint64_t finished() const { return accepted + deferred + rejected + lost; }
  // One object, with the process's CPU time.
  std::string ToJson() const;
};

// When message number n may go. Thread-safety: none.
class Pace {
 public:
  Pace(double rate, MonotonicTime start) : rate_(rate), start_(start) {}
  // The earliest time for the message after `sent` others.
  MonotonicTime Due(uint64_t sent) const {
    if (rate_ <= 0) return start_;
    return start_ + Duration(static_cast<int64_t>(static_cast<double>(sent) * 1e6 / rate_));
  }

 private:
  double rate_;
  MonotonicTime start_;
};

}  // namespace sluice::bench
