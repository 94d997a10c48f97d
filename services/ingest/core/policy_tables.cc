#include "services/ingest/core/policy_tables.h"

#include <algorithm>
#include <utility>

#include "services/base/idna.h"
#include "services/mail/address.h"

namespace sluice::ingest {
namespace {

std::string Lower(std::string_view text) {
  std::string lower(text);
  mail::LowerAscii(lower);
  return lower;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; });
}

// The one form that a domain is compared in: as DNS has it, so that letters beyond ASCII and their
// A-labels are the same domain. What is no such name stands for itself.
std::string DomainKey(std::string_view domain) {
  if (!IsAscii(domain)) {
    if (auto ascii = HostNameToAscii(domain)) return *std::move(ascii);
  }
  return Lower(domain);
}

std::string_view DomainOf(std::string_view address) {
  // A quoted local part may hold "@"; the domain never does.
  const size_t at = address.rfind('@');
  return at == std::string_view::npos ? std::string_view() : address.substr(at + 1);
}

std::string AddressKey(std::string_view address) {
  if (IsAscii(address)) return Lower(address);
  const std::string_view domain = DomainOf(address);
  if (domain.empty()) return Lower(address);
  return Lower(address.substr(0, address.size() - domain.size())) + DomainKey(domain);
}

}  // namespace

PolicyTables::PolicyTables(const config::PolicyView& policy, std::string host_name)
    : policy_(policy),
      local_domain_(DomainKey(
          policy.global().domain_suffix().empty() ? host_name : policy.global().domain_suffix())) {
  const policy::v1::GlobalSettings& global = policy.global();
  for (const policy::v1::Alias& alias : global.aliases()) {
    std::string target = alias.target();
    const size_t at = target.rfind('@');
    if (at == target.npos) {
      target += "@" + local_domain_;
    } else {
      target = target.substr(0, at + 1) + Lower(std::string_view(target).substr(at + 1));
    }
    aliases_[AddressKey(alias.source())] = std::move(target);
  }
  for (const policy::v1::VirtualMtaSection* vmta : policy.virtual_mtas()) {
    for (const policy::v1::SourceHost& host : vmta->source_hosts()) {
      vmta_by_ip_.emplace(host.ip(), vmta->name());
    }
  }
  for (const policy::v1::SenderSource& sender : global.sender_sources()) {
    vmta_by_sender_[sender.domain()] = sender.virtual_mta();
  }
  for (const std::string& pattern : global.relay_domains().values()) {
    std::string_view domain = pattern;
    const bool both = domain.starts_with("[*.]");
    const bool below = domain.starts_with("*.");
    domain.remove_prefix(both ? 4 : below ? 2 : 0);
    if (!below) relay_domains_.insert(DomainKey(domain));
    if (both || below) relay_subdomains_of_.insert(DomainKey(domain));
  }
  for (const std::string& rule : global.relay_addresses().values()) {
    if (!rule.starts_with('/')) {
      relay_addresses_.insert(AddressKey(rule));
      continue;
    }
    auto regex = config::RegexMatcher::Compile(std::string_view(rule).substr(1));
    if (regex.ok()) relay_patterns_.push_back(*std::move(regex));
  }
}

const std::string* PolicyTables::FindAlias(std::string_view address) const {
  const std::string lower = AddressKey(address);
  if (const auto found = aliases_.find(lower); found != aliases_.end()) return &found->second;
  const std::string_view domain = DomainOf(lower);
  if (!domain.empty() && domain != local_domain_) return nullptr;
  const size_t local = domain.empty() ? lower.size() : lower.size() - domain.size() - 1;
  const auto found = aliases_.find(lower.substr(0, local));
  return found == aliases_.end() ? nullptr : &found->second;
}

bool PolicyTables::RelaysTo(std::string_view address) const {
  const std::string domain = DomainKey(DomainOf(address));
  if (relay_domains_.contains(domain)) return true;
  if (!relay_subdomains_of_.empty()) {
    for (size_t dot = domain.find('.'); dot != domain.npos; dot = domain.find('.', dot + 1)) {
      if (relay_subdomains_of_.contains(domain.substr(dot + 1))) return true;
    }
  }
  if (!aliases_.empty() && FindAlias(address) != nullptr) return true;
  if (!relay_addresses_.empty() && relay_addresses_.contains(AddressKey(address))) return true;
  return std::any_of(relay_patterns_.begin(), relay_patterns_.end(),
                     [&](const config::RegexMatcher& regex) { return regex.Matches(address); });
}

std::optional<std::string> PolicyTables::Resolve(std::string_view address) const {
  std::string at(address);
  for (int step = 0; step <= kMaxAliasSteps; ++step) {
    const std::string* const next = FindAlias(at);
    // "postmaster" that goes to postmaster@here is no loop.
    if (next == nullptr || *next == at || *next == at + "@" + local_domain_)
      return next ? *next : at;
    at = *next;
  }
  return std::nullopt;
}

const std::string* PolicyTables::VirtualMtaOf(std::string_view ip) const {
  const auto found = vmta_by_ip_.find(std::string(ip));
  return found == vmta_by_ip_.end() ? nullptr : &found->second;
}

const std::string* PolicyTables::VirtualMtaOfSender(std::string_view mail_from) const {
  if (vmta_by_sender_.empty()) return nullptr;
  const auto found = vmta_by_sender_.find(Lower(DomainOf(mail_from)));
  return found == vmta_by_sender_.end() ? nullptr : &found->second;
}

std::shared_ptr<const PatternList> PolicyTables::FindPatternList(std::string_view name) {
  std::string key = Lower(name);
  if (const auto found = pattern_lists_.find(key); found != pattern_lists_.end()) {
    return found->second;
  }
  const policy::v1::PatternListSection* const section = policy_.FindPatternList(name);
  if (section == nullptr) return nullptr;
  auto list = std::make_shared<const PatternList>(*section, policy_);
  pattern_lists_.emplace(std::move(key), list);
  return list;
}

}  // namespace sluice::ingest
