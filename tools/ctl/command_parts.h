// What the commands say and read alike. Private to them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "tools/ctl/commands.h"

namespace sluice::ctl {

// The answer, in the form that was asked for: `text`, or the message as JSON.
void Print(Context& context, const google::protobuf::Message& message, const std::string& text);
// Both tell what went wrong and return the exit code.
int Failed(Context& context, const grpc::Status& status, std::string_view what);
int Usage(Context& context, std::string_view what);
std::string Author(const Context& context, const std::string& given);
// Nothing, with the error told, where it is no message id.
std::optional<std::string> IdBytes(Context& context, const std::string& text);
std::string Count(uint64_t n, const char* what);

template <typename Response>
int Partly(const Response& response) {
  return response.unreachable().empty() ? kExitOk : kExitPartly;
}

}  // namespace sluice::ctl
