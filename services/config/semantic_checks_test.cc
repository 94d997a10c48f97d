// Proves that what compiles and is likely not meant is told.
#include "services/config/semantic_checks.h"

#include <map>

#include "gtest/gtest.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

// RFC 8463 A.2's Ed25519 key.
constexpr char kGoodKey[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";

// A line each: "LINE: MESSAGE".
std::string Warnings(const std::string& text,
                     const std::optional<std::set<std::string>>& owned = std::nullopt) {
  MemoryFiles files;
  files.files["/k/good"] = kGoodKey;
  files.files["/k/bad"] = "no key\n";
  CompileOptions options;
  options.keep_origins = true;
  for (const char* name : {"require-starttls", "backoff-max-msg-rate", "backoff-max-smtp-out",
                           "schedule", "backoff-max-data-volume-rate", "max-data-volume-rate"}) {
    options.accept_unsupported.emplace(name);
  }
  const Compiled compiled = CompileText("/k/a.conf", text, files, options);
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  std::string all;
  for (const Diagnostic& warning : CheckSemantics(compiled, files, owned)) {
    all += std::to_string(warning.where.line) + ": " + warning.message + "\n";
  }
  return all;
}

TEST(SemanticChecksTest, SourceAddresses) {
  EXPECT_EQ(
      Warnings("<virtual-mta a>\n</virtual-mta>\n<virtual-mta b>\nsmtp-source-host 192.0.2.1\n"
               "</virtual-mta>\n"),
      "1: the virtual MTA \"a\" has no source address; the system chooses one\n");
  const std::string two =
      "<virtual-mta b>\nsmtp-source-host 192.0.2.1\nsmtp-source-host 192.0.2.2\n</virtual-mta>\n";
  EXPECT_EQ(Warnings(two, std::set<std::string>{"192.0.2.1"}),
            "1: no delivery worker has the address 192.0.2.2 of \"b\"\n");
  EXPECT_EQ(Warnings(two, std::set<std::string>{"127.0.0.0/8", "192.0.2.0/31", "2001:db8::2"}),
            "1: no delivery worker has the address 192.0.2.2 of \"b\"\n");
  EXPECT_EQ(Warnings(two, std::set<std::string>{"192.0.2.0/24"}), "");
  EXPECT_EQ(Warnings(two), "");
  EXPECT_EQ(Warnings(""), "");
}

TEST(SemanticChecksTest, CiphersThatAreNone) {
  EXPECT_EQ(
      Warnings("smtp-tls-ciphers HIGH:!ADH:@STRENGTH\nsmtp-server-tls-ciphers \"\"\n"
               "smtp-tls-tlsv1.3-ciphersuites TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256\n"),
      "");
  EXPECT_EQ(Warnings("<domain a.test>\nsmtp-tls-ciphers STRONGEST\n</domain>\n"
                     "smtp-server-tls-v1.3-ciphersuites TLS_AES_1\n"),
            "4: OpenSSL cannot use \"TLS_AES_1\": nothing could be encrypted\n"
            "2: OpenSSL cannot use \"STRONGEST\": nothing could be encrypted\n");
}

TEST(SemanticChecksTest, ThrottlesOfTheClusterBelowTheNumberOfSources) {
  const std::string sources =
      "<virtual-mta v>\nsmtp-source-host 192.0.2.1 a.test\nsmtp-source-host 192.0.2.2 b.test\n"
      "smtp-source-host 192.0.2.3 c.test\n</virtual-mta>\n";
  const auto limits = [](const char* rate) {
    return "<domain a.test>\n<limits throttle " + std::string(rate) + ">\n</limits>\n</domain>\n";
  };
  EXPECT_EQ(Warnings(sources + limits("3/h")), "");
  EXPECT_EQ(
      Warnings(sources + limits("2/h")),
      "7: the rate is divided over 3 source addresses: a worker that has few of them may have "
      "no part of it, and sends this domain nothing\n");
}

TEST(SemanticChecksTest, RollupsWithoutLimitsOfTheirOwn) {
  const std::string list =
      "<mx-rollup-list>\nmx *.mx.test all.rollup\nmx *.y.test all.rollup\n</mx-rollup-list>\n";
  EXPECT_EQ(Warnings(list + "<domain *>\nmax-smtp-out 5\n</domain>\n"),
            "2: no <domain all.rollup> says limits: those of any domain hold for all that are put "
            "together here\n");
  EXPECT_EQ(Warnings(list + "<domain all.rollup>\nmax-smtp-out 5\n</domain>\n"), "");
  EXPECT_EQ(Warnings(list + "<virtual-mta a>\nsmtp-source-host 192.0.2.1\n<domain *.rollup>\n"
                            "max-smtp-out 5\n</domain>\n</virtual-mta>\n"),
            "");
}

TEST(SemanticChecksTest, CommandsThatWouldRunAnAddress) {
  const auto warnings = [](const std::string& command) {
    return Warnings("<domain d.test>\ntype pipe\ncommand " + command + "\n</domain>\n");
  };
  EXPECT_EQ(warnings("/usr/bin/procmail -d ${local}"), "");
  EXPECT_EQ(warnings(R"("/bin/sh -c \"cat > /x/$1\" x ${local}")"), "");
  EXPECT_NE(warnings(R"("/bin/sh -c \"cat > /x/${local}\"")").find("3: this would run"),
            std::string::npos);
}

TEST(SemanticChecksTest, DkimKeys) {
  EXPECT_EQ(Warnings("domain-key s,a.test,/k/good\ndomain-key s,b.test,good\n"
                     "domain-key v,*,{vault}:/x:y\n"),
            "");
  EXPECT_EQ(Warnings("domain-key s,a.test,/k/none\n"), "1: the key \"/k/none\": cannot open it\n");
  EXPECT_EQ(Warnings("domain-key s,a.test,/k/bad\n"), "1: \"/k/bad\" holds no private key\n");
  EXPECT_EQ(Warnings("domain-key s,a.test,/k/good\ndomain-key s,A.test,/k/bad\n"),
            "2: \"/k/bad\" holds no private key\n"
            "2: the selector s of a.test has another key in line 1\n");
  EXPECT_EQ(Warnings("<domain a.test>\ndkim-key good\ndkim-algorithm ed25519-sha256\n</domain>\n"),
            "");
  EXPECT_EQ(Warnings("<domain a.test>\ndkim-key good\ndkim-algorithm rsa-sha256\n</domain>\n"),
            "3: dkim-algorithm rsa-sha256 with an Ed25519 key (line 2): nothing can be signed\n");
  EXPECT_EQ(Warnings("<domain a.test>\ndkim-key bad\n</domain>\n"),
            "2: \"bad\" holds no private key\n");
}

TEST(SemanticChecksTest, StartTls) {
  EXPECT_EQ(
      Warnings("<domain *>\nuse-starttls no\nrequire-starttls yes\n</domain>\n"),
      "3: require-starttls with use-starttls no (line 2): nothing can be sent, as in the queue "
      "*/*\n");
  EXPECT_EQ(
      Warnings("<domain *>\nuse-starttls no\n</domain>\n"
               "<domain *.bank.test>\nmax-smtp-out 3\nrequire-starttls yes\n</domain>\n"),
      "6: require-starttls with use-starttls no (line 2): nothing can be sent, as in the queue "
      "*.bank.test/*\n");
  EXPECT_EQ(Warnings("<domain *>\nuse-starttls yes\nrequire-starttls yes\n</domain>\n"), "");
}

// A virtual MTA's word goes over a domain's, so only their queue has both.
TEST(SemanticChecksTest, StartTlsOfAVirtualMtasQueues) {
  EXPECT_EQ(
      Warnings("<domain bank.test>\nrequire-starttls yes\n</domain>\n"
               "<virtual-mta v>\nsmtp-source-host 192.0.2.1\nuse-starttls no\n"
               "</virtual-mta>\n"),
      "2: require-starttls with use-starttls no (line 6): nothing can be sent, as in the queue "
      "bank.test/v\n");
}

TEST(SemanticChecksTest, BackoffLimitsAboveNormalOnes) {
  EXPECT_EQ(
      Warnings("<domain *>\nmax-msg-rate 100/h\nbackoff-max-msg-rate 2/m\n"
               "max-smtp-out 5\nbackoff-max-smtp-out 1\nmax-data-volume-rate 1M/s\n"
               "backoff-max-data-volume-rate unlimited\n</domain>\n"),
      "3: backoff-max-msg-rate 2/m is above max-msg-rate 100/h (line 2) and does nothing, as in "
      "the queue */*\n"
      "7: backoff-max-data-volume-rate unlimited is above max-data-volume-rate 1M/s (line 6) "
      "and does nothing, as in the queue */*\n");
  // What nobody said is no mistake: the default is 20.
  EXPECT_EQ(Warnings("<domain *>\nmax-smtp-out 5\nmax-msg-rate 10/s\n</domain>\n"), "");
  EXPECT_EQ(Warnings("<domain a.test>\nbackoff-max-smtp-out 20\n</domain>\n"), "");
  EXPECT_EQ(
      Warnings("<domain a.test>\nbackoff-max-smtp-out 30\n</domain>\n"),
      "2: backoff-max-smtp-out 30 is above max-smtp-out 20 (the default) and does nothing, as "
      "in the queue a.test/*\n");
  // 0 is no limit.
  EXPECT_EQ(Warnings("<domain b.test>\nbackoff-max-msg-per-hour 9\nmax-msg-per-hour 0\n"
                     "</domain>\n<domain c.test>\nmax-msg-per-hour 5\n</domain>\n"),
            "");
}

// What counts is what holds for a queue in the end, in whichever sections it was said.
TEST(SemanticChecksTest, BackoffLimitsThatAreInherited) {
  EXPECT_EQ(
      Warnings("backoff-max-msg-rate 50/m\n<domain gmail.test>\nmax-msg-rate 600/h\n"
               "</domain>\n"),
      "1: backoff-max-msg-rate 50/m is above max-msg-rate 600/h (line 3) and does nothing, as "
      "in the queue gmail.test/*\n");
  EXPECT_EQ(
      Warnings("<domain *>\nbackoff-max-smtp-out 4\n</domain>\n"
               "<virtual-mta cold>\nsmtp-source-host 192.0.2.1\n<domain *.x.test>\n"
               "max-smtp-out 2\n</domain>\n</virtual-mta>\n"
               "<virtual-mta warm>\nsmtp-source-host 192.0.2.2\n</virtual-mta>\n"),
      "2: backoff-max-smtp-out 4 is above max-smtp-out 2 (line 7) and does nothing, as in the "
      "queue *.x.test/cold\n");
  EXPECT_EQ(
      Warnings("<virtual-mta a>\nsmtp-source-host 192.0.2.1\n</virtual-mta>\n"
               "<virtual-mta-pool p>\nvirtual-mta a\n<domain y.test>\n"
               "backoff-max-msg-rate 9/s\n</domain>\n</virtual-mta-pool>\n"
               "max-msg-rate 1/s\n"),
      "7: backoff-max-msg-rate 9/s is above max-msg-rate 1/s (line 10) and does nothing, as in "
      "the queue y.test/a, of the pool p\n");
  // One line that is wrong for many queues is told once.
  std::string many = "backoff-max-msg-rate 9/s\nmax-msg-rate 1/s\n";
  for (int i = 0; i < 300; ++i) {
    many +=
        "<domain d" + std::to_string(i) + ".test>\nmax-smtp-out 5\nbounce-after 1d\n</domain>\n";
  }
  EXPECT_EQ(
      Warnings(many),
      "1: backoff-max-msg-rate 9/s is above max-msg-rate 1/s (line 2) and does nothing, as in "
      "the queue */*\n");
}

TEST(SemanticChecksTest, Schedules) {
  const std::string open = "<source 192.0.2.1>\n<schedule warmup>\n";
  const std::string close = "</schedule>\n</source>\n";
  EXPECT_EQ(Warnings(open +
                     "from 00:00 to 23:59 for 1d max-msg-rate 100/h\n"
                     "from 00:00 to 12:00 for 3d max-msg-rate 500/h\n"
                     "from 12:00 to 24:00 for 3d max-msg-rate 900/h\n" +
                     close),
            "");
  EXPECT_EQ(Warnings(open +
                     "from 08:00 to 12:00 for 1d max-msg-rate 100/h\n"
                     "from 11:00 to 18:00 for 1d max-msg-rate 500/h\n" +
                     close),
            "3: no rate from 00:00 to 08:00 on these days\n"
            "4: two rates from 11:00 to 12:00 on these days\n"
            "4: no rate from 18:00 to 24:00 on these days\n");
}

}  // namespace
}  // namespace sluice::config
