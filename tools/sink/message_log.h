// Keeps what the sink has taken: a line of JSON a recipient, and the messages as files.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "services/base/clock.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/unique_fd.h"
#include "tools/sink/session.h"

namespace sluice::sink {

// Thread-safety: none; used on its loop. Lifetime: the loop outlives it.
// Failure: a write that fails (full disk) ends the process with a line on stderr, for a log with
// holes would make a test prove the wrong thing.
class MessageLog final : public MessageKeeper, private TurnEndHook {
 public:
  enum class Hash { kCrc32c, kSha256 };
  struct Options {
    std::string log_path;   // empty: no log
    std::string store_dir;  // empty: messages are not stored
    Hash hash = Hash::kCrc32c;
  };

  explicit MessageLog(EventLoop& loop) : loop_(loop) {}
  ~MessageLog();

  // Opens the log for appending and makes the folder.
  absl::Status Open(const Options& options);
  void OnMessage(const ReceivedMessage& message) override;
  void Flush();

 private:
  void OnTurnEnd() override { Flush(); }
  void Store(std::string_view text);

  EventLoop& loop_;
  Options options_;
  UniqueFd log_;
  std::string pending_;
  uint64_t stored_ = 0;
};

// The value of the first field `name` in the header of `text`, unfolded as it stands; empty
// without.
std::string_view HeaderField(std::string_view text, std::string_view name);

}  // namespace sluice::sink
