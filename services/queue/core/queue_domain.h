// Which queue's domain a recipient belongs to.
#pragma once

#include <string>
#include <string_view>

#include "sluice/common/v1/message.pb.h"

namespace sluice::queue {

// Behind the last @; empty where there is none.
std::string_view DomainOf(std::string_view address);

// The recipient's own where nothing else is said, in the form that DNS and the configuration have.
void QueueDomainOf(const common::v1::Delivery& delivery, std::string* domain);

}  // namespace sluice::queue
