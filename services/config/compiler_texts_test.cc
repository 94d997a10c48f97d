// Directives that are texts, or name files of text.
#include "gtest/gtest.h"
#include "services/config/compile_cache.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

class CompilerTextsTest : public ::testing::Test {
 protected:
  Compiled Compile(const std::string& text) {
    return CompileText("/etc/sluice/a.conf", text, files_);
  }
  static std::shared_ptr<const PolicyView> ViewOf(const Compiled& compiled) {
    auto view = PolicyView::Build(compiled.snapshot);
    EXPECT_TRUE(view.ok()) << view.status();
    return view.ok() ? *view : PolicyView::Defaults();
  }
  std::string Complaint(const std::string& text) {
    const Compiled compiled = Compile(text);
    EXPECT_EQ(compiled.diagnostics.size(), 1U) << Render(compiled.diagnostics);
    return compiled.diagnostics.empty() ? "" : compiled.diagnostics[0].message;
  }
  MemoryFiles files_;
};

TEST_F(CompilerTextsTest, TemplatesOfReports) {
  files_.files["/etc/sluice/sorry.txt"] = "Sorry,\n${recipient}\n";
  const Compiled compiled = Compile(
      "custom-dsn-from-header \"Reports <r@a.test>\"\ndsn-failed-from-template \"<b@${host}>\"\n"
      "dsn-failed-subject-template \"${subject} came back\"\n"
      "dsn-failed-body-template-from sorry.txt\n");
  ASSERT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  const auto view = ViewOf(compiled);
  const auto& settings = view->global();
  EXPECT_EQ(settings.custom_dsn_from_header(), "Reports <r@a.test>");
  EXPECT_EQ(settings.dsn_failed_from_template(), "<b@${host}>");
  EXPECT_EQ(settings.dsn_failed_subject_template(), "${subject} came back");
  EXPECT_EQ(settings.dsn_failed_body_template(), "Sorry,\n${recipient}\n");
}

TEST_F(CompilerTextsTest, ATemplateThatCannotBeIsRefused) {
  EXPECT_NE(Complaint("dsn-failed-subject-template \"${who}\"\n").find("a report has no ${who}"),
            std::string::npos);
  EXPECT_NE(Complaint("dsn-failed-body-template-from none.txt\n").find("none.txt"),
            std::string::npos);
  files_.files["/etc/sluice/large.txt"] = std::string(40'000, 'x');
  EXPECT_NE(Complaint("dsn-failed-body-template-from large.txt\n").find("larger than 32 KiB"),
            std::string::npos);
}

TEST_F(CompilerTextsTest, HeaderLinesOfAFile) {
  files_.files["/etc/sluice/h.txt"] = "X-A: 1\r\n\tmore\n\nX-B: 2";
  files_.files["/etc/sluice/own.txt"] = "X-C: 3\n";
  const Compiled compiled = Compile(
      "include-headers-from h.txt\n<virtual-mta v>\ninclude-headers-from own.txt\n</virtual-mta>\n"
      "<virtual-mta w>\ninclude-headers-from \"\"\n</virtual-mta>\n");
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  const auto view = ViewOf(compiled);
  EXPECT_EQ(view->global().include_headers(), "X-A: 1\r\n\tmore\r\nX-B: 2\r\n");
  EXPECT_EQ(view->FindVirtualMta("v")->include_headers(), "X-C: 3\r\n");
  EXPECT_TRUE(view->FindVirtualMta("w")->has_include_headers()) << "none at all";
  for (const char* bad : {"no field\n", " folded\n", "X: a\x01\n", "X A: b\n"}) {
    files_.files["/etc/sluice/h.txt"] = bad;
    EXPECT_NE(Complaint("include-headers-from h.txt\n").find("line 1: this is no header field"),
              std::string::npos)
        << bad;
  }
  files_.files["/etc/sluice/h.txt"] =
      "X-A: Gr\xFC\xDF"
      "e\n";
  EXPECT_NE(Complaint("include-headers-from h.txt\n").find("it is not UTF-8"), std::string::npos);
}

TEST_F(CompilerTextsTest, HeaderLinesOfHttpDelivery) {
  files_.files["/etc/sluice/h.txt"] = "X-A: 1\r\n\nAuthorization: Bearer t0p\n";
  const std::string text =
      "<domain a.test>\nhttp-delivery-header \"X-B: 2\"\nhttp-delivery-extra-headers h.txt\n"
      "</domain>\n<domain b.test>\nhttp-delivery-extra-headers h.txt\n"
      "http-delivery-extra-headers \"\"\n</domain>\n";
  CompileOptions options;
  CompileCache cache;
  options.cache = &cache;
  const auto headers = [&](const std::string& domain) {
    const Compiled compiled = CompileText("/etc/sluice/a.conf", text, files_, options);
    EXPECT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
    const auto settings = ViewOf(compiled)->ForQueue(domain, "default", "");
    std::string all;
    for (const auto& each : settings->http_delivery_headers().values()) all += each + "|";
    return all;
  };
  EXPECT_EQ(headers("a.test"), "X-B: 2|X-A: 1|Authorization: Bearer t0p|");
  EXPECT_EQ(headers("b.test"), "");
  // A reload after the file changed, and the section did not.
  files_.files["/etc/sluice/h.txt"] = "X-A: 2\n";
  EXPECT_EQ(headers("a.test"), "X-B: 2|X-A: 2|");
  files_.files["/etc/sluice/h.txt"] = "X-A: 2\n folded\n";
  EXPECT_NE(Complaint("<domain a.test>\nhttp-delivery-extra-headers h.txt\n</domain>\n")
                .find("line 2: this is no header field"),
            std::string::npos);
}

TEST_F(CompilerTextsTest, RewriteLists) {
  const Compiled compiled = Compile(
      "<virtual-mta v>\nsmtp-source-host 192.0.2.1 v.test\nrewrite-list Partners\n</virtual-mta>\n"
      "<rewrite-list partners>\nmail-from Ann@A.test boss@b.test\nfrom-domain a.TEST b.test\n"
      "</rewrite-list>\n");
  ASSERT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  const auto view = ViewOf(compiled);
  const auto* const list = view->FindRewriteList(view->FindVirtualMta("v")->rewrite_list());
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(list->mail_from().at("ann@a.test"), "boss@b.test");
  EXPECT_EQ(list->from_domain().at("a.test"), "b.test");
  EXPECT_NE(Complaint("<rewrite-list x>\nmail-from a@b.test nobody\n</rewrite-list>\n")
                .find("\"nobody\" is no address"),
            std::string::npos);
  EXPECT_NE(Complaint("<virtual-mta v>\nsmtp-source-host 192.0.2.1 v.test\nrewrite-list none\n"
                      "</virtual-mta>\n")
                .find("there is no <rewrite-list none>"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice::config
