// Makes the ends on this machine look like connections: the worker sends a group, and a file, a
// program or an HTTP request takes it on a blocking thread.
#pragma once

#include <deque>
#include <memory>

#include "services/base/executor.h"
#include "services/delivery/core/connection.h"
#include "services/delivery/local/blocking_pool.h"

namespace sluice::delivery {

struct LocalOptions {
  // At most, all ends together, and those that have the same file, program or URL.
  size_t threads = 16;
  size_t threads_of_an_end = 4;
  // Text of messages in work and waiting; one that is larger goes alone.
  uint64_t max_body_bytes = 256 * 1024 * 1024;
};

// Connects by the settings' type: local ends itself, all else by `remote`. Thread-safety: the
// executor's thread. Lifetime: executor and `remote` outlive it, and it outlives its connections;
// the destructor waits for what is being written.
class LocalConnections final : public ConnectionFactory {
 public:
  LocalConnections(Executor& executor, ConnectionFactory& remote, const LocalOptions& options);
  ~LocalConnections() override;

  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override;

 private:
  class End;

  // Whether a message of that size may be read now; else it waits in waiting_.
  bool TakeRoom(End* end, uint64_t bytes);
  void GiveRoom(uint64_t bytes);

  Executor& executor_;
  ConnectionFactory& remote_;
  const LocalOptions options_;
  uint64_t body_bytes_ = 0;
  std::deque<End*> waiting_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  BlockingPool pool_;  // ends first
};

}  // namespace sluice::delivery
