// The reverse of the compiler: settings as lines of a directive file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/message.h"
#include "services/config/registry.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// The values of `directive` in `message`, one for each line that it takes; empty where the message
// does not say it. Secrets are written as asked for by `with_secrets`, else "(secret)". Pure.
std::vector<std::string> PrintValues(const Directive& directive,
                                     const google::protobuf::Message& message,
                                     bool with_secrets = false);

// "name value" for every field that is set, in the registry's order. Pure.
std::vector<std::string> PrintSettings(Scope scope, Target target,
                                       const google::protobuf::Message& message,
                                       bool with_secrets = false);

// In quotes where the lexer needs them.
std::string PrintWord(std::string_view text);

// "/.../flags" for an expression as ConsumeRegex gives it.
std::string PrintRegex(std::string_view expression);

// A regex as a directive said it, between slashes or bare.
std::string PrintWritten(std::string_view regex);

// The value of a line of <limits>.
std::string PrintClusterRate(const policy::v1::ClusterRate& said);

// A directive file that compiles to the same sections; control entries are left out. Pure.
std::string PrintSnapshot(const policy::v1::PolicySnapshot& snapshot, bool with_secrets = false);

}  // namespace sluice::config
