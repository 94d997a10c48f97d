// What an event of the outbox says in the log of the process: those that an operator may have to
// act on as warnings, every other message transition at debug level.
#pragma once

#include "services/base/log/log.h"
#include "sluice/common/v1/event.pb.h"

namespace sluice::queue {

// Never writes content. Costs nothing where the level is off.
void LogEvent(Log& log, const common::v1::Event& event);

}  // namespace sluice::queue
