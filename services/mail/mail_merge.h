// Mail merge as PowerMTA has it: one message, and for each recipient its own values and parts.
// XDFN lines define, "[name]" in the text is where a value goes, "[[]" is a "[".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "services/mail/server_reply.h"

namespace sluice::mail {

inline constexpr size_t kMaxMergeNameBytes = 64;
// Of one recipient, names and values together.
inline constexpr size_t kMaxMergeBytes = 16 * 1024;
inline constexpr uint32_t kMaxMergeParts = 1000;

// What XDFN lines say of the recipients that follow.
struct MergeDefinitions {
  std::vector<std::pair<std::string, std::string>> variables;  // names in lower case, each once
  std::vector<uint32_t> parts;                                 // *parts; empty: all
  std::optional<std::string> vmta;                             // *vmta
  std::optional<std::string> job_id;                           // *jobid
  std::optional<std::string> envid;                            // *envid

  size_t bytes() const;
};

// `argument` is what follows XDFN: name="value" …, a quote in a value doubled; quotes may be left
// out where the value has no blanks. Adds to `out`, replacing values of the same name, or returns
// the refusal and leaves it as it was. A value with a control character is refused: it could begin
// a header field, or end the message.
std::optional<ServerReply> ParseMergeDefinitions(std::string_view argument, MergeDefinitions& out);

// "XPRT n [LAST]".
struct PartCommand {
  uint32_t number = 0;  // from 1
  bool last = false;
};
std::optional<PartCommand> ParsePartCommand(std::string_view argument);

// Appends `text` with its variables replaced. `lookup` gets a name in lower case, and returns
// nothing where it is not defined: then it stands for nothing, or, unless
// `expands_undefined`, for itself. Values are not searched for variables. No control character but
// tab comes out of a value.
void ExpandMerge(std::string_view text,
                 absl::FunctionRef<std::optional<std::string_view>(std::string_view)> lookup,
                 bool expands_undefined, std::string& out);

}  // namespace sluice::mail
