// The value that every setting has where no file says otherwise.
#pragma once

#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {

// Built once, never changed. Thread-safety: any.
const policy::v1::QueueSettings& DefaultQueueSettings();
const policy::v1::ClientSettings& DefaultClientSettings();
const policy::v1::GlobalSettings& DefaultGlobalSettings();

}  // namespace sluice::config
