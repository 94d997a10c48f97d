// Writes services/config/REFERENCE.md into the tree that it is run from:
//   bazel run //services/config:write_reference
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "services/config/reference_page.h"

int main() {
  const char* const root = std::getenv("BUILD_WORKSPACE_DIRECTORY");
  if (root == nullptr) {
    std::fputs("run it by `bazel run //services/config:write_reference`\n", stderr);
    return 1;
  }
  std::ofstream file(std::string(root) + "/services/config/REFERENCE.md");
  file << sluice::config::ReferencePage();
  return file.flush() ? 0 : 1;
}
