// Type file: new files, Maildir folders and mbox files.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <thread>

#include "services/delivery/local/destination.h"
#include "services/delivery/local/file_writer.h"
#include "services/delivery/local/local_job.h"
#include "services/mail/message_id.h"

namespace sluice::delivery {
namespace {

// How long another program may hold a mailbox.
constexpr auto kLockWait = std::chrono::seconds(30);
constexpr auto kLockPoll = std::chrono::milliseconds(50);

LocalVerdict Failed(const std::string& what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return Transient(full ? "4.3.1" : "4.3.0", what + ": " + ErrorText(error));
}

// A range of the lease's deliveries that get one copy.
struct Copy {
  int begin;
  int end;
};

// The same for each attempt at the same recipients: a second attempt, after a result that was
// lost, replaces the first one's file.
std::string NameOf(const LocalJob& job, const Copy& copy) {
  uint64_t hash = 0xcbf29ce484222325;
  for (int i = copy.begin; i < copy.end; ++i) {
    for (const char c : job.lease->deliveries(i).rcpt() + '\n') {
      hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    }
  }
  char hex[20];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash));
  return mail::FormatMessageId(job.lease->message().id()) + "-" + hex;
}

std::string FromOf(const LocalJob& job) { return "<" + job.lease->message().mail_from() + ">"; }

void WriteTrace(const LocalJob& job, const Copy& copy, FileWriter& file) {
  file.Write("Return-Path: " + FromOf(job) + "\n");
  if (copy.end - copy.begin == 1) {
    file.Write("Delivered-To: " + job.lease->deliveries(copy.begin).rcpt() + "\n");
  }
}

// What a pickup folder reads.
void WritePickupLines(const LocalJob& job, const Copy& copy, FileWriter& file) {
  const common::v1::Message& message = job.lease->message();
  file.Write("x-sender: " + FromOf(job) + "\r\n");
  for (int i = copy.begin; i < copy.end; ++i) {
    file.Write("x-receiver: <" + job.lease->deliveries(i).rcpt() + ">\r\n");
  }
  if (!message.envid().empty()) file.Write("x-envid: " + message.envid() + "\r\n");
  const std::string& job_id = job.lease->deliveries(copy.begin).job_id();
  if (!job_id.empty()) file.Write("x-job: " + job_id + "\r\n");
}

// Writes a file under another name first, so that whoever reads the folder sees all or nothing.
template <class Fill>
LocalVerdict NewFile(const std::string& temporary, const std::string& folder,
                     const std::string& name, Fill fill) {
  const int fd =
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return Failed(temporary, errno);
  FileWriter file(fd);
  fill(file);
  const std::string path = folder + "/" + name;
  int error = 0;
  if (!file.Sync()) {
    error = file.error();
  } else if (rename(temporary.c_str(), path.c_str()) != 0) {
    error = errno;
  }
  if (error != 0) {
    unlink(temporary.c_str());
    return Failed(path, error);
  }
  if (const int synced = SyncFolder(folder); synced != 0) return Failed(folder, synced);
  return Delivered("delivered to " + path);
}

// `kept`: how much of the path is the operator's, where no folder is made.
LocalVerdict NewPlainFile(const LocalJob& job, const Copy& copy, const std::string& folder,
                          size_t kept, bool pickup) {
  if (const int error = MakeFolders(folder, kept); error != 0) return Failed(folder, error);
  const std::string name = NameOf(job, copy) + ".eml";
  return NewFile(folder + "/." + name + ".tmp", folder, name, [&](FileWriter& file) {
    if (pickup) WritePickupLines(job, copy, file);
    for (const Body& piece : job.body) file.Write(piece.view());
  });
}

LocalVerdict ToMaildir(const LocalJob& job, const Copy& copy, const std::string& folder,
                       size_t kept) {
  if (const int error = MakeFolders(folder, kept); error != 0) return Failed(folder, error);
  for (const char* part : {"/tmp", "/new", "/cur"}) {
    const std::string path = folder + part;
    if (const int error = MakeFolders(path, folder.size()); error != 0) return Failed(path, error);
  }
  const std::string name = std::to_string(job.lease->message().time_queued_us() / 1'000'000) + "." +
                           NameOf(job, copy) + "." + job.host_name;
  return NewFile(folder + "/tmp/" + name, folder + "/new", name, [&](FileWriter& file) {
    WriteTrace(job, copy, file);
    for (const Body& piece : job.body) file.WriteLines(piece.view(), false);
    file.EndLines();
  });
}

