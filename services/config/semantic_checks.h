// What compiles and is most likely not meant. All of it is warnings.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "services/config/compiler.h"
#include "services/config/files.h"

namespace sluice::config {

// `compiled` was made with keep_origins. Key files are read through `files`. `owned_ips`: addresses
// and networks that delivery workers have, where that is known. At most 1,000 warnings, in order of
// line within each kind:
// - a virtual MTA without a source address; a source address that no worker has
// - DKIM keys that cannot be read, are no private keys, are short, or differ for one selector
// - ciphers that OpenSSL does not know
// - require-starttls where use-starttls is no
// - limits of backoff mode above the normal ones
// - rollups of <mx-rollup-list> that no <domain> section is about
// - hours of a schedule that have no rate, or two
std::vector<Diagnostic> CheckSemantics(const Compiled& compiled, FileSource& files,
                                       const std::optional<std::set<std::string>>& owned_ips);

}  // namespace sluice::config
