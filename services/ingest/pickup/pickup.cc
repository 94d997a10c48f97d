#include "services/ingest/pickup/pickup.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <deque>
#include <optional>
#include <system_error>
#include <utility>

#include "services/base/latest_time.h"
#include "services/base/log/log.h"
#include "services/ingest/pickup/pickup_file.h"

namespace sluice::ingest {
namespace {

// Names of one turn; the rest is read in the next one.
constexpr size_t kMaxNames = 1000;
// What the bad folder keeps of one name; more stay where they are, with a warning.
constexpr int kMaxBadOfOneName = 1000;

std::string ErrorText(int error) { return std::generic_category().message(error); }

void SyncFolder(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

// Which file this is: another one under the same name is another message.
std::string KeyOf(const std::string& path, const struct stat& facts) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : path) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  char text[120];
  std::snprintf(
      text, sizeof text, "pickup-%016llx-%llx-%llx-%llx-%llx.%lx",
      static_cast<unsigned long long>(hash), static_cast<unsigned long long>(facts.st_dev),
      static_cast<unsigned long long>(facts.st_ino), static_cast<unsigned long long>(facts.st_size),
      static_cast<unsigned long long>(facts.st_mtim.tv_sec),
      static_cast<unsigned long>(facts.st_mtim.tv_nsec));
  return text;
}

// Whether the name now stands for another file, or one that was written to since.
bool IsAnother(const std::string& path, const std::string& key) {
  struct stat facts {};
  return lstat(path.c_str(), &facts) == 0 && KeyOf(path, facts) != key;
}

// The whole file, or why not.
absl::StatusOr<std::string> ReadAll(int fd, uint64_t size) {
  std::string text(size, '\0');
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t got = read(fd, text.data() + at, text.size() - at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::UnavailableError(ErrorText(errno));
    if (got == 0) return absl::UnavailableError("the file got shorter while it was read");
    at += static_cast<size_t>(got);
  }
  return text;
}

}  // namespace

struct Pickup::File {
  std::string path;
  std::string key;
  std::string folder;
  std::string bad;
  uint64_t size = 0;
};

struct Pickup::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  // All guarded by mutex.
  std::deque<std::pair<File, absl::Status>> answers;
  std::optional<std::vector<Folder>> folders;  // of a new policy, as the next two
  Duration retry{};
  bool remove_dot = false;
  bool stopping = false;
  PickupCounters counters;
};

Pickup::Pickup(const Clock& clock, Submit submit, const PickupOptions& options, Log* log)
    : clock_(clock),
      log_(log),
      submit_(std::move(submit)),
      options_(options),
      shared_(std::make_shared<Shared>()) {}

Pickup::~Pickup() { Stop(Duration(0)); }

void Pickup::SetPolicy(const config::PolicyView& policy) {
  std::vector<Folder> folders;
  for (const auto& each : policy.global().pickups()) {
    folders.push_back({each.folder(), each.bad_folder()});
  }
  const std::lock_guard lock(shared_->mutex);
  shared_->folders = std::move(folders);
  shared_->retry = Duration(policy.global().pickup_retry_interval_us());
  shared_->remove_dot = policy.global().pickup_remove_dot();
  shared_->changed.notify_all();
}

void Pickup::Start() {
  thread_ = std::thread([this] { Work(); });
}

void Pickup::Stop(Duration limit) {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->stopping = true;
    shared_->changed.notify_all();
  }
  thread_.join();
  const MonotonicTime deadline = clock_.Now() + limit;
  while (!under_way_.empty() && clock_.Now() < deadline) {
    std::unique_lock lock(shared_->mutex);
    shared_->changed.wait_for(lock, std::chrono::milliseconds(50),
                              [this] { return !shared_->answers.empty(); });
    lock.unlock();
    TakeAnswers();
  }
}

void Pickup::Work() {
  std::unique_lock lock(shared_->mutex);
  while (!shared_->stopping) {
    lock.unlock();
    RunOnce();
    lock.lock();
    shared_->changed.wait_for(lock, options_.period, [this] {
      return shared_->stopping || shared_->folders || !shared_->answers.empty();
    });
  }
}

void Pickup::RunOnce() {
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->folders) {
      folders_ = *std::exchange(shared_->folders, std::nullopt);
      if (shared_->retry > Duration(0)) options_.retry = shared_->retry;
      remove_dot_ = shared_->remove_dot;
    }
  }
  TakeAnswers();
  for (Folder& folder : folders_) {
    if (clock_.Now() >= folder.not_before) Scan(folder);
  }
  const auto broken = std::count_if(folders_.begin(), folders_.end(),
                                    [](const Folder& f) { return !f.broken.empty(); });
  const std::lock_guard lock(shared_->mutex);
  shared_->counters.stuck = troubles_.size() + static_cast<uint64_t>(broken);
}

