// What a worker is told of a message and of its recipients: all but what only records and listings
// want, which is most of the bytes.
#pragma once

#include "sluice/common/v1/message.pb.h"

namespace sluice::queue {

// `sent` is empty.
void FillForWorker(const common::v1::Message& stored, common::v1::Message* sent);
void FillForWorker(const common::v1::Delivery& stored, common::v1::Delivery* sent);

}  // namespace sluice::queue
