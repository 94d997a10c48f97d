#include "tests/harness/powercut/volatile_fs.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

namespace sluice::powercut {
namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30;
constexpr size_t kPageBytes = 4096;

}  // namespace

VolatileFs::VolatileFs() : root_(std::make_shared<Inode>()) {
  root_->folder = true;
  root_->number = last_number_;
  root_->mode = S_IFDIR | 0755;
}

int VolatileFs::Find(std::string_view path, Node* node) const {
  Node at = root_;
  while (!path.empty()) {
    path.remove_prefix(1);
    const size_t end = std::min(path.find('/'), path.size());
    const std::string name(path.substr(0, end));
    path.remove_prefix(end);
    if (name.empty()) continue;
    if (!at->folder) return -ENOTDIR;
    const auto found = at->entries.find(name);
    if (found == at->entries.end()) return -ENOENT;
    at = found->second;
  }
  *node = std::move(at);
  return 0;
}

int VolatileFs::FindParent(std::string_view path, Node* parent, std::string* name) const {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos || slash + 1 == path.size()) return -EINVAL;
  *name = std::string(path.substr(slash + 1));
  const int error = Find(path.substr(0, slash), parent);
  if (error != 0) return error;
  return (*parent)->folder ? 0 : -ENOTDIR;
}

void VolatileFs::SetEntry(const Node& folder, const std::string& name, Node target) {
  if (target == nullptr) {
    folder->entries.erase(name);
  } else {
    folder->entries[name] = target;
  }
  folder->unsafe_changes.push_back({name, std::move(target)});
}

int VolatileFs::Lookup(std::string_view path, Node* node) const {
  std::lock_guard lock(mutex_);
  return off_ ? -EIO : Find(path, node);
}

int VolatileFs::Stat(const Node& node, FileStat* stat) const {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  *stat = {node->folder, node->number, node->mode, node->live.size()};
  return 0;
}

int VolatileFs::List(const Node& folder, std::vector<std::string>* names) const {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  if (!folder->folder) return -ENOTDIR;
  for (const auto& [name, node] : folder->entries) names->push_back(name);
  return 0;
}

int VolatileFs::Create(std::string_view path, uint32_t mode, Node* node) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  Node parent;
  std::string name;
  if (const int error = FindParent(path, &parent, &name); error != 0) return error;
  if (parent->entries.contains(name)) return -EEXIST;
  *node = std::make_shared<Inode>();
  (*node)->number = ++last_number_;
  (*node)->mode = S_IFREG | (mode & 07777);
  SetEntry(parent, name, *node);
  return 0;
}

int VolatileFs::MakeFolder(std::string_view path, uint32_t mode) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  Node parent;
  std::string name;
  if (const int error = FindParent(path, &parent, &name); error != 0) return error;
  if (parent->entries.contains(name)) return -EEXIST;
  Node node = std::make_shared<Inode>();
  node->folder = true;
  node->number = ++last_number_;
  node->mode = S_IFDIR | (mode & 07777);
  SetEntry(parent, name, std::move(node));
  return 0;
}

int VolatileFs::Remove(std::string_view path, bool folder) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  Node parent;
  std::string name;
  if (const int error = FindParent(path, &parent, &name); error != 0) return error;
  const auto found = parent->entries.find(name);
  if (found == parent->entries.end()) return -ENOENT;
  if (found->second->folder != folder) return folder ? -ENOTDIR : -EISDIR;
  if (folder && !found->second->entries.empty()) return -ENOTEMPTY;
  SetEntry(parent, name, nullptr);
  return 0;
}

int VolatileFs::Rename(std::string_view from, std::string_view to, bool keep_existing) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  Node from_parent;
  Node to_parent;
  std::string from_name;
  std::string to_name;
  if (const int error = FindParent(from, &from_parent, &from_name); error != 0) return error;
  if (const int error = FindParent(to, &to_parent, &to_name); error != 0) return error;
  const auto found = from_parent->entries.find(from_name);
  if (found == from_parent->entries.end()) return -ENOENT;
  const Node node = found->second;
  const auto existing = to_parent->entries.find(to_name);
  if (existing != to_parent->entries.end()) {
    if (keep_existing) return -EEXIST;
    if (existing->second == node) return 0;
    if (existing->second->folder && !existing->second->entries.empty()) return -ENOTEMPTY;
  }
  // The new name first: a cut between the two leaves both, never neither.
  SetEntry(to_parent, to_name, node);
  SetEntry(from_parent, from_name, nullptr);
  return 0;
}

int VolatileFs::Read(const Node& node, size_t offset, size_t size, char* out) const {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  if (offset >= node->live.size()) return 0;
  const size_t bytes = std::min(size, node->live.size() - offset);
  std::memcpy(out, node->live.data() + offset, bytes);
  return static_cast<int>(bytes);
}

