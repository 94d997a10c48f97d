// The reference page of the directive language, made from the registry.
#pragma once

#include <string>

namespace sluice::config {

// Markdown. The same for the same registry. Pure.
std::string ReferencePage();

}  // namespace sluice::config
