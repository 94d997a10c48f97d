#include "services/config/testing/compile.h"

#include "gtest/gtest.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config::testing {

Compiled CompileOne(const std::string& text) {
  MemoryFiles files;
  return CompileText("a.conf", text, files);
}

std::shared_ptr<const PolicyView> ViewOf(const std::string& text) {
  const Compiled compiled = CompileOne(text);
  EXPECT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  auto view = PolicyView::Build(compiled.snapshot);
  EXPECT_TRUE(view.ok()) << view.status().message();
  return *view;
}

std::string Complaint(const std::string& text) {
  const Compiled compiled = CompileOne(text);
  EXPECT_EQ(compiled.diagnostics.size(), 1u) << Render(compiled.diagnostics);
  return compiled.diagnostics.empty() ? "" : compiled.diagnostics[0].ToString();
}

}  // namespace sluice::config::testing
