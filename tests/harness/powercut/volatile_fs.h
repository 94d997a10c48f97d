// A file system in memory that knows what a power cut would leave: bytes, names and renames count
// as safe only once they were synced, by the file for its bytes and by the folder for its names.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::powercut {

// What else a cut may leave of what was not synced.
enum class CutKind {
  kForget,  // nothing: exactly what was synced
  kRandom,  // of each file and each folder a random part, in order: torn tails, zeroed pages
};

class VolatileFs;

// A file or a folder. Opaque to callers.
class Inode {
 private:
  friend class VolatileFs;
  struct NameChange {
    std::string name;
    std::shared_ptr<Inode> target;  // null: the name goes away
  };
  bool folder = false;
  uint64_t number = 0;
  uint32_t mode = 0;
  std::string live;
  std::string safe;
  // Where `live` and `safe` may differ; begin > end: nowhere.
  size_t dirty_begin = SIZE_MAX;
  size_t dirty_end = 0;
  std::map<std::string, std::shared_ptr<Inode>> entries;
  std::map<std::string, std::shared_ptr<Inode>> safe_entries;
  std::vector<NameChange> unsafe_changes;  // in the order they were made
};

struct FileStat {
  bool folder = false;
  uint64_t number = 0;
  uint32_t mode = 0;
  uint64_t size = 0;
};

// Paths begin with a slash. Functions return zero or -errno, as FUSE wants it.
// Thread-safety: all. Failure: between Cut and PowerOn everything answers -EIO and changes nothing.
class VolatileFs {
 public:
  using Node = std::shared_ptr<Inode>;

  VolatileFs();

  int Lookup(std::string_view path, Node* node) const;
  int Stat(const Node& node, FileStat* stat) const;
  int List(const Node& folder, std::vector<std::string>* names) const;

  int Create(std::string_view path, uint32_t mode, Node* node);
  int MakeFolder(std::string_view path, uint32_t mode);
  int Remove(std::string_view path, bool folder);
  int Rename(std::string_view from, std::string_view to, bool keep_existing);

  // Bytes read, or -errno.
  int Read(const Node& node, size_t offset, size_t size, char* out) const;
  int Write(const Node& node, size_t offset, std::string_view bytes);
  int Truncate(const Node& node, size_t size);
  int SetMode(const Node& node, uint32_t mode);
  // The bytes of a file, or the names of a folder, are safe from now on.
  int Sync(const Node& node);

  // The power goes: from now on nothing works, and what was not synced is lost.
  void Cut(CutKind kind, uint64_t seed);
  void PowerOn();

  uint64_t syncs() const;

 private:
  int Find(std::string_view path, Node* node) const;
  int FindParent(std::string_view path, Node* parent, std::string* name) const;
  void SetEntry(const Node& folder, const std::string& name, Node target);
  static void MarkDirty(Inode& node, size_t begin, size_t end);
  static void MakeSafe(Inode& node);
  static void KeepSome(Inode& node, std::mt19937_64& random);
  static void Restore(const Node& node, CutKind kind, std::mt19937_64& random);

  mutable std::mutex mutex_;
  Node root_;  // guarded by mutex_, like all below
  bool off_ = false;
  uint64_t last_number_ = 1;
  uint64_t syncs_ = 0;
};

}  // namespace sluice::powercut
