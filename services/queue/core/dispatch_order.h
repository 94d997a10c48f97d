// Whose turn it is: virtual MTAs in turn, in each its queues in turn, each queue as many groups as
// its priority weighs. Deficit round robin (Shreedhar and Varghese, 1995) with the group as the
// unit of cost; lanes within a queue take their turns in the shard.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "services/queue/core/queue_table.h"

namespace sluice::queue {

// Thread-safety: the shard's executor. Lifetime: a queue in it has in_ready_list set and must not
// be forgotten.
class DispatchOrder {
 public:
  struct Turn {
    Queue* queue = nullptr;
    int groups = 0;
  };
  // Groups that a virtual MTA may take before the next one has its turn.
  static constexpr int kVmtaQuantum = 32;
  // Groups that a queue of this priority (0..100) may take in its turn.
  static int QueueQuantum(uint32_t priority) {
    return 1 + static_cast<int>(std::min<uint32_t>(priority, 100)) / 5;
  }

  bool empty() const { return turns_.empty(); }
  void Add(Queue& queue) {
    if (std::exchange(queue.in_ready_list, true)) return;
    auto [it, made] = vmtas_.try_emplace(std::string(queue.vmta()));
    it->second.queues.push_back(&queue);
    if (made) turns_.push_back(it->first);
  }
  // Takes the queue whose turn it is out; Done must follow. `weigh` gives a queue's priority.
  template <class Weigh>
  Turn Next(Weigh weigh) {
    if (turns_.empty()) return {};
    Vmta& vmta = vmtas_.find(turns_.front())->second;
    if (vmta.deficit <= 0) vmta.deficit += kVmtaQuantum;
    Queue* queue = vmta.queues.front();
    vmta.queues.pop_front();
    queue->in_ready_list = false;
    if (queue->deficit <= 0) queue->deficit += QueueQuantum(weigh(*queue));
    return {queue, std::min(vmta.deficit, queue->deficit)};
  }
  // `took` groups; `more`: it stands in line again.
  void Done(Queue& queue, int took, bool more) {
    const auto found = vmtas_.find(turns_.front());
    queue.deficit = more ? queue.deficit - took : 0;
    if (more && !std::exchange(queue.in_ready_list, true)) {
      if (queue.deficit > 0) {  // its virtual MTA's turn ended first
        found->second.queues.push_front(&queue);
      } else {
        found->second.queues.push_back(&queue);
      }
    }
    found->second.deficit -= took;
    if (found->second.queues.empty()) {
      turns_.pop_front();
      vmtas_.erase(found);
    } else if (found->second.deficit <= 0) {
      turns_.push_back(std::move(turns_.front()));
      turns_.pop_front();
    }
  }

 private:
  struct Vmta {
    std::deque<Queue*> queues;
    int deficit = 0;
  };
  absl::flat_hash_map<std::string, Vmta> vmtas_;
  std::deque<std::string> turns_;
};

}  // namespace sluice::queue
