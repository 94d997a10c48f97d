// Writes a directive's value into the field that its declaration names.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "google/protobuf/message.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"

namespace sluice::config {

// What is wrong, and with which argument (0: the first).
struct ValueError {
  std::string message;
  size_t argument = 0;
};

// `message` is of the directive's target, or nullptr: then the value is only checked. On an error
// it is as before. Pure.
std::optional<ValueError> SetField(const Directive& directive, const std::vector<Token>& arguments,
                                   google::protobuf::Message* message);

// True where the directive's field is a list that has got so long that SetField no longer looks for
// repeats in it: when all lines are read, DropRepeats takes them out.
bool IsLongList(const Directive& directive, const google::protobuf::Message& message);
void DropRepeats(const Directive& directive, google::protobuf::Message* message);

// "max-smtp-out is written max-smtp-out N | unlimited"
std::string SyntaxMessage(const Directive& directive);

}  // namespace sluice::config
