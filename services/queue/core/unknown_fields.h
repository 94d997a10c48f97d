// Rows are written anew field by field; what a later release put into them goes along, at the end.
#pragma once

#include <string>

#include "google/protobuf/message.h"
#include "google/protobuf/unknown_field_set.h"

namespace sluice::queue {

// As bytes to append to the serialized row; mostly none.
inline std::string UnknownFieldsOf(const google::protobuf::Message& row) {
  std::string bytes;
  const auto& fields = row.GetReflection()->GetUnknownFields(row);
  if (!fields.empty()) fields.SerializeToString(&bytes);
  return bytes;
}

}  // namespace sluice::queue
