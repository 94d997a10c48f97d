// What this release is: its name, which build it is, and the formats that it writes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice {

inline constexpr std::string_view kVersion = "Sluice 0.1.0";

// The spool's format (services/queue/doc/storage_format.md). Written with every open; a reader of
// an older one than kSpoolLeastReader refuses the spool.
inline constexpr uint32_t kSpoolFormat = 1;
inline constexpr uint32_t kSpoolLeastReader = 1;

// The linker's hash of this program's contents, in hex; "unknown" where it was linked without one.
std::string BuildId();

// For --version: a line each for version, build and formats, the last one without its end.
std::string VersionText();

}  // namespace sluice
