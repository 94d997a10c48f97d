// Protobuf messages as JSON for scripts. Unlike protobuf's own mapping: numbers are numbers, fields
// keep their names, message ids are the 26 characters that every other place shows, mail text is
// text and not base64.
#pragma once

#include <string>

#include "google/protobuf/message.h"

namespace sluice::ctl {

// Scalars and lists are always there, so that a filter can rely on them; sub-messages only where
// set. Enum values are lower case without the enum's prefix. Bytes that are UTF-8 are a string,
// others {"base64": "..."}; 16-byte ids are written as message ids.
std::string ToJson(const google::protobuf::Message& message, int indent = 2);

}  // namespace sluice::ctl
