// What a message is given on its way out: another sender (rewrite-list), header fields
// (include-headers-from, a Date of its delivery).
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "services/base/clock.h"
#include "services/config/policy_view.h"
#include "services/delivery/core/connection.h"

namespace sluice::delivery {

// Thread-safety: one executor.
class OutgoingEdits {
 public:
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);

  // Changes what is about to be sent for the virtual MTA; `pool` may be empty. The lease's message
  // then says size and sender as they are sent.
  void Apply(std::string_view vmta, std::string_view pool, WallTime now, queue::v1::Lease* lease,
             Transaction* transaction) const;

 private:
  std::string HeaderFor(std::string_view vmta, std::string_view pool, WallTime now,
                        const common::v1::Message& message) const;
  std::string SenderFor(std::string_view vmta, std::string_view pool,
                        const std::string& sender) const;

  std::shared_ptr<const config::PolicyView> policy_;
  // Whether anything asks for them, so that most messages are not looked at.
  bool rewrites_ = false;
  bool includes_ = false;
};

}  // namespace sluice::delivery
