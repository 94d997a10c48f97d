#include "services/delivery/local/file_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>
#include <utility>

namespace sluice::delivery {
namespace {
constexpr size_t kBufferBytes = 64 * 1024;
}  // namespace

FileWriter::~FileWriter() {
  if (fd_ >= 0) close(fd_);
}

void FileWriter::Write(std::string_view text) {
  buffer_ += text;
  if (buffer_.size() >= kBufferBytes) Flush();
}

void FileWriter::Flush() {
  std::string_view left = buffer_;
  while (!left.empty() && error_ == 0) {
    const ssize_t written = write(fd_, left.data(), left.size());
    if (written > 0) {
      left.remove_prefix(static_cast<size_t>(written));
    } else if (written == 0 || errno != EINTR) {
      error_ = written == 0 ? EIO : errno;
    }
  }
  buffer_.clear();
}

void FileWriter::WriteLine(std::string_view line, bool quote_from) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (quote_from) {
    const size_t text = line.find_first_not_of('>');
    if (text != std::string_view::npos && line.substr(text).starts_with("From ")) Write(">");
  }
  Write(line);
  Write("\n");
}

void FileWriter::WriteLines(std::string_view piece, bool quote_from) {
  while (!piece.empty()) {
    const size_t newline = piece.find('\n');
    if (newline == std::string_view::npos) {
      line_ += piece;
      return;
    }
    const std::string_view end = piece.substr(0, newline);
    piece.remove_prefix(newline + 1);
    if (line_.empty()) {
      WriteLine(end, quote_from);
    } else {
      line_ += end;
      WriteLine(std::exchange(line_, std::string()), quote_from);
    }
  }
}

void FileWriter::EndLines() {
  if (!line_.empty()) WriteLine(std::exchange(line_, std::string()), false);
}

bool FileWriter::Sync() {
  Flush();
  while (error_ == 0 && fsync(fd_) != 0) {
    if (errno != EINTR) error_ = errno;
  }
  return error_ == 0;
}

int SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

int MakeFolders(const std::string& path, size_t kept) {
  size_t end = kept;
  do {
    end = path.find('/', end + 1);
    std::string folder = path.substr(0, end);
    if (mkdir(folder.c_str(), 0700) == 0) {
      while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
      const size_t slash = folder.rfind('/');
      const std::string parent = slash == folder.npos ? "." : folder.substr(0, slash + 1);
      if (const int error = SyncFolder(parent); error != 0) return error;
    } else if (errno != EEXIST) {
      return errno;
    }
  } while (end != path.npos);
  return 0;
}

std::string ErrorText(int error) { return std::generic_category().message(error); }

}  // namespace sluice::delivery
