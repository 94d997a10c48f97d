// Shows a VolatileFs to other processes at a mount point, by libfuse.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "tests/harness/powercut/volatile_fs.h"

struct fuse;

namespace sluice::powercut {

// Thread-safety: one thread makes and destroys it; requests are served by its own thread. The
// process that has it must not touch the mount point itself: it would wait for itself. Lifetime:
// `fs` outlives it. The destructor unmounts; processes that still have files open there get errors.
class FuseMount {
 public:
  // Null where the kernel refuses the mount; `error` says why.
  static std::unique_ptr<FuseMount> Make(VolatileFs& fs, const std::string& mount_point,
                                         std::string* error);
  ~FuseMount();
  FuseMount(const FuseMount&) = delete;
  FuseMount& operator=(const FuseMount&) = delete;

  struct Session;  // private to the implementation

 private:
  FuseMount();
  std::unique_ptr<Session> session_;
  struct fuse* fuse_ = nullptr;
  std::string mount_point_;
  std::thread thread_;
};

}  // namespace sluice::powercut
