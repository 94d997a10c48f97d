// A policy view for tests: settings that the test fills in.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/policy_view.h"

namespace sluice::ingest::testing {

// Loopback may relay. Fill it before it is shared.
class FakePolicy final : public config::PolicyView {
 public:
  FakePolicy() {
    loopback->set_allow_relay(true);
    global_settings.set_host_name("mx.test");
    AddVirtualMta("default");
  }
  void AddVirtualMta(const std::string& name, const std::string& source_ip = "") {
    vmtas_.push_back(std::make_unique<policy::v1::VirtualMtaSection>());
    vmtas_.back()->set_name(name);
    if (!source_ip.empty()) vmtas_.back()->add_source_hosts()->set_ip(source_ip);
    vmta_pointers_.push_back(vmtas_.back().get());
  }

  uint64_t number = 7;
  policy::v1::GlobalSettings global_settings;
  std::shared_ptr<policy::v1::ClientSettings> loopback =
      std::make_shared<policy::v1::ClientSettings>();
  std::shared_ptr<policy::v1::ClientSettings> others =
      std::make_shared<policy::v1::ClientSettings>();
  policy::v1::PoolSection pool;
  // By name: what ForClientOf lays over the client's settings.
  std::map<std::string, policy::v1::ClientSettings> named_sources;
  std::map<std::string, policy::v1::ListenerSettings, std::less<>> listeners;
  policy::v1::PatternListSection pattern_list;
  std::vector<const policy::v1::SourceGroupSection*> groups;
  std::vector<policy::v1::SmtpUserSection> users;
  policy::v1::AuthFileSection auth_file;
  std::string lasting_secret;
  int64_t bounce_after_us = 0;
  std::string queue_to_domain;  // the domain that has a queue-to
  std::string queue_to;

  uint64_t version() const override { return number; }
  const policy::v1::GlobalSettings& global() const override { return global_settings; }
  std::shared_ptr<const policy::v1::QueueSettings> ForQueue(std::string_view domain,
                                                            std::string_view,
                                                            std::string_view) const override {
    auto settings = std::make_shared<policy::v1::QueueSettings>();
    settings->set_bounce_after_us(bounce_after_us);
    if (domain == queue_to_domain) settings->set_queue_to(queue_to);
    return settings;
  }
  std::shared_ptr<const policy::v1::ClientSettings> ForClient(std::string_view ip) const override {
    return ip == "::1" || ip.starts_with("127.") ? loopback : others;
  }
  std::shared_ptr<const policy::v1::ClientSettings> ForClientOf(
      std::string_view ip, const std::vector<std::string>& sources) const override {
    auto& merged = merged_[{std::string(ip), sources}];
    if (merged == nullptr) {
      merged = std::make_shared<policy::v1::ClientSettings>(*ForClient(ip));
      for (const std::string& source : sources) {
        const auto found = named_sources.find(source);
        if (found != named_sources.end()) merged->MergeFrom(found->second);
      }
    }
    return merged;
  }
  const policy::v1::ListenerSettings* FindListener(std::string_view address) const override {
    const auto found = listeners.find(address);
    return found == listeners.end() ? nullptr : &found->second;
  }
  const policy::v1::PatternListSection* FindPatternList(std::string_view name) const override {
    return name == pattern_list.name() ? &pattern_list : nullptr;
  }
  const std::vector<const policy::v1::SourceGroupSection*>& source_groups() const override {
    return groups;
  }
  std::shared_ptr<const policy::v1::SourceSettings> ForSource(std::string_view) const override {
    return std::make_shared<policy::v1::SourceSettings>();
  }
  const policy::v1::VirtualMtaSection* FindVirtualMta(std::string_view name) const override {
    for (const auto* vmta : vmta_pointers_) {
      if (vmta->name() == name) return vmta;
    }
    return nullptr;
  }
  const policy::v1::PoolSection* FindPool(std::string_view name) const override {
    return !name.empty() && name == pool.name() ? &pool : nullptr;
  }
  const std::vector<const policy::v1::VirtualMtaSection*>& virtual_mtas() const override {
    return vmta_pointers_;
  }
  const std::vector<const policy::v1::PoolSection*>& pools() const override { return pools_; }
  const policy::v1::SmtpUserSection* FindSmtpUser(std::string_view name) const override {
    for (const auto& user : users) {
      if (user.name() == name) return &user;
    }
    return nullptr;
  }
  std::vector<const policy::v1::SmtpUserSection*> smtp_users() const override {
    std::vector<const policy::v1::SmtpUserSection*> all;
    for (const auto& user : users) all.push_back(&user);
    return all;
  }
  const policy::v1::AuthFileSection* FindAuthFile(std::string_view name) const override {
    return !name.empty() && name == auth_file.name() ? &auth_file : nullptr;
  }
  const std::string& auth_secret() const override { return lasting_secret; }
  const policy::v1::ControlEntry* FindPause(std::string_view, std::string_view) const override {
    return nullptr;
  }
  const std::vector<const policy::v1::ControlEntry*>& controls() const override {
    return controls_;
  }

 private:
  std::vector<std::unique_ptr<policy::v1::VirtualMtaSection>> vmtas_;
  std::vector<const policy::v1::VirtualMtaSection*> vmta_pointers_;
  std::vector<const policy::v1::PoolSection*> pools_;
  std::vector<const policy::v1::ControlEntry*> controls_;
  mutable std::map<std::pair<std::string, std::vector<std::string>>,
                   std::shared_ptr<policy::v1::ClientSettings>>
      merged_;
};

}  // namespace sluice::ingest::testing
