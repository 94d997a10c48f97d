// Writes one file with a buffer, and makes it durable. Private to the local ends.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>

namespace sluice::delivery {

// Thread-safety: none. Lifetime: closes the descriptor; what was not flushed is dropped.
class FileWriter {
 public:
  explicit FileWriter(int fd) : fd_(fd) {}
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void Write(std::string_view text);
  // A piece of a message with CR LF line ends, written with LF. With `quote_from`, as mbox wants
  // it: lines that begin with "From ", or with such a line quoted, get a ">" in front.
  void WriteLines(std::string_view piece, bool quote_from);
  // The end of a message: a last line without an end gets one.
  void EndLines();
  // Flushes and syncs. False where anything failed; error() has the first reason.
  bool Sync();
  int error() const { return error_; }
  int fd() const { return fd_; }

 private:
  void Flush();
  void WriteLine(std::string_view line, bool quote_from);

  const int fd_;
  int error_ = 0;
  std::string buffer_;
  std::string line_;  // begun, its end not yet there
};

// Syncs a folder, so that a name in it lasts. 0, or an errno.
int SyncFolder(const std::string& folder);

// Makes the folders of `path` beyond its first `kept` bytes, which end before a slash or are none,
// where they are missing, so that they last. 0, or an errno.
int MakeFolders(const std::string& path, size_t kept);

// "No space left on device"
std::string ErrorText(int error);

}  // namespace sluice::delivery
