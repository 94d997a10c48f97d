// The process whose power is cut: a real shard on RocksDB with an injector that sends mail and a
// worker that answers for the remote side. It says on a pipe what it was promised and what it did,
// one line each, at the moment it happens.
#pragma once

#include <cstdint>
#include <string>

namespace sluice::powercut {

struct VictimOptions {
  std::string folder;
  int report_fd = -1;
  uint64_t incarnation = 1;
  uint64_t seed = 1;
  int messages = 0;    // to inject; then only delivery
  bool drain = false;  // report Z when nothing is queued
  bool hold = false;   // the worker takes nothing
  uint64_t ballast_bytes = 0;
};

// Lines: "O" open; "A token recipients" the shard said QUEUED; "L rcpt" leased; "D rcpt", "T rcpt",
// "P rcpt" the remote took, deferred or refused it (written before the shard hears of it); "R rcpt"
// that result is acknowledged; "B outcome" a message was refused, once for each outcome; "N rcpt" a
// DSN about rcpt was delivered; "X text" something is wrong; "Z" nothing is left. A rcpt is
// token.position. Runs until killed; returns after X.
int RunVictim(const VictimOptions& options);

}  // namespace sluice::powercut
