#include "services/config/queue_checks.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/config/explain.h"
#include "services/config/policy_view.h"
#include "services/config/registry.h"
#include "services/config/settings_defaults.h"

namespace sluice::config {
namespace {

using google::protobuf::FieldDescriptor;
using policy::v1::QueueSettings;

constexpr size_t kMostQueues = 100'000;
// To say where a setting comes from takes longer than to see that it is wrong.
constexpr size_t kMostExplained = 2'000;
constexpr double kNoLimit = std::numeric_limits<double>::infinity();

constexpr std::string_view kLimits[] = {"max-msg-rate", "max-smtp-out", "max-connect-rate",
                                        "max-data-volume-rate", "max-msg-per-hour"};
constexpr std::string_view kBackoff = "backoff-";
constexpr std::string_view kUse = "use-starttls";
constexpr std::string_view kRequire = "require-starttls";

const FieldDescriptor& FieldOf(const std::string& directive) {
  const Directive* const found = FindDirective(kDomain, directive);
  return *QueueSettings::descriptor()->FindFieldByName(std::string(found->field));
}

// What a limit lets through in a microsecond, or at once.
double LimitOf(const QueueSettings& settings, const FieldDescriptor& field) {
  const auto& reflection = *settings.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
    const uint32_t count = reflection.GetUInt32(settings, &field);
    return count == 0 ? kNoLimit : count;
  }
  const auto& rate = dynamic_cast<const policy::v1::Rate&>(reflection.GetMessage(settings, &field));
  if (rate.unlimited() || rate.period_us() == 0) return kNoLimit;
  return static_cast<double>(rate.count()) / static_cast<double>(rate.period_us());
}

struct Pair {
  std::string strong,
      weak;  // directives: the one that is complained of, the one that it is against
  const FieldDescriptor* strong_field = nullptr;
  const FieldDescriptor* weak_field = nullptr;
};

struct Candidate {
  std::string pattern, vmta, pool;
  size_t pair = 0;
};

class QueueChecker {
 public:
  explicit QueueChecker(const Compiled& compiled) : compiled_(compiled), explainer_(compiled) {
    for (const std::string_view limit : kLimits) {
      AddPair(absl::StrCat(std::string(kBackoff), std::string(limit)), std::string(limit));
    }
    AddPair(std::string(kRequire), std::string(kUse));
    for (const ConfigLine& line : compiled.lines) {
      lines_.emplace(std::pair(*line.where.file, line.where.line), &line);
    }
  }

  std::vector<Diagnostic> Run() {
    const auto view = PolicyView::Build(compiled_.snapshot);
    if (!view.ok()) return {};
    CollectPlaces();
    size_t looked = 0;
    for (const std::string& pattern : patterns_) {
      const std::string domain = ExampleOf(pattern);
      for (const auto& [vmta, pool] : routes_) {
        if (++looked > kMostQueues) break;
        Look(*(*view)->ForQueue(domain, vmta, pool), {pattern, vmta, pool});
      }
    }
    // What is as by default was most likely not said, and is then no mistake.
    for (const auto* candidates : {&said_, &doubtful_}) {
      for (const Candidate& candidate : *candidates) {
        if (++explained_ > kMostExplained) return std::move(warnings_);
        Tell(candidate);
      }
    }
    return std::move(warnings_);
  }

 private:
  void AddPair(std::string strong, std::string weak) {
    const FieldDescriptor& strong_field = FieldOf(strong);
    const FieldDescriptor& weak_field = FieldOf(weak);
    pairs_.push_back({std::move(strong), std::move(weak), &strong_field, &weak_field});
  }

  bool Says(const QueueSettings& settings) const {
    const auto& reflection = *settings.GetReflection();
    return std::any_of(pairs_.begin(), pairs_.end(), [&](const Pair& pair) {
      return reflection.HasField(settings, pair.strong_field) ||
             reflection.HasField(settings, pair.weak_field);
    });
  }

  template <class Domains>
  bool AddPatterns(const Domains& domains) {
    bool any = false;
    for (const auto& domain : domains) {
      if (!Says(domain.settings())) continue;
      patterns_.insert(domain.pattern());
      any = true;
    }
    return any;
  }

