// What one file alone, "a.conf", comes to.
#pragma once

#include <memory>
#include <string>

#include "services/config/compiler.h"
#include "services/config/policy_view.h"

namespace sluice::config::testing {

Compiled CompileOne(const std::string& text);
// The same as services see it; fails the test where there is anything to say about the text.
std::shared_ptr<const PolicyView> ViewOf(const std::string& text);
// What is said of a text of which exactly one thing is to be said.
std::string Complaint(const std::string& text);

}  // namespace sluice::config::testing
