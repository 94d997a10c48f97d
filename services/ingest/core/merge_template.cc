#include "services/ingest/core/merge_template.h"

#include <algorithm>

namespace sluice::ingest {

std::optional<mail::ServerReply> MergeTemplate::Check(
    const ClientProfile& profile, const mail::MergeDefinitions& definitions) const {
  if (bytes_ + definitions.bytes() > kMaxMergeBytesPerMessage) {
    return mail::ServerReply{
        452, {4, 5, 3}, "Too many values, send the rest of the recipients in another transaction"};
  }
  if (definitions.vmta && !profile.FindRoute(*definitions.vmta)) {
    return mail::ServerReply{
        554, {5, 7, 1}, "There is no virtual MTA \"" + *definitions.vmta + "\""};
  }
  return std::nullopt;
}

void MergeTemplate::Fill(const ClientProfile& profile, const mail::MergeDefinitions& definitions,
                         common::v1::Delivery& delivery) {
  bytes_ += definitions.bytes();
  auto& variables = *delivery.mutable_merge_variables();
  for (const auto& [name, value] : definitions.variables) {
    variables[name] = value;
    longest_value_ = std::max<uint64_t>(longest_value_, value.size());
  }
  std::vector<uint32_t> parts = definitions.parts;
  for (const uint32_t part : parts) delivery.add_parts(part);
  std::sort(parts.begin(), parts.end());
  for (size_t i = 0, run = 1; i < parts.size(); ++i) {
    run = i > 0 && parts[i] == parts[i - 1] ? run + 1 : 1;
    most_repeats_ = std::max<uint64_t>(most_repeats_, run);
  }
  for (const auto* each : {&definitions.vmta, &definitions.job_id, &definitions.envid}) {
    if (*each) longest_value_ = std::max<uint64_t>(longest_value_, (*each)->size());
  }
  if (definitions.job_id) delivery.set_job_id(*definitions.job_id);
  if (definitions.envid) delivery.set_envelope_id(*definitions.envid);
  if (definitions.vmta) {
    const Route route = profile.FindRoute(*definitions.vmta).value_or(profile.default_route);
    delivery.set_vmta(route.vmta);
    delivery.set_pool(route.pool);
  }
}

std::optional<mail::ServerReply> MergeTemplate::CheckText(std::string_view text) const {
  const auto places = static_cast<uint64_t>(std::count(text.begin(), text.end(), '['));
  const uint64_t once = text.size() + places * std::max<uint64_t>(longest_value_, 256);
  if (once * most_repeats_ <= kMaxMergedBytes) return std::nullopt;
  return mail::ServerReply{552, {5, 3, 4}, "The message would become too large with its values"};
}

void MergeTemplate::WriteParts(uint64_t front, uint64_t cut, common::v1::Message& message) const {
  const auto add = [&](uint32_t number, uint64_t offset, uint64_t size) {
    common::v1::BodyPart* const part = message.add_parts();
    part->set_number(number);
    part->set_offset(offset);
    part->set_size(size);
  };
  if (front != 0) add(0, 0, front);
  uint64_t at = front;
  uint64_t begin = 0;
  for (size_t i = 0; i < ends_.size(); ++i) {
    const uint64_t size = ends_[i] - begin - (i == 0 ? cut : 0);
    add(static_cast<uint32_t>(i + 1), at, size);
    at += size;
    begin = ends_[i];
  }
}

}  // namespace sluice::ingest
