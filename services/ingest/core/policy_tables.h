// What one policy says of all clients, prepared once: aliases, who may always be sent to, compiled
// pattern lists.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "services/config/policy_view.h"
#include "services/config/regex_matcher.h"
#include "services/ingest/core/pattern_list.h"

namespace sluice::ingest {

// Aliases that lead to one another; beyond, it is taken for a loop.
inline constexpr int kMaxAliasSteps = 10;

// Thread-safety: none, one executor; pattern lists are compiled when first asked for. Lifetime: the
// policy outlives it.
class PolicyTables {
 public:
  // `host_name` is the domain of addresses that have none, unless policy has a domain-suffix.
  PolicyTables(const config::PolicyView& policy, std::string host_name);

  // The domain of addresses that have none, in lower case.
  const std::string& local_domain() const { return local_domain_; }

  // relay-domain, relay-address and the sources of aliases: every client may send there. `address`
  // is canonical; domains beyond ASCII are compared as DNS has them (IDNA).
  bool RelaysTo(std::string_view address) const;

  bool has_aliases() const { return !aliases_.empty(); }
  // The address at the end of the aliases: `address` itself where it is none. Nothing: a loop.
  std::optional<std::string> Resolve(std::string_view address) const;

  // The first virtual MTA that sends from that address; nullptr where none does.
  const std::string* VirtualMtaOf(std::string_view ip) const;

  // The virtual MTA that mail of this sender must leave by (`ip ADDRESS domain = DOMAIN;`); nullptr
  // where any will do.
  const std::string* VirtualMtaOfSender(std::string_view mail_from) const;

  // nullptr where there is none.
  std::shared_ptr<const PatternList> FindPatternList(std::string_view name);

 private:
  const std::string* FindAlias(std::string_view address) const;

  const config::PolicyView& policy_;
  const std::string local_domain_;
  absl::flat_hash_map<std::string, std::string> aliases_;  // lower case to canonical
  absl::flat_hash_map<std::string, std::string> vmta_by_ip_;
  absl::flat_hash_map<std::string, std::string> vmta_by_sender_;  // domain
  absl::flat_hash_set<std::string> relay_domains_;
  absl::flat_hash_set<std::string> relay_subdomains_of_;
  absl::flat_hash_set<std::string> relay_addresses_;
  std::vector<config::RegexMatcher> relay_patterns_;
  absl::flat_hash_map<std::string, std::shared_ptr<const PatternList>> pattern_lists_;
};

}  // namespace sluice::ingest
