// What ExplainQueue and its siblings share. Private to them.
#pragma once

#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "services/config/explain.h"
#include "services/config/registry.h"

namespace sluice::config {

// What one section says; the later layer wins.
struct Layer {
  const google::protobuf::Message* settings = nullptr;
  std::string place;    // key of Origins
  std::string section;  // as shown
  bool is_default = false;
};

// "file:line", or nothing.
std::string WhereOf(const Compiled& compiled, const std::string& place, int field);

// Each directive of the target once, with the last layer that says it.
std::vector<ExplainedSetting> Resolve(const Compiled& compiled, Target target,
                                      const std::vector<Layer>& layers);

}  // namespace sluice::config
