// Where a worker writes down what its limits on bytes have used, ahead of their use, so that the
// next process goes on where a killed one was.
#pragma once

#include "absl/functional/any_invocable.h"
#include "sluice/delivery/v1/volume_records.pb.h"

namespace sluice::delivery {

// Thread-safety: the worker's executor. Lifetime: outlives the worker.
class VolumeLedger {
 public:
  enum class Kept : uint8_t {
    kYes,      // durable, in the place of what was kept before
    kNothing,  // neither these nor others are there any more
    kBefore,   // what was kept before may still be there
  };
  virtual ~VolumeLedger() = default;
  // One at a time. `done` on the worker's executor, never within the call.
  virtual void Keep(v1::VolumeRecords records, absl::AnyInvocable<void(Kept)> done) = 0;
};

}  // namespace sluice::delivery