bool Lock(const LocalJob& job, int fd) {
  const auto deadline = std::chrono::steady_clock::now() + kLockWait;
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  // Mail readers use the one or the other.
  while (flock(fd, LOCK_EX | LOCK_NB) != 0 || fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (std::chrono::steady_clock::now() >= deadline || job.is_cancelled()) return false;
    std::this_thread::sleep_for(kLockPoll);
  }
  return true;
}

// What a message that was cut off by a crash lacks before another one may follow: where no empty
// line stands before it, its "From " would be text of the one before.
std::string_view MissingLineEnds(int fd, off_t size) {
  char end[2] = {'\n', '\n'};
  const off_t from = std::max<off_t>(0, size - 2);
  if (pread(fd, end + 2 - (size - from), static_cast<size_t>(size - from), from) < 0) return "";
  return end[1] != '\n' ? "\n\n" : end[0] != '\n' ? "\n" : "";
}

LocalVerdict ToMbox(const LocalJob& job, const Copy& copy, const std::string& path, size_t kept) {
  const size_t name = path.rfind('/');
  if (name != path.npos && name > kept) {
    const std::string folder = path.substr(0, name);
    if (const int error = MakeFolders(folder, kept); error != 0) return Failed(folder, error);
  }
  const int fd =
      open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
  if (fd < 0) return Failed(path, errno);
  FileWriter file(fd);
  struct stat before {};
  if (fstat(fd, &before) != 0) return Failed(path, errno);
  if (!S_ISREG(before.st_mode)) return Transient("4.3.5", path + " is no regular file");
  if (!Lock(job, fd)) return Transient("4.2.0", path + " is locked by somebody else");
  if (fstat(fd, &before) != 0) return Failed(path, errno);
  file.Write(MissingLineEnds(fd, before.st_size));
  const std::time_t now = ToUnixMicros(job.now) / 1'000'000;
  std::tm utc{};
  gmtime_r(&now, &utc);
  char date[64];
  // As asctime has it, whatever the locale.
  static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                            "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  std::snprintf(date, sizeof date, "%s %s %2d %02d:%02d:%02d %d", kDays[utc.tm_wday],
                kMonths[utc.tm_mon], utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                utc.tm_year + 1900);
  const std::string& from = job.lease->message().mail_from();
  file.Write("From " + (from.empty() || from.find(' ') != from.npos ? "MAILER-DAEMON" : from) +
             " " + date + "\n");
  WriteTrace(job, copy, file);
  for (const Body& piece : job.body) file.WriteLines(piece.view(), true);
  file.EndLines();
  file.Write("\n");
  if (!file.Sync()) {
    // Half a message would be taken for the end of the one before.
    const int error = file.error();
    if (ftruncate(fd, before.st_size) == 0) fsync(fd);
    return Failed(path, error);
  }
  if (before.st_size == 0) {
    const size_t slash = path.rfind('/');
    SyncFolder(slash == path.npos ? "." : path.substr(0, slash + 1));
  }
  return Delivered("delivered to " + path);
}

LocalVerdict DeliverCopy(const LocalJob& job, const Copy& copy) {
  const std::string& destination = job.settings->file_destination();
  const std::string path = Expand(destination, *job.lease, copy.begin, true,
                                  job.settings->macro_variables_preserve_case());
  // Folders that a recipient's name asks for are made, and the last one; a folder that the operator
  // has named and that is missing may be one whose disk is not there.
  const size_t literal = std::min(destination.find("${"), destination.size());
  const size_t slash = destination.substr(0, literal).rfind('/');
  const size_t kept = slash == destination.npos ? 0 : slash;
  const std::string& format = job.settings->file_format();
  if (format == "maildir") return ToMaildir(job, copy, path, kept);
  if (format == "append-mbox") return ToMbox(job, copy, path, kept);
  return NewPlainFile(job, copy, path, kept, format == "newfile-pickup");
}

}  // namespace

std::vector<LocalVerdict> DeliverToFile(const LocalJob& job) {
  const int count = job.lease->deliveries_size();
  const std::string& destination = job.settings->file_destination();
  if (destination.empty()) {
    return std::vector<LocalVerdict>(static_cast<size_t>(count),
                                     Transient("4.3.5", "there is no file-destination"));
  }
  std::vector<LocalVerdict> verdicts;
  if (!NamesRecipient(destination)) {
    return std::vector<LocalVerdict>(static_cast<size_t>(count), DeliverCopy(job, {0, count}));
  }
  for (int i = 0; i < count; ++i) verdicts.push_back(DeliverCopy(job, {i, i + 1}));
  return verdicts;
}

}  // namespace sluice::delivery