  void CollectPlaces() {
    patterns_.insert("*");
    routes_.emplace("", "");
    for (const auto& section : compiled_.snapshot.sections()) {
      const auto& content = section.content();
      if (content.has_domain() && Says(content.domain().settings())) {
        patterns_.insert(content.domain().pattern());
      }
      if (content.has_virtual_mta()) {
        const bool in_domains = AddPatterns(content.virtual_mta().domains());
        if (in_domains || Says(content.virtual_mta().queue_defaults())) {
          routes_.emplace(content.virtual_mta().name(), "");
        }
      }
      if (!content.has_pool() || !AddPatterns(content.pool().domains())) continue;
      for (const std::string& vmta : content.pool().virtual_mtas()) {
        routes_.emplace(vmta, content.pool().name());
      }
    }
  }

  void Look(const QueueSettings& settings, Candidate candidate) {
    const QueueSettings& defaults = DefaultQueueSettings();
    for (size_t i = 0; i < pairs_.size(); ++i) {
      const Pair& pair = pairs_[i];
      candidate.pair = i;
      if (pair.strong == kRequire) {
        if (settings.require_starttls() && !settings.use_starttls()) said_.push_back(candidate);
        continue;
      }
      const double backoff = LimitOf(settings, *pair.strong_field);
      if (backoff <= LimitOf(settings, *pair.weak_field)) continue;
      const bool as_default = backoff == LimitOf(defaults, *pair.strong_field);
      (as_default ? doubtful_ : said_).push_back(candidate);
    }
  }

  static const ExplainedSetting* Find(const std::vector<ExplainedSetting>& settings,
                                      const std::string& directive) {
    const auto found = std::find_if(settings.begin(), settings.end(), [&](const auto& setting) {
      return setting.directive == directive;
    });
    return found == settings.end() ? nullptr : &*found;
  }

  const ConfigLine* LineOf(const ExplainedSetting& setting) const {
    const size_t colon = setting.where.rfind(':');
    if (colon == setting.where.npos) return nullptr;
    const auto found =
        lines_.find({setting.where.substr(0, colon), std::atoi(setting.where.c_str() + colon + 1)});
    return found == lines_.end() ? nullptr : found->second;
  }

  void Tell(const Candidate& candidate) {
    const Pair& pair = pairs_[candidate.pair];
    const auto settings =
        explainer_.Explain(ExampleOf(candidate.pattern), candidate.vmta, candidate.pool);
    const ExplainedSetting* const strong = Find(settings, pair.strong);
    const ExplainedSetting* const weak = Find(settings, pair.weak);
    if (strong == nullptr || weak == nullptr || strong->is_default) return;
    const ConfigLine* const line = LineOf(*strong);
    if (line == nullptr || !told_.emplace(pair.strong, strong->where, weak->where).second) return;
    std::string against = weak->is_default ? "the default" : weak->where;
    const ConfigLine* const other = LineOf(*weak);
    if (other != nullptr && *other->where.file == *line->where.file) {
      against = absl::StrCat("line ", other->where.line);
    }
    const std::string queue =
        absl::StrCat(candidate.pattern, "/", candidate.vmta.empty() ? "*" : candidate.vmta,
                     candidate.pool.empty() ? "" : absl::StrCat(", of the pool ", candidate.pool));
    const std::string message =
        pair.strong == kRequire ? absl::StrCat("require-starttls with use-starttls no (", against,
                                               "): nothing can be sent, as in the queue ", queue)
                                : absl::StrCat(pair.strong, " ", strong->value, " is above ",
                                               pair.weak, " ", weak->value, " (", against,
                                               ") and does nothing, as in the queue ", queue);
    warnings_.push_back({Diagnostic::Severity::kWarning, line->where, message, ""});
  }

  const Compiled& compiled_;
  const QueueExplainer explainer_;
  std::vector<Pair> pairs_;
  std::map<std::pair<std::string, int>, const ConfigLine*> lines_;
  std::set<std::string> patterns_;
  std::set<std::pair<std::string, std::string>> routes_;  // virtual MTA, pool
  std::vector<Candidate> said_, doubtful_;
  std::set<std::tuple<std::string, std::string, std::string>> told_;
  std::vector<Diagnostic> warnings_;
  size_t explained_ = 0;
};

}  // namespace

std::vector<Diagnostic> CheckQueues(const Compiled& compiled) {
  return QueueChecker(compiled).Run();
}

}  // namespace sluice::config
