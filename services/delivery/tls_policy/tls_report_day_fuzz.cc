// Any bytes as the file that a day's TLS-RPT counters were kept in: nothing of it, or counters that
// are kept again as they are, and reports that are JSON.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "services/base/check.h"
#include "services/base/testing/manual_executor.h"
#include "services/delivery/tls_policy/tls_report_day.h"

namespace {

using namespace sluice;            // NOLINT: a fuzzer is its own program
using namespace sluice::delivery;  // NOLINT

// Every domain asks for reports.
class EveryoneAsks final : public DnsClient {
 public:
  void Query(const std::string&, DnsType, Done done) override {
    const std::string record = "v=TLSRPTv1; rua=mailto:t@r.test";
    DnsAnswer answer;
    answer.status = DnsStatus::kAnswer;
    answer.records.push_back({60, 0, std::string(1, static_cast<char>(record.size())) + record});
    done(std::move(answer));
  }
};

// One life of a worker.
struct Life {
  explicit Life(std::string_view saved) { day.Load(saved); }
  sluice::testing::ManualExecutor executor;
  EveryoneAsks dns;
  TlsReportCounters counters;
  std::vector<TlsReport> reports;
  TlsReportDay day{
      executor, dns, counters, {"out.test", "postmaster@out.test", "w"}, [this](TlsReport report) {
        reports.push_back(std::move(report));
      }};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Life first(std::string_view(reinterpret_cast<const char*>(data), size));
  const std::string kept = first.day.Save();
  const size_t domains = first.counters.domains();
  Life second(kept);
  SLUICE_CHECK(second.counters.domains() == domains);
  // Domains have no order.
  using Unordered = nlohmann::json;
  SLUICE_CHECK(kept.empty() || Unordered::parse(second.day.Save()) == Unordered::parse(kept));
  second.executor.Advance(TlsReportDay::kDay);
  SLUICE_CHECK(second.reports.size() == domains);
  for (const TlsReport& report : second.reports) {
    SLUICE_CHECK(nlohmann::json::accept(report.json) && report.uris.size() == 1);
  }
  return 0;
}
