#include "services/config/cluster_rates.h"

namespace sluice::config {
namespace {

using policy::v1::ClusterRate;
using policy::v1::QueueSettings;

struct Field {
  Span span;
  std::string_view directive;
  int number;
};

constexpr Field kFields[] = {
    {Span::kDomain, "throttle", QueueSettings::kDomainThrottleFieldNumber},
    {Span::kDomain, "error-throttle", QueueSettings::kDomainErrorThrottleFieldNumber},
    {Span::kDomain, "defer-throttle", QueueSettings::kDomainDeferThrottleFieldNumber},
    {Span::kPool, "throttle", QueueSettings::kPoolThrottleFieldNumber},
    {Span::kPool, "error-throttle", QueueSettings::kPoolErrorThrottleFieldNumber},
    {Span::kPool, "defer-throttle", QueueSettings::kPoolDeferThrottleFieldNumber},
    {Span::kBinding, "throttle", QueueSettings::kBindingThrottleFieldNumber},
    {Span::kBinding, "error-throttle", QueueSettings::kBindingErrorThrottleFieldNumber},
    {Span::kBinding, "defer-throttle", QueueSettings::kBindingDeferThrottleFieldNumber},
};

}  // namespace

const google::protobuf::FieldDescriptor* ClusterRateField(Span span, std::string_view directive) {
  for (const Field& field : kFields) {
    if (field.span == span && field.directive == directive) {
      return QueueSettings::descriptor()->FindFieldByNumber(field.number);
    }
  }
  return nullptr;
}

std::vector<ClusterRateLine> ClusterRates(const QueueSettings& settings) {
  std::vector<ClusterRateLine> lines;
  const auto* const reflection = settings.GetReflection();
  for (const Field& each : kFields) {
    const auto* const field = QueueSettings::descriptor()->FindFieldByNumber(each.number);
    if (!reflection->HasField(settings, field)) continue;
    lines.push_back({each.span, each.directive,
                     static_cast<const ClusterRate*>(&reflection->GetMessage(settings, field))});
  }
  return lines;
}

}  // namespace sluice::config
