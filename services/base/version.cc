#include "services/base/version.h"

#include <elf.h>
#include <link.h>

#include <cstring>

namespace sluice {
namespace {

constexpr size_t Padded(size_t bytes) { return (bytes + 3) & ~size_t{3}; }

// The first object that is visited is the program; the walk ends with it.
int TakeBuildId(dl_phdr_info* info, size_t /*size*/, void* into) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    const auto* at = reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);
    const char* const end = at + header.p_memsz;
    while (at + sizeof(ElfW(Nhdr)) <= end) {
      ElfW(Nhdr) note;
      std::memcpy(&note, at, sizeof(note));
      const char* const name = at + sizeof(note);
      const char* const value = name + Padded(note.n_namesz);
      at = value + Padded(note.n_descsz);
      if (at > end) break;
      if (note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 ||
          std::memcmp(name, "GNU", 4) != 0) {
        continue;
      }
      static_cast<std::string*>(into)->assign(value, note.n_descsz);
      return 1;
    }
  }
  return 1;
}

}  // namespace

std::string BuildId() {
  constexpr char kHex[] = "0123456789abcdef";
  std::string id;
  dl_iterate_phdr(TakeBuildId, &id);
  if (id.empty()) return "unknown";
  std::string text;
  for (const char c : id) {
    text.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
    text.push_back(kHex[static_cast<unsigned char>(c) & 15]);
  }
  return text;
}

std::string VersionText() {
  std::string text(kVersion);
  text += "\nbuild " + BuildId();
#ifdef __clang__
  text += ", clang " __clang_version__;
#else
  text += ", gcc " __VERSION__;
#endif
#ifndef __OPTIMIZE__
  text += ", not optimised";
#endif
#ifdef SLUICE_SANITIZER
  text += ", with sanitizers";
#endif
  text += "\nspool format " + std::to_string(kSpoolFormat) +
          ", read by releases that know format " + std::to_string(kSpoolLeastReader) +
          " or a later one";
  return text;
}

}  // namespace sluice
