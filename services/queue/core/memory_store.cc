#include "services/queue/core/memory_store.h"

#include <algorithm>

#include "services/base/check.h"

namespace sluice::queue {

struct MemoryStore::MemoryBatch final : Batch {
  enum class Kind : uint8_t { kPut, kDelete, kDeleteRange };
  struct Change {
    Kind kind;
    Family family;
    std::string key;
    std::string value;  // or the end of the range
  };
  void Put(Family family, std::string_view key, std::string_view value) override {
    Add({Kind::kPut, family, std::string(key), std::string(value)});
  }
  void Delete(Family family, std::string_view key) override {
    Add({Kind::kDelete, family, std::string(key), {}});
  }
  void DeleteRange(Family family, std::string_view begin, std::string_view end) override {
    Add({Kind::kDeleteRange, family, std::string(begin), std::string(end)});
  }
  size_t bytes() const override { return bytes_; }
  size_t count() const override { return changes.size(); }
  void Clear() override {
    changes.clear();
    bytes_ = 0;
  }
  void Add(Change change) {
    bytes_ += change.key.size() + change.value.size();
    changes.push_back(std::move(change));
  }
  std::vector<Change> changes;
  size_t bytes_ = 0;
};

// Walks the live rows by key, so that rows may come and go under it.
struct MemoryStore::MemoryCursor final : Cursor {
  MemoryCursor(const Rows& rows, std::string_view lower, std::string_view upper)
      : rows(rows), lower(lower), upper(upper) {
    Move(rows.lower_bound(lower));
  }
  bool Valid() const override { return valid; }
  void Next() override { Move(rows.upper_bound(key_)); }
  void Seek(std::string_view key) override {
    Move(rows.lower_bound(std::max(key, std::string_view(lower))));
  }
  std::string_view key() const override { return key_; }
  std::string_view value() const override { return value_; }
  absl::Status status() const override { return absl::OkStatus(); }
  void Move(Rows::const_iterator it) {
    valid = it != rows.end() && (upper.empty() || it->first < upper);
    if (!valid) return;
    key_ = it->first;
    value_ = it->second;
  }
  const Rows& rows;
  std::string lower;
  std::string upper;
  bool valid = false;
  std::string key_;
  std::string value_;
};

std::unique_ptr<Batch> MemoryStore::NewBatch() { return std::make_unique<MemoryBatch>(); }

void MemoryStore::Apply(Family family, std::string_view key, const std::string* value) {
  Rows& rows = live_[static_cast<size_t>(family)];
  auto it = rows.find(key);
  const bool existed = it != rows.end();
  if (!existed && value == nullptr) return;
  unsynced_.push_back(
      {family, std::string(key), existed, existed ? std::move(it->second) : std::string()});
  if (value == nullptr) {
    rows.erase(it);
  } else if (existed) {
    it->second = *value;
  } else {
    rows.emplace(key, *value);
  }
}

absl::Status MemoryStore::Commit(Batch& batch, bool sync) {
  if (health_.failed) return absl::UnavailableError("the store failed and was not reopened");
  if (sync && fail_next_sync_) {
    fail_next_sync_ = false;
    health_.failed = true;
    health_.detail = "injected sync failure";
    return absl::DataLossError("sync failed");
  }
  for (auto& change : static_cast<MemoryBatch&>(batch).changes) {
    switch (change.kind) {
      case MemoryBatch::Kind::kPut:
        Apply(change.family, change.key, &change.value);
        break;
      case MemoryBatch::Kind::kDelete:
        Apply(change.family, change.key, nullptr);
        break;
      case MemoryBatch::Kind::kDeleteRange: {
        Rows& rows = live_[static_cast<size_t>(change.family)];
        for (auto it = rows.lower_bound(change.key); it != rows.end() && it->first < change.value;
             it = rows.lower_bound(change.key)) {
          const std::string key = it->first;
          Apply(change.family, key, nullptr);
        }
        break;
      }
    }
  }
  if (sync) unsynced_.clear();
  return absl::OkStatus();
}

absl::Status MemoryStore::Get(Family family, std::string_view key, std::string* value) const {
  const Rows& rows = live_[static_cast<size_t>(family)];
  const auto it = rows.find(key);
  if (it == rows.end()) return absl::NotFoundError("no such row");
  *value = it->second;
  return absl::OkStatus();
}

std::unique_ptr<Cursor> MemoryStore::Scan(Family family, std::string_view lower,
                                          std::string_view upper, bool /*fill_cache*/) const {
  return std::make_unique<MemoryCursor>(live_[static_cast<size_t>(family)], lower, upper);
}

void MemoryStore::CutPower() {
  for (; !unsynced_.empty(); unsynced_.pop_back()) {
    Undo& undo = unsynced_.back();
    Rows& rows = live_[static_cast<size_t>(undo.family)];
    if (undo.existed) {
      rows[undo.key] = std::move(undo.value);
    } else {
      rows.erase(undo.key);
    }
  }
}

void MemoryStore::Reopen() {
  CutPower();
  health_.failed = false;
  health_.detail.clear();
}

}  // namespace sluice::queue
