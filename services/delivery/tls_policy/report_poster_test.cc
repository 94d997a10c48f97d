// Proves that reports go to each address once, are tried for a day, and are bounded.
#include "services/delivery/tls_policy/report_poster.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/base/testing/manual_executor.h"
#include "services/delivery/tls_policy/gunzip.h"

namespace sluice::delivery {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

class ReportPosterTest : public ::testing::Test {
 protected:
  static TlsReport Report(std::vector<std::string> uris) {
    TlsReport report;
    report.domain = "wants.example";
    report.uris = std::move(uris);
    report.json = "{\"report-id\": \"1\"}";
    return report;
  }
  // What was sent since the last call is answered.
  void Answer(absl::Status status) {
    auto answered = std::exchange(sent, {});
    for (auto& [post, done] : answered) done(status);
  }

  ::sluice::testing::ManualExecutor executor;
  std::vector<std::pair<ReportPost, ReportPoster::Done>> sent;
  size_t most = 0;
  std::unique_ptr<ReportPoster> poster =
      std::make_unique<ReportPoster>(executor, [this](ReportPost post, ReportPoster::Done done) {
        sent.emplace_back(std::move(post), std::move(done));
        most = std::max(most, sent.size());
      });
};

TEST_F(ReportPosterTest, GoesToEachAddressOnce) {
  poster->Post(Report({"https://A.example/tls?x=1", "mailto:tls@wants.example", "https://b.example",
                       "https://c.example:8443/", "https://u@d.example/", "https://[2001:db8::1]/",
                       "https://?q", "https://e.example?q#part"}));
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0].first.host, "a.example");
  EXPECT_EQ(sent[0].first.target, "/tls?x=1");
  EXPECT_EQ(sent[1].first.host, "b.example");
  EXPECT_EQ(sent[1].first.target, "/");
  EXPECT_EQ(sent[2].first.target, "/?q");
  for (const auto& [post, done] : sent) {
    EXPECT_EQ(post.domain, "wants.example");
    EXPECT_EQ(post.content_type, "application/tlsrpt+gzip");
    EXPECT_EQ(testing::Gunzip(post.body), "{\"report-id\": \"1\"}");
  }
  Answer(absl::OkStatus());
  EXPECT_EQ(poster->waiting(), 0u);
  EXPECT_EQ(poster->stats().posted, 3u);
  executor.Advance(hours(48));
  EXPECT_TRUE(sent.empty());
}

// RFC 8460 section 5.5: for a day, less and less often.
TEST_F(ReportPosterTest, IsTriedForADay) {
  poster->Post(Report({"https://a.example/"}));
  std::vector<int64_t> minutes_between;
  MonotonicTime last = executor.clock().Now();
  while (poster->waiting() > 0) {
    ASSERT_EQ(sent.size(), 1u);
    minutes_between.push_back((executor.clock().Now() - last) / minutes(1));
    last = executor.clock().Now();
    Answer(absl::UnavailableError("status 503"));
    for (int i = 0; i < 600 && sent.empty() && poster->waiting() > 0; ++i) {
      executor.Advance(minutes(1));
    }
  }
  EXPECT_EQ(std::vector<int64_t>(minutes_between.begin(), minutes_between.begin() + 7),
            (std::vector<int64_t>{0, 5, 10, 20, 40, 80, 120}));
  EXPECT_EQ(minutes_between.back(), 120);
  EXPECT_GT(minutes_between.size(), 14u);
  EXPECT_LT(minutes_between.size(), 18u);
  EXPECT_EQ(poster->stats().given_up, 1u);
  EXPECT_EQ(poster->stats().posted, 0u);
}

TEST_F(ReportPosterTest, ALaterTryMayDo) {
  poster->Post(Report({"https://a.example/"}));
  Answer(absl::UnavailableError("refused"));
  executor.Advance(minutes(4));
  EXPECT_TRUE(sent.empty());
  executor.Advance(minutes(2));
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(testing::Gunzip(sent[0].first.body), "{\"report-id\": \"1\"}");
  Answer(absl::OkStatus());
  EXPECT_EQ(poster->stats().posted, 1u);
  EXPECT_EQ(poster->waiting(), 0u);
}

// A midnight with many reports opens few connections, and keeps a bounded number.
TEST_F(ReportPosterTest, BoundedInConnectionsAndMemory) {
  for (size_t i = 0; i < ReportPoster::kMostWaiting + 5; ++i) {
    poster->Post(Report({absl::StrCat("https://h", i, ".example/")}));
  }
  EXPECT_EQ(poster->waiting(), ReportPoster::kMostWaiting);
  EXPECT_EQ(poster->stats().given_up, 5u);
  while (poster->waiting() > 0) {
    ASSERT_FALSE(sent.empty());
    auto [post, done] = std::move(sent.back());
    sent.pop_back();
    done(absl::OkStatus());
  }
  EXPECT_EQ(most, ReportPoster::kMostUnderWay);
  EXPECT_EQ(poster->stats().posted, ReportPoster::kMostWaiting);
}

TEST_F(ReportPosterTest, AnswersToADestroyedOneAreDropped) {
  poster->Post(Report({"https://a.example/"}));
  poster.reset();
  Answer(absl::UnavailableError("late"));
  executor.Advance(hours(1));
  EXPECT_TRUE(sent.empty());
}

}  // namespace
}  // namespace sluice::delivery