void VolatileFs::MarkDirty(Inode& node, size_t begin, size_t end) {
  node.dirty_begin = std::min(node.dirty_begin, begin);
  node.dirty_end = std::max(node.dirty_end, end);
}

int VolatileFs::Write(const Node& node, size_t offset, std::string_view bytes) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  if (offset + bytes.size() > kMaxFileBytes) return -EFBIG;
  const size_t old_size = node->live.size();
  if (offset + bytes.size() > old_size) node->live.resize(offset + bytes.size());
  node->live.replace(offset, bytes.size(), bytes);
  MarkDirty(*node, std::min(offset, old_size), offset + bytes.size());
  return static_cast<int>(bytes.size());
}

int VolatileFs::Truncate(const Node& node, size_t size) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  if (size > kMaxFileBytes) return -EFBIG;
  const size_t old_size = node->live.size();
  node->live.resize(size);
  MarkDirty(*node, std::min(size, old_size), std::max(size, old_size));
  return 0;
}

int VolatileFs::SetMode(const Node& node, uint32_t mode) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  node->mode = (node->mode & S_IFMT) | (mode & 07777);
  return 0;
}

void VolatileFs::MakeSafe(Inode& node) {
  if (node.folder) {
    for (Inode::NameChange& change : node.unsafe_changes) {
      if (change.target == nullptr) {
        node.safe_entries.erase(change.name);
      } else {
        node.safe_entries[change.name] = std::move(change.target);
      }
    }
    node.unsafe_changes.clear();
    return;
  }
  // Only what changed is copied: a log is synced after every append.
  node.safe.resize(node.live.size());
  const size_t begin = std::min(node.dirty_begin, node.live.size());
  const size_t end = std::min(node.dirty_end, node.live.size());
  if (begin < end) node.safe.replace(begin, end - begin, node.live, begin, end - begin);
  node.dirty_begin = SIZE_MAX;
  node.dirty_end = 0;
}

int VolatileFs::Sync(const Node& node) {
  std::lock_guard lock(mutex_);
  if (off_) return -EIO;
  ++syncs_;
  MakeSafe(*node);
  return 0;
}

// Lets a random part of what was not synced reach the disk after all, as write-back would have.
void VolatileFs::KeepSome(Inode& node, std::mt19937_64& random) {
  if (node.folder) {
    const size_t keep = random() % (node.unsafe_changes.size() + 1);
    node.unsafe_changes.resize(keep);
    MakeSafe(node);
    return;
  }
  if (node.dirty_begin >= node.dirty_end) return;
  if (node.live.size() < node.safe.size()) {  // a cut-off tail: it happened or it did not
    if (random() % 2 == 0) MakeSafe(node);
    return;
  }
  const size_t end = std::min(node.dirty_end, node.live.size());
  if (node.dirty_begin >= end) return;
  const size_t length = end - node.dirty_begin;
  switch (random() % 4) {
    case 0:  // nothing
      return;
    case 1: {  // a torn tail, at any byte
      const size_t keep = random() % (length + 1);
      node.live.resize(std::max(node.dirty_begin + keep, node.safe.size()));
      node.dirty_end = node.dirty_begin + keep;
      break;
    }
    case 2: {  // the size, and some of the pages; the others read as zeros
      if (node.safe.size() > node.dirty_begin) return;  // only behind what was synced
      for (size_t at = node.dirty_begin; at < end;) {
        const size_t next = std::min((at / kPageBytes + 1) * kPageBytes, end);
        if (random() % 2 == 0)
          std::fill(node.live.begin() + static_cast<long>(at),
                    node.live.begin() + static_cast<long>(next), '\0');
        at = next;
      }
      break;
    }
    default:  // all of it
      break;
  }
  MakeSafe(node);
}

void VolatileFs::Restore(const Node& node, CutKind kind, std::mt19937_64& random) {
  if (kind == CutKind::kRandom) KeepSome(*node, random);
  if (!node->folder) {
    node->live = node->safe;
    node->dirty_begin = SIZE_MAX;
    node->dirty_end = 0;
    return;
  }
  node->unsafe_changes.clear();
  node->entries = node->safe_entries;
  // A folder may hold one file under two names after a rename was cut in half.
  std::set<const Inode*> seen;
  for (const auto& [name, child] : node->entries) {
    if (seen.insert(child.get()).second) Restore(child, kind, random);
  }
}

void VolatileFs::Cut(CutKind kind, uint64_t seed) {
  std::lock_guard lock(mutex_);
  std::mt19937_64 random(seed);
  off_ = true;
  Restore(root_, kind, random);
}

void VolatileFs::PowerOn() {
  std::lock_guard lock(mutex_);
  off_ = false;
}

uint64_t VolatileFs::syncs() const {
  std::lock_guard lock(mutex_);
  return syncs_;
}

}  // namespace sluice::powercut
