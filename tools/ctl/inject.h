// `sluicectl inject`: messages from files, standard input or made up, into IngestService.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/ctl/client.h"
#include "tools/ctl/environment.h"

namespace sluice::ctl {

struct InjectOptions {
  std::vector<std::string> files;  // "-" is standard input; empty: messages are made up
  std::string from;                // "<>" or empty is the null sender; %n is the message's number
  std::vector<std::string> to;     // %n as well
  uint64_t count = 1;              // copies of each file, or messages to make up
  size_t size_bytes = 1024;        // of a message made up
  std::string vmta, job, envid, idempotency_key, traceparent;
  std::vector<std::string> metadata;  // key=value
  std::vector<std::string> notify;    // never, or any of success, failure, delay
  std::string ret;                    // full, hdrs
  uint32_t priority = 0;
  std::string tenant;
  // From when it is sent; 0: not given.
  int64_t delay_us = 0, deliver_within_us = 0;
  bool unary = false;              // one call a message in place of a stream
  uint64_t window = 256;           // messages on the stream without an answer
  int64_t retry_us = 0;            // repeat what was refused for now, this long
  int64_t answer_us = 30'000'000;  // the stream is given up after this long without any answer
  bool ids = false;                // print the id of every message taken
  bool json = false;
};

// Messages on the way, answered or not, are counted whatever happens, so that the report is true.
// Returns an exit code: all taken, some refused (partly), none taken.
int Inject(Client& client, const InjectOptions& options, Environment& env);

}  // namespace sluice::ctl
