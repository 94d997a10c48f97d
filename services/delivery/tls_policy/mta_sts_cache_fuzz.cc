// Any file of kept policies, any TXT record and any policy of a domain: what was kept and what was
// fetched is kept again as it is, a line each, and nobody's policy becomes that of another domain.
// Form feeds part file, record and policy.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "services/base/check.h"
#include "services/base/testing/manual_executor.h"
#include "services/delivery/tls_policy/mta_sts_cache.h"

namespace {

using namespace sluice;            // NOLINT: a fuzzer is its own program
using namespace sluice::delivery;  // NOLINT

class OneRecord final : public DnsClient {
 public:
  explicit OneRecord(std::string_view record) {
    while (!record.empty()) {
      const std::string_view piece = record.substr(0, 255);
      text_ += static_cast<char>(piece.size());
      text_ += piece;
      record.remove_prefix(piece.size());
    }
  }
  void Query(const std::string&, DnsType, Done done) override {
    DnsAnswer answer;
    answer.status = DnsStatus::kAnswer;
    answer.ttl_s = 60;
    answer.records.push_back({60, 0, text_});
    done(std::move(answer));
  }

 private:
  std::string text_;
};

class OnePolicy final : public PolicyFetcher {
 public:
  OnePolicy(Executor& executor, std::string_view text) : executor_(executor), text_(text) {}
  void Fetch(const std::string&, Done done) override {
    executor_.Post([text = text_, done = std::move(done)]() mutable { done(std::move(text)); });
  }

 private:
  Executor& executor_;
  const std::string text_;
};

struct Life {
  Life(std::string_view saved, std::string_view record, std::string_view policy)
      : dns(record), fetcher(executor, policy) {
    cache.Load(saved);
  }
  // Of the domain, its policy as it stands in the file; empty: none.
  std::string LineOf(const std::string& domain) const {
    const std::string text = "\n" + cache.Save();
    const size_t begin = text.find("\n" + domain + " ");
    return begin == text.npos ? "" : text.substr(begin + 1, text.find('\n', begin + 1) - begin);
  }
  sluice::testing::ManualExecutor executor;
  OneRecord dns;
  OnePolicy fetcher;
  MtaStsCache cache{executor, dns, fetcher, {}};
};

std::string_view TakePart(std::string_view& input) {
  const size_t end = input.find('\f');
  const std::string_view part = input.substr(0, end);
  input.remove_prefix(end == input.npos ? input.size() : end + 1);
  return part;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view saved = TakePart(input);
  const std::string_view record = TakePart(input);
  Life first(saved, record, input);
  const std::string kept = first.cache.Save();
  SLUICE_CHECK(Life(kept, "", "").cache.Save() == kept);

  const std::string victim = first.LineOf("victim.test");
  std::shared_ptr<const MtaStsResult> result;
  first.cache.Lookup("asked.test", [&](auto found) { result = std::move(found); });
  first.executor.RunPosted();
  SLUICE_CHECK(result != nullptr);
  SLUICE_CHECK(first.LineOf("victim.test") == victim);
  const std::string now = first.cache.Save();
  const Life second(now, "", "");
  SLUICE_CHECK(second.cache.Save() == now && second.LineOf("victim.test") == victim);
  return 0;
}
