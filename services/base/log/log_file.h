// The log as a file: one of each day, the older ones beside it under numbers.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "services/base/clock.h"

namespace sluice {

struct LogFileOptions {
  std::string path;   // empty: no file
  uint32_t keep = 8;  // older files: path.1 is the latest
  bool daily = true;  // a new file with each day (UTC)
  bool world_readable = false;

  bool operator==(const LogFileOptions&) const = default;
};

// A file that somebody moved or removed is opened anew within a second, so that other programs may
// rotate it, too. Files are appended to, with one write a line.
// Thread-safety: all functions from any thread. Failure: Write says so, and tries to open the file
// again a second later.
class LogFile {
 public:
  explicit LogFile(const Clock& clock) : clock_(clock) {}
  ~LogFile();
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  // Where lines go from now on. The error is for the person who configured it.
  absl::Status Use(const LogFileOptions& options);
  // `line` without its end. False: it was not written, and should go elsewhere.
  bool Write(std::string_view line);

 private:
  absl::Status Open();
  void Close();
  void Look();
  void Rotate();
  int64_t Today() const;

  const Clock& clock_;
  std::mutex mutex_;
  // All guarded by mutex_.
  LogFileOptions options_;
  int fd_ = -1;
  int64_t day_ = 0;  // of the open file's first line
  MonotonicTime next_look_{};
};

}  // namespace sluice
