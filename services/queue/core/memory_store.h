// A Store in memory that tells what was synced from what was not: simulations and tests cut its
// power, make its syncs fail, and open what is left.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "services/queue/core/store.h"

namespace sluice::queue {

// Thread-safety: one thread. Lifetime: cursors must not outlive it.
class MemoryStore final : public Store {
 public:
  std::unique_ptr<Batch> NewBatch() override;
  absl::Status Commit(Batch& batch, bool sync) override;
  absl::Status Get(Family family, std::string_view key, std::string* value) const override;
  std::unique_ptr<Cursor> Scan(Family family, std::string_view lower, std::string_view upper,
                               bool fill_cache = true) const override;
  StoreHealth Health() const override { return health_; }

  // What a power cut leaves: everything up to the last sync.
  void CutPower();
  // The next commit with sync fails, and with it the store until Reopen.
  void FailNextSync() { fail_next_sync_ = true; }
  void Reopen();
  StoreHealth& health() { return health_; }
  size_t rows(Family family) const { return live_[static_cast<size_t>(family)].size(); }

 private:
  using Rows = std::map<std::string, std::string, std::less<>>;
  struct MemoryBatch;
  struct MemoryCursor;

  std::array<Rows, kFamilyCount> live_;
  // Undoes, newest last, what was applied since the last sync: cheaper than a copy of everything.
  struct Undo {
    Family family;
    std::string key;
    bool existed;
    std::string value;
  };
  std::vector<Undo> unsynced_;
  void Apply(Family family, std::string_view key, const std::string* value);
  StoreHealth health_;
  bool fail_next_sync_ = false;
};

}  // namespace sluice::queue
