// The file in which a delivery worker keeps what its limits on bytes have used: written by a
// running one before it uses more, and by one that ends in good order.
#pragma once

#include <string>

#include "services/base/executor.h"
#include "services/base/log/log.h"
#include "services/delivery/core/volume_ledger.h"
#include "services/node/loop_thread.h"

namespace sluice::node {

// Thread-safety: `worker`'s thread, or while that does not run. Writes happen on a thread of its
// own. Failure: what cannot be written is removed, as it would say too little; where that fails
// too, the worker is told that old records may be there.
class VolumesFile final : public delivery::VolumeLedger {
 public:
  // `log` may be null.
  VolumesFile(std::string file, Executor& worker, Log* log);
  ~VolumesFile() override;

  // What was kept, of this boot; empty records where there is nothing that can be used. It stays in
  // the file as that of a running worker until Keep replaces it.
  delivery::v1::VolumeRecords Take();

  void Keep(delivery::v1::VolumeRecords records, absl::AnyInvocable<void(Kept)> done) override;
  // The last word of a worker that has ended. Blocks; after it nothing is kept any more.
  void Leave(delivery::v1::VolumeRecords records);

 private:
  Kept Write(delivery::v1::VolumeRecords records);

  const std::string file_;
  Executor& worker_;
  Log* const log_;
  LoopThread thread_{"volumes"};
};

}  // namespace sluice::node
