// What ExplainQueue and its siblings share. Private to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
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

// Differs where the secret does; of this process only.
size_t SecretMark(std::string_view secret);
// Differs where the text does, and is the same in every process.
uint32_t TextMark(std::string_view text);

// Each directive of the target once, with the last layer that says it.
std::vector<ExplainedSetting> Resolve(const Compiled& compiled, Target target,
                                      const std::vector<Layer>& layers);

}  // namespace sluice::config
