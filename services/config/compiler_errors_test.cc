// What is said of mistakes, and what hostile files come to.
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::Complaint;

TEST(CompilerTest, ErrorsNameThePlaceAndTheRemedy) {
  EXPECT_EQ(Complaint("host-name a.test\n<domain x>\n  max-smpt-out 5\n</domain>\n"),
            "a.conf:3:3: error: unknown directive \"max-smpt-out\" in <domain>\n"
            "    max-smpt-out 5\n"
            "    ^\n"
            "  did you mean \"max-smtp-out\"?");
  EXPECT_EQ(Complaint("<virtual-mta news>\n</virtual-mta>\n<virtual-mta-pool p>\n"
                      "  virtual-mta nwes\n</virtual-mta-pool>\n"),
            "a.conf:4:15: error: there is no virtual MTA \"nwes\"\n"
            "    virtual-mta nwes\n"
            "                ^\n"
            "  did you mean \"news\"?");
  EXPECT_EQ(Complaint("domain-macro a b.test,$a\n"),
            "a.conf:1:16: error: there is no domain-macro \"a\" above\n"
            "  domain-macro a b.test,$a\n"
            "                 ^");
  EXPECT_EQ(Complaint("retry-after soon\n"),
            "a.conf:1:13: error: \"soon\" is no value of retry-after; it is written "
            "TIME,TIME,... (10m,30m,1h)\n"
            "  retry-after soon\n"
            "              ^");
  EXPECT_EQ(Complaint("<source *>\n\nuse-danne yes\n</source>\n"),
            "a.conf:3:1: error: unknown directive \"use-danne\" in <source>\n"
            "  use-danne yes\n"
            "  ^\n"
            "  did you mean \"use-dane\"? it belongs in: global, <virtual-mta>, <domain>");
}

// Columns are bytes, and the caret is where people see the character.
TEST(CompilerTest, TheCaretStandsBelowTheWordWhateverIsBeforeIt) {
  EXPECT_EQ(Complaint("postmaster\t\"\xc3\xa9\" x@y\t# z\n"),
            "a.conf:1:12: error: \"\xc3\xa9 x@y\" is no value of postmaster; it is written "
            "ADDRESS\n"
            "  postmaster \"\xc3\xa9\" x@y # z\n"
            "             ^");
  EXPECT_EQ(Complaint("alias \"\xc3\xa9\" a@b@c\n"),
            "a.conf:1:12: error: it is written alias ADDRESS ADDRESS\n"
            "  alias \"\xc3\xa9\" a@b@c\n"
            "            ^");
}

// Of a list that goes on in further lines, the line and the word are named.
TEST(CompilerTest, AnErrorInAFurtherLineIsShownThere) {
  EXPECT_EQ(Complaint("domain-macro m a.test,\n# and\n  b.test, c..d,\n  e.test\n"),
            "a.conf:3:11: error: \"c..d\" is no domain\n"
            "    b.test, c..d,\n"
            "            ^");
  EXPECT_EQ(Complaint("retry-after 10m,\n  30m, soon,\n  1h\n"),
            "a.conf:2:8: error: \"soon\" is no value of retry-after; it is written "
            "TIME,TIME,... (10m,30m,1h)\n"
            "    30m, soon,\n"
            "         ^");
  const Compiled secret = CompileOne("auth-password a,\n  hunter2, hunter2\n\tx\n");
  EXPECT_EQ(Render(secret.diagnostics).find("hunter2"), std::string::npos);
}

// One mistake, one message: what comes after the forgotten end is read as it was meant.
TEST(CompilerTest, AForgottenEndOfASectionIsSaidOnce) {
  const Compiled compiled = CompileOne(
      "<virtual-mta a>\nmax-smtp-out 5\n<virtual-mta b>\nmax-smtp-out 6\n<domain x.test>\n"
      "max-smtp-out 7\n<domain y.test>\nmax-smtp-out 8\n</domain>\n</virtual-mta>\n"
      "domain-macro z z.test\n");
  EXPECT_EQ(Render(compiled.diagnostics),
            "a.conf:3:1: error: <virtual-mta> may not be inside <virtual-mta>\n"
            "  <virtual-mta b>\n"
            "  ^\n"
            "  is </virtual-mta> missing above? the other one begins in line 1\n"
            "a.conf:7:1: error: <domain> may not be inside <domain>\n"
            "  <domain y.test>\n"
            "  ^\n"
            "  is </domain> missing above? the other one begins in line 5\n");
}

