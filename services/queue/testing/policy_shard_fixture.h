// A shard with a policy that the test writes section by section, and what operators ask of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "services/config/policy_view.h"
#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue::testing {

class PolicyShardFixture : public ShardFixture {
 protected:
  policy::v1::SectionContent& Section(const std::string& name) {
    auto* section = policy_.add_sections();
    section->set_name(name);
    return *section->mutable_content();
  }
  void SetPolicy() {
    policy_.set_version(policy_.version() + 1);
    auto view = config::PolicyView::Build(policy_);
    ASSERT_TRUE(view.ok()) << view.status();
    shard_->SetPolicy(*view);
  }
  policy::v1::QueueSettings& Defaults() {
    return *Section("global").mutable_global()->mutable_queue_defaults();
  }
  void Pause(const std::string& pattern, const std::string& job, int64_t until_us = 0) {
    auto* entry = Section("control/1").mutable_control();
    entry->set_id("1");
    entry->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
    entry->set_queue_pattern(pattern);
    entry->set_job_id(job);
    entry->set_reason("maintenance");
    entry->set_author("ops");
    entry->set_until_us(until_us);
    SetPolicy();
  }
  int64_t NowUs() { return ToUnixMicros(executor_.clock().WallNow()); }
  v1::QueueStatus Queue(const std::string& name) {
    v1::QueueStatus status;
    v1::GetQueueRequest request;
    request.set_name(name);
    shard_->GetQueue(request, [&status](auto response) {
      if (response.ok()) status = response->queue();
    });
    return status;
  }
  int Listed(const v1::MessageFilter& filter) {
    v1::ListMessagesRequest request;
    *request.mutable_filter() = filter;
    std::optional<int> found;
    shard_->ListMessages(request, [&found](auto response) { found = response->recipients_size(); });
    for (int i = 0; i < 1000 && !found; ++i) Run(std::chrono::microseconds(1));
    return found.value_or(-1);
  }
  static v1::MessageFilter ByRcpt(const std::string& rcpt) {
    v1::MessageFilter filter;
    filter.set_rcpt(rcpt);
    return filter;
  }
  policy::v1::PolicySnapshot policy_;
};

}  // namespace sluice::queue::testing
