// The configuration while its files are being read. Private to the compiler.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "google/protobuf/message.h"
#include "services/config/compile_cache.h"
#include "services/config/diagnostic.h"
#include "services/config/origin.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// By pattern, and whether a macro named it.
using DomainDrafts = std::map<std::pair<std::string, bool>, policy::v1::QueueSettings>;

// <source IP> that names the virtual MTA whose address it is.
struct SourceUse {
  std::string network;
  std::string vmta;
  Location where;
};

struct SourcePoolUse {
  std::string network;
  Location where;
};

// <source-pool CIDR>
struct SourcePoolDraft {
  uint32_t max_smtp_out = 0;
  bool random_ip = false;
};

// <proxy NAME>
struct ProxyDraft {
  Location where;
  policy::v1::EgressProxy proxy;
  bool socks5 = false;
  int version = 1;
  std::vector<policy::v1::SourceHost> clients;
};

// use-proxy and smtp-proxy-source-host of one place.
struct ProxyUse {
  bool said = false;
  std::vector<std::pair<std::string, Location>> names;  // lower case
  std::vector<policy::v1::SourceHost> hosts;
  int version = 0;  // proxy-protocol; 0: not said
};

struct VirtualMtaDraft {
  policy::v1::VirtualMtaSection section;
  absl::flat_hash_map<std::string, int> hosts;  // by address: place in its source_hosts
  Location where;
  DomainDrafts domains;
  std::vector<SourcePoolUse> source_pools;
  ProxyUse proxies;
};

struct PoolDraft {
  policy::v1::PoolSection section;
  Location where;
  DomainDrafts domains;
  std::vector<std::pair<std::string, Location>> members;
};

struct ListenerDraft {
  policy::v1::ListenerSettings settings;
  Location where;
};

// A line that names a section, to be looked up when all is read.
struct SectionUse {
  std::string kind;  // source, pattern-list, source-group, smtp-pattern-list, rewrite-list
  std::string name;
  Location where;
};

struct NamedSourceDraft {
  policy::v1::ClientSettings settings;
  Location where;
};

// <bind>: a <domain> section of a virtual MTA that may be declared later.
struct BindDraft {
  policy::v1::QueueSettings settings;
  Location where;
};

struct Draft {
  policy::v1::GlobalSection global;
  std::map<std::string, VirtualMtaDraft> vmtas;  // by name in lower case
  std::map<std::string, PoolDraft> pools;
  DomainDrafts domains;
  std::map<std::string, policy::v1::ClientSettings> clients;  // by network
  std::map<std::string, policy::v1::SourceSettings> sources;  // by address
  std::map<std::string, NamedSourceDraft> named_sources;      // by name in lower case
  std::map<std::string, ListenerDraft> listeners;             // by ip:port
  std::map<std::string, policy::v1::PatternListSection> pattern_lists;
  std::map<std::string, policy::v1::SourceGroupSection> source_groups;
  std::map<std::string, policy::v1::SmtpPatternListSection> smtp_pattern_lists;
  std::map<std::string, policy::v1::RewriteListSection> rewrite_lists;
  policy::v1::BounceCategorySection bounce_categories;
  policy::v1::MxRollupSection mx_rollup;
  std::map<std::string, policy::v1::SmtpUserSection> smtp_users;  // by name as it is
  std::map<std::string, policy::v1::AuthFileSection> auth_files;  // by path
  std::vector<SectionUse> section_uses;
  // By virtual MTA in lower case (empty: all) and pattern.
  std::map<std::pair<std::string, std::string>, BindDraft> binds;
  std::vector<std::string> smtp_ips;
  std::vector<SourceUse> source_uses;
  std::vector<SourceUse> interface_uses;  // source-interface; the virtual MTA in lower case
  std::map<std::string, std::set<std::string>> sender_sources;  // domain to addresses
  std::map<std::string, SourcePoolDraft> source_pools;          // by network
  std::map<std::string, ProxyDraft> proxies;                    // by name in lower case
  ProxyUse use_proxies;                                         // of virtual MTAs that say nothing
  std::map<std::string, std::vector<std::string>> macros;
  absl::flat_hash_map<std::string, int> alias_places;  // in the global settings, by source
  // Lists that have a line for everything, so that no further one is reached.
  absl::flat_hash_set<const policy::v1::PatternListSection*> full_lists;
  // Of each list the lines for every reply.
  absl::flat_hash_map<const policy::v1::SmtpPatternListSection*, std::vector<policy::v1::ReplyRule>>
      every_reply;
  size_t pool_members = 0;      // of all pools, with repeats
  size_t source_addresses = 0;  // that lines gave to virtual MTAs
  // Virtual MTAs or pools that something names, to be looked up when all is read.
  std::vector<std::pair<std::string, Location>> references;
  // Global domains that are as in the compilation before: their sections, in the cache.
  absl::flat_hash_map<std::string, const policy::v1::Section*> ready_domains;
  // Global domains that are of one part of a file, to be kept for the next compilation.
  absl::flat_hash_map<std::string, CompileCache::Entry*> kept_domains;
  // Where fields of the messages above were said, if that is kept.
  absl::flat_hash_map<const google::protobuf::Message*, FieldOrigins> origins;
};

// More is said about a global domain than one part of a file: it is compiled, and not kept.
void MakeOpen(const std::string& pattern, Draft* draft);

// Adds the addresses of `network`, which is as ParseNetwork gives it, or changes the name of those
// that the virtual MTA has. What is wrong with it: a network, a virtual MTA or all lines together
// have too many addresses.
std::optional<std::string> AddSourceHosts(std::string_view network, const std::string& host_name,
                                          VirtualMtaDraft* vmta, Draft* draft);

// Checks names against each other and writes the sections.
policy::v1::PolicySnapshot FinishDraft(Draft draft, std::vector<Diagnostic>* diagnostics,
                                       Origins* origins);

}  // namespace sluice::config