TEST(CompilerTest, EveryKindOfMistakeIsAnError) {
  for (const char* text : {
           "no-such-directive yes",
           "<domain x>\n",
           "</domain>",
           "<domain x>\n</source>\n</domain>",
           "<domain x>\n<source 10/8>\n</source>\n</domain>",
           "<domain a..b>\n</domain>",
           "<domain>\n</domain>",
           "<source nowhere>\n</source>",
           "<source 10.0.0.1/8>\n</source>",
           "<source 10/8>\nmax-msg-rate 5/s\n</source>",
           "<nonsense>\n</nonsense>",
           "<virtual-mta a/b>\n</virtual-mta>",
           "<virtual-mta a>\nsmtp-source-host 300.1.1.1 x\n</virtual-mta>",
           "<virtual-mta a>\nsmtp-source-host 0.0.0.0 x\n</virtual-mta>",
           "<virtual-mta-pool p>\nvirtual-mta nobody\n</virtual-mta-pool>",
           "<virtual-mta-pool p>\n</virtual-mta-pool>",
           "default-virtual-mta nobody",
           "max-smtp-out",
           "max-smtp-out -1",
           "default-smtp-port 70000",
           "max-message-size 1",
           "smtp-listener somewhere",
           "postmaster nobody",
           "dsn-return-default some",
           "host-name \"\x01\"",
           "smtp-client-certificate a b c",
           "smtp-server-tls-certificate",
           "<domain $m>\n</domain>",
           "domain-macro m",
           "include",
           "include missing.conf",
           "include http://x/y",
           "host-name \"open",
       }) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.ok()) << text;
    for (const Diagnostic& diagnostic : compiled.diagnostics) {
      EXPECT_TRUE(diagnostic.ToString().starts_with("a.conf:")) << diagnostic.ToString();
    }
  }
}

TEST(CompilerTest, SecretsAreInNoMessage) {
  for (const char* text :
       {"http-api-key hunter2\n", "http-api-key \"hunter2\n", "<domain x>\nauth-pasword hunter2\n",
        "<domain x>\npassword\thunter2\n</domain>\n",
        "http-delivery-url https://me:hunter2@a.test/x\n",
        "smtp-client-certificate /f hunter2 hunter2\n", "pasword hunter2\n",
        "<virtual-mta x>\nhttp-apikey hunter2\n</virtual-mta>\n",
        "<source *>\nhttp-api-key hunter2\n"}) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.diagnostics.empty()) << text;
    EXPECT_EQ(Render(compiled.diagnostics).find("hunter2"), std::string::npos)
        << Render(compiled.diagnostics);
  }
}

TEST(CompilerTest, HostileFilesEndInABoundedDiagnosis) {
  std::string nested;
  for (int i = 0; i < 10'000; ++i) nested += "<domain a.test>\n";
  std::string doubling = "domain-macro m0 a.test,b.test\n";
  for (int i = 1; i < 40; ++i) {
    const std::string before = "$m" + std::to_string(i - 1);
    doubling += "domain-macro m" + std::to_string(i) + " " + before + "," + before + "\n";
  }
  std::string mistakes;
  for (int i = 0; i < 100'000; ++i) mistakes += "no-such-directive\n";
  for (const std::string& text :
       {nested, doubling, mistakes, "host-name " + std::string(size_t{2} << 20, 'a') + "\n",
        "host-name \"" + std::string(size_t{2} << 20, '"'), std::string(100'000, '<'),
        std::string(100'000, '\0')}) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.ok());
    EXPECT_LE(compiled.diagnostics.size(), 1'001u);
    // Each is shown with its line, which may be long.
    EXPECT_LE(Render(compiled.diagnostics).size(), size_t{2} << 20);
  }
}

}  // namespace
}  // namespace sluice::config