PickupCounters Pickup::counters() const {
  const std::lock_guard lock(shared_->mutex);
  return shared_->counters;
}

void Pickup::TakeAnswers() {
  std::deque<std::pair<File, absl::Status>> answers;
  {
    const std::lock_guard lock(shared_->mutex);
    answers.swap(shared_->answers);
  }
  for (const auto& [file, status] : answers) {
    under_way_.erase(file.path);
    bytes_under_way_ -= file.size;
    Finish(file, status);
  }
}

void Pickup::Finish(const File& file, const absl::Status& status) {
  // A program that uses a name again, or was not done, has put another message there meanwhile. It
  // is not this one's to be removed with: it is offered like any other.
  if (IsAnother(file.path, file.key)) {
    Warn(status.ok() ? "a file changed while its message was taken: it is read again"
                     : "a file changed while its message was refused (" +
                           std::string(status.message()) + "): it is read again",
         file.path);
    troubles_.erase(file.path);
    const std::lock_guard lock(shared_->mutex);
    shared_->counters.taken += status.ok();
    return;
  }
  if (status.ok()) {
    RemoveTaken(file.path, file.folder, file.key);
    const std::lock_guard lock(shared_->mutex);
    ++shared_->counters.taken;
    return;
  }
  if (status.code() == absl::StatusCode::kInvalidArgument ||
      status.code() == absl::StatusCode::kPermissionDenied) {
    MarkBad(file.path, file.bad, std::string(status.message()));
    return;
  }
  troubles_.erase(file.path);
  for (Folder& folder : folders_) {
    if (folder.path == file.folder) folder.not_before = clock_.Now() + options_.retry;
  }
  const std::lock_guard lock(shared_->mutex);
  ++shared_->counters.put_off;
}

Pickup::Trouble& Pickup::Delay(const std::string& path) {
  Trouble& trouble = troubles_[path];
  Duration wait = options_.retry;
  for (uint32_t i = 0; i < trouble.tries && wait < options_.max_retry; ++i) wait *= 2;
  ++trouble.tries;
  trouble.not_before = clock_.Now() + std::min(wait, options_.max_retry);
  return trouble;
}

void Pickup::OnUnreadable(const std::string& path, const std::string& bad, const std::string& why) {
  {
    const std::lock_guard lock(shared_->mutex);
    ++shared_->counters.unreadable;
  }
  const uint32_t tries = Delay(path).tries;
  if (tries >= options_.max_reads) {
    MarkBad(path, bad, "the file cannot be read: " + why);
    return;
  }
  Warn("a file cannot be read: " + why + "; try " + std::to_string(tries) + " of " +
           std::to_string(options_.max_reads) + ", it then goes to the bad folder",
       path);
}

// It must not be offered again: once its key is forgotten that would be another message.
void Pickup::RemoveTaken(const std::string& path, const std::string& folder,
                         const std::string& key) {
  if (unlink(path.c_str()) == 0 || errno == ENOENT) {
    // Without it a power cut might bring the file back after its key is forgotten.
    SyncFolder(folder);
    troubles_.erase(path);
    return;
  }
  Warn("a file is taken and cannot be removed: " + ErrorText(errno), path);
  Delay(path).taken = key;
}

void Pickup::SayBroken(Folder& folder, std::string why) {
  if (folder.broken == why) return;
  Warn(why, folder.path);
  folder.broken = std::move(why);
}

// `names`: all that the folder has.
void Pickup::ForgetTroubles(const std::string& folder, const std::vector<std::string>& names) {
  const std::string prefix = folder + "/";
  for (auto each = troubles_.lower_bound(prefix);
       each != troubles_.end() && each->first.starts_with(prefix);) {
    const std::string name = each->first.substr(prefix.size());
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      each = troubles_.erase(each);
    } else {
      ++each;
    }
  }
}

void Pickup::Warn(const std::string& what, const std::string& path) {
  if (log_ != nullptr) log_->Warn("pickup_failed", what, {{"path", path}});
}

void Pickup::MarkBad(const std::string& path, const std::string& bad, const std::string& reason) {
  // Bad ones of the same name are kept, too.
  const std::string wanted = bad + "/" + path.substr(path.rfind('/') + 1);
  std::string target = wanted;
  int moved = -1;
  for (int i = 1; i <= kMaxBadOfOneName; ++i) {
    moved = renameat2(AT_FDCWD, path.c_str(), AT_FDCWD, target.c_str(), RENAME_NOREPLACE);
    if (moved != 0 && errno == EINVAL) {  // a file system without it
      const bool there = access(target.c_str(), F_OK) == 0;
      if (!there) moved = rename(path.c_str(), target.c_str());
      if (there) errno = EEXIST;
    }
    if (moved == 0 || errno != EEXIST) break;
    target = wanted + "." + std::to_string(i);
  }
  if (moved != 0) {
    Warn("a file is bad (" + reason + ") and cannot be moved to " + bad + ": " + ErrorText(errno),
         path);
    Delay(path);
    return;
  }
  troubles_.erase(path);
  const int fd = open((target + ".reason").c_str(),
                      O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd >= 0) {
    const std::string line = reason + "\n";
    if (write(fd, line.data(), line.size()) < 0) {
      Warn("the reason cannot be written: " + ErrorText(errno), target);
    }
    close(fd);
  }
  const std::lock_guard lock(shared_->mutex);
  ++shared_->counters.bad;
}

