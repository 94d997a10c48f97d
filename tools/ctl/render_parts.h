// What the tables of several answers are made of. Private to the renderers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "sluice/admin/v1/admin_service.pb.h"
#include "tools/ctl/table.h"

namespace sluice::ctl {

inline constexpr size_t kReasonWidthMax = 60;
inline constexpr size_t kAddressWidthMax = 48;
inline constexpr char kCountingNote[] = "+ a lower bound: still counting after a restart\n";

std::string Number(uint64_t n);
std::string Age(int64_t since_us, int64_t now_us);
// "in 5m00s", "now", or "-" where nothing is planned.
std::string Until(int64_t when_us, int64_t now_us);
std::string ReplyText(const common::v1::Reply& reply);
// A line for each part that did not answer.
std::string Unreachable(const google::protobuf::RepeatedPtrField<std::string>& names);

// "name: value" lines, values lined up.
class Facts {
 public:
  void Add(const std::string& name, const std::string& value) {
    if (!value.empty()) table_.AddRow({name, value});
  }
  std::string ToString() const {
    const std::string text = table_.ToString();
    return text.substr(text.find('\n') + 1);  // no titles
  }

 private:
  Table table_{{{""}, {""}}};
};

}  // namespace sluice::ctl
