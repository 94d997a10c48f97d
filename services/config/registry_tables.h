// The parts of the registry, one file each. Private to it.
#pragma once

#include <vector>

#include "services/config/registry.h"

namespace sluice::config {

std::vector<Directive> GlobalDirectives();
std::vector<Directive> SourceDirectives();
std::vector<Directive> VirtualMtaDirectives();
std::vector<Directive> QueueDirectives();
std::vector<Directive> ListenerDirectives();
std::vector<Directive> LocalDirectives();

}  // namespace sluice::config
