// Where each setting of a compiled configuration was said.
#pragma once

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"

namespace sluice::config {

struct Origin {
  std::shared_ptr<const std::string> file;
  int line = 0;  // from 1
};

// By field number of one settings message.
using FieldOrigins = absl::flat_hash_map<int, Origin>;

// By place: "global settings", "global queue", "global client"; the name of a section of the
// snapshot, "domain/example.com"; inside of a virtual MTA or pool "vmta/news queue",
// "vmta/news domain/example.com", "vmta/news macro-domain/example.com".
using Origins = absl::flat_hash_map<std::string, FieldOrigins>;

}  // namespace sluice::config
