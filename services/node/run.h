// main of every daemon.
#pragma once

#include "services/node/options.h"

namespace sluice::node {

// Exit code: 0 after a stop that was asked for, 1 where it could not start or the spool failed, 2
// for wrong flags.
int Run(Role role, int argc, char** argv);

}  // namespace sluice::node
