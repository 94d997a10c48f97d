#include "services/base/small_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr size_t kMaxFileBytes = 1024 * 1024;

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) {
    return absl::NotFoundError(absl::StrCat("cannot read ", file, ": ", std::strerror(errno)));
  }
  std::string content(kMaxFileBytes + 1, '\0');
  in.read(content.data(), static_cast<std::streamsize>(content.size()));
  if (in.bad()) return absl::NotFoundError(absl::StrCat("cannot read ", file));
  content.resize(static_cast<size_t>(in.gcount()));
  if (content.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file, " is larger than 1 MiB"));
  }
  return content;
}

}  // namespace sluice