void Pickup::Scan(Folder& folder) {
  DIR* const directory = opendir(folder.path.c_str());
  if (directory == nullptr) {
    SayBroken(folder, "a folder cannot be read: " + ErrorText(errno));
    return;
  }
  // What is taken must be removed.
  if (faccessat(AT_FDCWD, folder.path.c_str(), W_OK | X_OK, AT_EACCESS) != 0) {
    SayBroken(folder, "a folder may not be written to: " + ErrorText(errno));
    closedir(directory);
    return;
  }
  folder.broken.clear();
  std::vector<std::string> names;
  std::vector<std::string> waiting;
  const MonotonicTime now = clock_.Now();
  bool all = true;
  while (const dirent* const entry = readdir(directory)) {
    if (names.size() >= kMaxNames) {
      all = false;
      break;
    }
    const std::string name = entry->d_name;
    const std::string path = folder.path + "/" + name;
    if (name.starts_with('.')) continue;
    const auto trouble = troubles_.find(path);
    if (under_way_.contains(path) ||
        (trouble != troubles_.end() && now < trouble->second.not_before)) {
      waiting.push_back(name);  // and holds up nobody
    } else {
      names.push_back(name);
    }
  }
  closedir(directory);
  std::sort(names.begin(), names.end());
  if (all && !troubles_.empty()) {
    waiting.insert(waiting.end(), names.begin(), names.end());
    ForgetTroubles(folder.path, waiting);
  }
  for (const std::string& name : names) {
    if (!Offer(folder, name)) return;
  }
}

bool Pickup::Offer(Folder& folder, const std::string& name) {
  if (under_way_.size() >= options_.max_messages) return false;
  const std::string path = folder.path + "/" + name;
  const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) {
    const int error = errno;
    // Gone, a link, a socket: nothing of ours.
    if (error == ENOENT || error == ELOOP || error == ENXIO) return true;
    if (error == EMFILE || error == ENFILE || error == ENOMEM) {
      Warn("no file can be opened now: " + ErrorText(error), path);
      folder.not_before = clock_.Now() + options_.retry;
      return false;
    }
    OnUnreadable(path, folder.bad, ErrorText(error));
    return true;
  }
  struct stat facts {};
  if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    close(fd);
    return true;
  }
  const std::string key = KeyOf(path, facts);
  if (const auto trouble = troubles_.find(path);
      trouble != troubles_.end() && trouble->second.taken == key) {
    close(fd);
    RemoveTaken(path, folder.path, key);
    return true;
  }
  // Whoever may write here may set any time.
  const int64_t changed_s =
      std::clamp<int64_t>(facts.st_mtim.tv_sec, 0, kLatestUnixUs / 1'000'000 - 1);
  const auto changed = FromUnixMicros(changed_s * 1'000'000 + facts.st_mtim.tv_nsec / 1000);
  const uint64_t size = static_cast<uint64_t>(facts.st_size);
  const WallTime now = clock_.WallNow();
  if (changed <= now && now - changed < options_.settle) {
    close(fd);
    return true;
  }
  if (!under_way_.empty() && bytes_under_way_ + size > options_.max_bytes) {
    close(fd);
    return false;
  }
  if (size > options_.max_file_bytes) {
    close(fd);
    MarkBad(path, folder.bad, "the file is too large");
    return true;
  }
  const absl::StatusOr<std::string> text = ReadAll(fd, size);
  close(fd);
  if (!text.ok()) {
    OnUnreadable(path, folder.bad, std::string(text.status().message()));
    return true;
  }
  absl::StatusOr<v1::InjectRequest> request = ReadPickupFile(*text, remove_dot_);
  if (!request.ok()) {
    MarkBad(path, folder.bad, std::string(request.status().message()));
    return true;
  }
  request->set_idempotency_key(key);
  under_way_.insert(path);
  bytes_under_way_ += size;
  submit_(*std::move(request), [shared = shared_, file = File{path, key, folder.path, folder.bad,
                                                              size}](absl::Status status) {
    const std::lock_guard lock(shared->mutex);
    shared->answers.emplace_back(file, std::move(status));
    shared->changed.notify_all();
  });
  return true;
}

}  // namespace sluice::ingest
