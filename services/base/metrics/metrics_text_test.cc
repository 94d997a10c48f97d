// Proves that the page of metrics is what Prometheus reads, with whole numbers to the last digit.
#include "services/base/metrics/metrics_text.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace sluice {
namespace {

TEST(MetricsTextTest, EachMetricHasHelpTypeAndValue) {
  MetricsText page;
  page.Counter("sluice_queue_syncs_total", "Commits.", uint64_t{18'446'744'073'709'551'615U});
  page.Gauge("sluice_queue_accepting", "1 while new mail is taken.", true);
  page.Gauge("sluice_queue_sync_p99_seconds", "Slow ones.", 0.000178);
  EXPECT_EQ(page.text(),
            "# HELP sluice_queue_syncs_total Commits.\n"
            "# TYPE sluice_queue_syncs_total counter\n"
            "sluice_queue_syncs_total 18446744073709551615\n"
            "# HELP sluice_queue_accepting 1 while new mail is taken.\n"
            "# TYPE sluice_queue_accepting gauge\n"
            "sluice_queue_accepting 1\n"
            "# HELP sluice_queue_sync_p99_seconds Slow ones.\n"
            "# TYPE sluice_queue_sync_p99_seconds gauge\n"
            "sluice_queue_sync_p99_seconds 0.000178\n");
}

TEST(MetricsTextTest, NothingAddedIsAnEmptyPage) { EXPECT_EQ(MetricsText().text(), ""); }

}  // namespace
}  // namespace sluice
