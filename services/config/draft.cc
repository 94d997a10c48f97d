#include "services/config/draft.h"

#include <algorithm>
#include <array>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/base/net/ip_address.h"
#include "services/config/compiler_proxy.h"
#include "services/config/domain_pattern.h"
#include "services/config/snapshot_hash.h"

namespace sluice::config {
namespace {

constexpr int kMaxSourceBits = 10;
constexpr int kMaxOfVirtualMta = 16'384;
constexpr size_t kMaxAddresses = 1'000'000;
constexpr size_t kMaxDiagnostics = 1'000;
constexpr size_t kMaxCompared = 500'000;
constexpr std::string_view kDefaultName = "default";

class Finisher {
 public:
  Finisher(Draft draft, std::vector<Diagnostic>* diagnostics, Origins* origins)
      : draft_(std::move(draft)), diagnostics_(diagnostics), origins_(*origins) {
    for (const auto& [name, vmta] : draft_.vmtas) names_.push_back(name);
    vmta_count_ = names_.size();
    for (const auto& [name, pool] : draft_.pools) names_.push_back(name);
  }

  policy::v1::PolicySnapshot Finish() {
    CheckNames();
    CheckSectionUses();
    PlaceBinds();
    if (!draft_.vmtas.contains(std::string(kDefaultName)) &&
        !draft_.pools.contains(std::string(kDefaultName))) {
      // Where mail that names nothing goes, unless a directive says otherwise.
      draft_.vmtas[std::string(kDefaultName)].section.set_name(std::string(kDefaultName));
    }
    PlaceSenderSources();
    auto* const settings = draft_.global.mutable_settings();
    for (const std::string& ip : draft_.smtp_ips) {
      const auto address = IpAddress::Parse(ip);
      const int port = settings->smtp_port() == 0 ? 25 : static_cast<int>(settings->smtp_port());
      const std::string listener = (Endpoint{*address, static_cast<uint16_t>(port)}).ToString();
      auto* const values = settings->mutable_smtp_listeners()->mutable_values();
      if (std::find(values->begin(), values->end(), listener) == values->end()) {
        *values->Add() = listener;
      }
    }
    using policy::v1::GlobalSettings;
    if (const auto said = draft_.origins.find(settings); said != draft_.origins.end()) {
      const auto port = said->second.find(GlobalSettings::kSmtpPortFieldNumber);
      if (port != said->second.end()) {
        const Origin origin = port->second;
        said->second.emplace(GlobalSettings::kSmtpListenersFieldNumber, origin);
      }
    }
    // It says which port, and where only where nothing else does.
    if (!draft_.smtp_ips.empty()) settings->clear_smtp_port();
    if (settings->smtp_port() != 0) {
      auto* const listeners = settings->mutable_smtp_listeners()->mutable_values();
      const std::string everywhere = absl::StrCat("0.0.0.0:", settings->smtp_port());
      if (std::find(listeners->begin(), listeners->end(), everywhere) == listeners->end()) {
        *listeners->Add() = everywhere;
      }
    }
    KeepOrigins(&draft_.global.settings(), "global settings");
    KeepOrigins(&draft_.global.queue_defaults(), "global queue");
    KeepOrigins(&draft_.global.client_defaults(), "global client");
    policy::v1::SectionContent content;
    *content.mutable_global() = draft_.global;
    Add("global", std::move(content));
    // Pools first: they take the names of virtual MTAs as those are declared.
    for (auto& [name, pool] : draft_.pools) AddPool(name, &pool);
    std::stable_sort(draft_.interface_uses.begin(), draft_.interface_uses.end(),
                     [](const SourceUse& a, const SourceUse& b) { return a.vmta < b.vmta; });
    for (auto& [name, vmta] : draft_.vmtas) AddVirtualMta(name, &vmta);
    for (const auto& [key, settings] : draft_.domains) {
      policy::v1::SectionContent domain;
      domain.mutable_domain()->set_pattern(key.first);
      domain.mutable_domain()->set_from_macro(key.second);
      *domain.mutable_domain()->mutable_settings() = settings;
      KeepOrigins(&settings, DomainName(key));
      AddDomain(key, std::move(domain));
    }
    for (const auto& [pattern, section] : draft_.ready_domains)
      *snapshot_.add_sections() = *section;
    for (const auto& [network, settings] : draft_.clients) {
      policy::v1::SectionContent client;
      client.mutable_client()->set_cidr(network);
      *client.mutable_client()->mutable_settings() = settings;
      KeepOrigins(&settings, absl::StrCat("client/", network));
      Add(absl::StrCat("client/", network), std::move(client));
    }
    AddIngress();
    for (const auto& [ip, settings] : draft_.sources) {
      if (settings.ByteSizeLong() == 0) continue;
      policy::v1::SectionContent source;
      source.mutable_source()->set_ip(ip);
      *source.mutable_source()->mutable_settings() = settings;
      KeepOrigins(&settings, absl::StrCat("source/", ip));
      Add(absl::StrCat("source/", ip), std::move(source));
    }
    SortSections(&snapshot_);
    return std::move(snapshot_);
  }

 private:
  void AddIngress() {
    for (const auto& [name, source] : draft_.named_sources) {
      policy::v1::SectionContent client;
      client.mutable_client()->set_name(name);
      *client.mutable_client()->mutable_settings() = source.settings;
      KeepOrigins(&source.settings, absl::StrCat("named-source/", name));
      Add(absl::StrCat("named-source/", name), std::move(client));
    }
    for (const auto& [address, listener] : draft_.listeners) {
      if (listener.settings.ByteSizeLong() == 0) continue;
      policy::v1::SectionContent content;
      content.mutable_listener()->set_address(address);
      *content.mutable_listener()->mutable_settings() = listener.settings;
      KeepOrigins(&listener.settings, absl::StrCat("listener/", address));
      Add(absl::StrCat("listener/", address), std::move(content));
    }
    for (const auto& [name, list] : draft_.pattern_lists) {
      policy::v1::SectionContent content;
      *content.mutable_pattern_list() = list;
      Add(absl::StrCat("pattern-list/", name), std::move(content));
    }
    for (const auto& [name, user] : draft_.smtp_users) {
      policy::v1::SectionContent content;
      *content.mutable_smtp_user() = user;
      KeepOrigins(&user, absl::StrCat("smtp-user/", name));
      Add(absl::StrCat("smtp-user/", name), std::move(content));
    }
    for (const auto& [name, file] : draft_.auth_files) {
      policy::v1::SectionContent content;
      *content.mutable_auth_file() = file;
      Add(absl::StrCat("auth-file/", name), std::move(content));
    }
    for (const auto& [name, group] : draft_.source_groups) {
      policy::v1::SectionContent content;
      *content.mutable_source_group() = group;
      KeepOrigins(&group, absl::StrCat("source-group/", name));
      Add(absl::StrCat("source-group/", name), std::move(content));
    }
    for (const auto& [name, list] : draft_.smtp_pattern_lists) {
      policy::v1::SectionContent content;
      *content.mutable_smtp_pattern_list() = list;
      Add(absl::StrCat("smtp-pattern-list/", name), std::move(content));
    }
    for (const auto& [name, list] : draft_.rewrite_lists) {
      policy::v1::SectionContent content;
      *content.mutable_rewrite_list() = list;
      Add(absl::StrCat("rewrite-list/", name), std::move(content));
    }
    if (!draft_.bounce_categories.rules().empty()) {
      policy::v1::SectionContent content;
      *content.mutable_bounce_categories() = draft_.bounce_categories;
      Add("bounce-categories", std::move(content));
    }
    if (!draft_.mx_rollup.entries().empty()) {
      policy::v1::SectionContent content;
      *content.mutable_mx_rollup() = draft_.mx_rollup;
      Add("mx-rollup", std::move(content));
    }
  }

  // What a <bind> says goes over what the virtual MTA's <domain> says.
  void PlaceBinds() {
    for (auto& [key, bind] : draft_.binds) {
      const auto& [vmta, pattern] = key;
      DomainDrafts* domains = &draft_.domains;
      if (!vmta.empty()) {
        const auto found = draft_.vmtas.find(vmta);
        if (found == draft_.vmtas.end()) {
          Unknown("virtual MTA", vmta, bind.where, vmta_count_);
          continue;
        }
        domains = &found->second.domains;
      } else {
        MakeOpen(pattern, &draft_);
      }
      policy::v1::QueueSettings& settings = (*domains)[{pattern, false}];
      OverlaySettings(bind.settings, &settings);
      const auto said = draft_.origins.find(&bind.settings);
      if (said == draft_.origins.end()) continue;
      const FieldOrigins fields = said->second;
      for (const auto& [field, origin] : fields) draft_.origins[&settings][field] = origin;
    }
  }

  // A virtual MTA with just these addresses; one is made where there is none.
  void PlaceSenderSources() {
    if (draft_.sender_sources.empty()) return;
    const auto key_of = [](const std::set<std::string>& ips) { return absl::StrJoin(ips, " "); };
    absl::flat_hash_map<std::string, std::string> by_addresses;  // the first one's name
    absl::flat_hash_map<std::string, std::string> host_names;    // by address, of the first one
    for (const auto& [name, vmta] : draft_.vmtas) {
      std::set<std::string> own;
      for (const auto& host : vmta.section.source_hosts()) {
        own.insert(host.ip());
        host_names.emplace(host.ip(),
                           host.host_name().empty() ? vmta.section.host_name() : host.host_name());
      }
      if (vmta.source_pools.empty()) by_addresses.emplace(key_of(own), name);
    }
    for (const auto& [domain, ips] : draft_.sender_sources) {
      const std::string key =
          by_addresses.emplace(key_of(ips), absl::StrCat("ip-", domain)).first->second;
      VirtualMtaDraft& vmta = draft_.vmtas[key];
      auto* const sender = draft_.global.mutable_settings()->add_sender_sources();
      sender->set_domain(domain);
      for (const std::string& ip : ips) sender->add_ips(ip);
      if (vmta.section.name().empty()) {
        vmta.section.set_name(key);
        for (const std::string& ip : ips) AddSourceHosts(ip, host_names[ip], &vmta, &draft_);
      }
      sender->set_virtual_mta(vmta.section.name());
    }
  }

  // Sections that lines name must be there, and a named source is of no use where nothing names it:
  // it is likely a network that was written wrong.
  void CheckSectionUses() {
    std::set<std::string> used = {"{auth}", "{pickup}"};
    for (const SectionUse& use : draft_.section_uses) {
      const std::string lower = absl::AsciiStrToLower(use.name);
      if (use.kind == "source") used.insert(lower);
      const bool known = use.kind == "source"         ? draft_.named_sources.contains(lower)
                         : use.kind == "pattern-list" ? draft_.pattern_lists.contains(lower)
                         : use.kind == "smtp-pattern-list"
                             ? draft_.smtp_pattern_lists.contains(lower)
                         : use.kind == "rewrite-list" ? draft_.rewrite_lists.contains(lower)
                                                      : draft_.source_groups.contains(lower);
      if (known || lower == "{auth}" || lower == "{pickup}") continue;
      Say(Diagnostic::Severity::kError, use.where,
          absl::StrCat("there is no <", use.kind, " ", use.name, ">"));
    }
    for (const auto& [name, source] : draft_.named_sources) {
      if (used.contains(name)) continue;
      const bool braces = name.front() == '{';
      Say(braces ? Diagnostic::Severity::kWarning : Diagnostic::Severity::kError, source.where,
          absl::StrCat("\"", name, "\" is no network",
                       braces ? ", and" : "; it is written 192.0.2.0/24 or 192.0.2.1, and",
                       " no listener or user names this source"));
    }
  }

  static std::string DomainName(const std::pair<std::string, bool>& key) {
    return absl::StrCat(key.second ? "macro-domain/" : "domain/", key.first);
  }
  void KeepOrigins(const google::protobuf::Message* message, const std::string& place) {
    const auto found = draft_.origins.find(message);
    if (found != draft_.origins.end()) origins_[place] = std::move(found->second);
  }
  void WriteDomains(const std::string& section, const DomainDrafts& drafts,
                    google::protobuf::RepeatedPtrField<policy::v1::DomainSection>* domains) {
    for (const auto& [key, settings] : drafts) {
      KeepOrigins(&settings, absl::StrCat(section, " ", DomainName(key)));
      auto* const domain = domains->Add();
      domain->set_pattern(key.first);
      domain->set_from_macro(key.second);
      *domain->mutable_settings() = settings;
    }
  }

  void AddDomain(const std::pair<std::string, bool>& key, policy::v1::SectionContent content) {
    Add(DomainName(key), std::move(content));
    const auto kept = key.second ? draft_.kept_domains.end() : draft_.kept_domains.find(key.first);
    if (kept == draft_.kept_domains.end()) return;
    kept->second->section = snapshot_.sections(snapshot_.sections_size() - 1);
  }

  void Add(std::string name, policy::v1::SectionContent content) {
    *snapshot_.add_sections() = MakeSection(std::move(name), std::move(content));
  }
  void Say(Diagnostic::Severity severity, const Location& where, std::string message,
           std::string hint = "") {
    if (++said_ > kMaxDiagnostics) return;
    diagnostics_->push_back({severity, where, std::move(message), std::move(hint)});
  }
  void Unknown(const char* what, const std::string& name, const Location& where, size_t known) {
    if (said_ > kMaxDiagnostics) return;
    // Names may be many, and looking for one that is like another takes time.
    compared_ += known;
    const auto closest = compared_ > kMaxCompared
                             ? std::nullopt
                             : ClosestName(name, std::vector<std::string_view>(
                                                     names_.begin(), names_.begin() + known));
    Say(Diagnostic::Severity::kError, where, absl::StrCat("there is no ", what, " \"", name, "\""),
        closest ? absl::StrCat("did you mean \"", *closest, "\"?") : "");
  }

  void CheckNames() {
    for (const auto& [name, pool] : draft_.pools) {
      if (draft_.vmtas.contains(name)) {
        Say(Diagnostic::Severity::kError, pool.where,
            absl::StrCat("\"", name, "\" is the name of a virtual MTA and of a pool"));
      }
      if (pool.members.empty()) {
        Say(Diagnostic::Severity::kError, pool.where,
            absl::StrCat("the pool \"", name, "\" has no virtual-mta"));
      }
      for (const auto& [member, where] : pool.members) {
        if (!draft_.vmtas.contains(absl::AsciiStrToLower(member))) {
          Unknown("virtual MTA", member, where, vmta_count_);
        }
      }
    }
    for (const SourceUse& use : draft_.source_uses) {
      const auto vmta = draft_.vmtas.find(absl::AsciiStrToLower(use.vmta));
      if (vmta == draft_.vmtas.end()) {
        Unknown("virtual MTA", use.vmta, use.where, vmta_count_);
      } else if (auto error = AddSourceHosts(use.network, "", &vmta->second, &draft_)) {
        Say(Diagnostic::Severity::kError, use.where, *std::move(error));
      }
    }
    for (const auto& [name, where] : draft_.references) {
      const std::string lower = absl::AsciiStrToLower(name);
      if (lower != kDefaultName && !draft_.vmtas.contains(lower) && !draft_.pools.contains(lower)) {
        Unknown("virtual MTA or pool", name, where, names_.size());
      }
    }
  }

  void AddVirtualMta(const std::string& name, VirtualMtaDraft* vmta) {
    for (const SourcePoolUse& use : vmta->source_pools) {
      if (auto error = AddSourceHosts(use.network, "", vmta, &draft_)) {
        Say(Diagnostic::Severity::kError, use.where, *std::move(error));
      }
      const auto pool = draft_.source_pools.find(use.network);
      if (pool == draft_.source_pools.end()) continue;
      if (pool->second.max_smtp_out != 0 && !vmta->section.has_max_smtp_out()) {
        vmta->section.set_max_smtp_out(pool->second.max_smtp_out);
      }
      if (pool->second.random_ip && !vmta->section.has_random_ip()) {
        vmta->section.set_random_ip(true);
      }
    }
    AddProxySources(vmta->proxies, draft_.use_proxies, draft_.proxies, &vmta->section,
                    diagnostics_);
    for (; next_use_ < draft_.interface_uses.size(); ++next_use_) {
      const SourceUse& use = draft_.interface_uses[next_use_];
      if (use.vmta > name || said_ > kMaxDiagnostics) break;
      const auto& hosts = vmta->section.source_hosts();  // also those of proxies
      if (use.vmta == name && !vmta->hosts.contains(use.network) &&
          std::none_of(hosts.begin(), hosts.end(),
                       [&use](const auto& host) { return host.ip() == use.network; })) {
        Say(Diagnostic::Severity::kError, use.where,
            absl::StrCat("the virtual MTA \"", vmta->section.name(), "\" has no source ",
                         use.network));
      }
    }
    const std::string& host_name = vmta->section.host_name().empty()
                                       ? draft_.global.settings().host_name()
                                       : vmta->section.host_name();
    for (auto& host : *vmta->section.mutable_source_hosts()) {
      if (host.host_name().empty()) host.set_host_name(host_name);
    }
    const std::string place = absl::StrCat("vmta/", name);
    KeepOrigins(&vmta->section, place);
    KeepOrigins(&vmta->section.queue_defaults(), place + " queue");
    WriteDomains(place, vmta->domains, vmta->section.mutable_domains());
    // An empty part is the same as none, and has the same hash.
    if (vmta->section.queue_defaults().ByteSizeLong() == 0) vmta->section.clear_queue_defaults();
    policy::v1::SectionContent content;
    *content.mutable_virtual_mta() = std::move(vmta->section);
    Add(place, std::move(content));
  }

  void AddPool(const std::string& name, PoolDraft* pool) {
    std::map<std::string, bool> seen;
    for (const auto& [member, where] : pool->members) {
      const std::string lower = absl::AsciiStrToLower(member);
      const auto vmta = draft_.vmtas.find(lower);
      if (vmta == draft_.vmtas.end() || !seen.emplace(lower, true).second) continue;
      pool->section.add_virtual_mtas(vmta->second.section.name());
    }
    const std::string place = absl::StrCat("pool/", name);
    KeepOrigins(&pool->section, place);
    WriteDomains(place, pool->domains, pool->section.mutable_domains());
    policy::v1::SectionContent content;
    *content.mutable_pool() = std::move(pool->section);
    Add(place, std::move(content));
  }

  Draft draft_;
  std::vector<Diagnostic>* const diagnostics_;
  Origins& origins_;
  std::vector<std::string> names_;  // virtual MTAs, then pools
  size_t vmta_count_ = 0;
  size_t next_use_ = 0;  // of interface_uses, which are in order of virtual MTAs by then
  size_t said_ = 0;
  size_t compared_ = 0;  // names
  policy::v1::PolicySnapshot snapshot_;
};

}  // namespace

void MakeOpen(const std::string& pattern, Draft* draft) {
  draft->kept_domains.erase(pattern);
  const auto ready = draft->ready_domains.find(pattern);
  if (ready == draft->ready_domains.end()) return;
  draft->domains[{pattern, false}] = ready->second->content().domain().settings();
  draft->ready_domains.erase(ready);
}

std::optional<std::string> AddSourceHosts(std::string_view network, const std::string& host_name,
                                          VirtualMtaDraft* vmta, Draft* draft) {
  const auto cidr = Cidr::Parse(network);
  const int host_bits =
      cidr ? (cidr->address().is_v4() ? 32 : 128) - cidr->prefix_bits() : kMaxSourceBits + 1;
  if (host_bits > kMaxSourceBits) return "more than 1024 source addresses";
  const uint32_t count = uint32_t{1} << host_bits;
  if (draft->source_addresses > kMaxAddresses) return "more than 1,000,000 source addresses in all";
  draft->source_addresses += count;
  for (uint32_t i = 0; i < count; ++i) {
    IpAddress ip;
    if (cidr->address().is_v4()) {
      ip = IpAddress::V4(cidr->address().v4() | i);
    } else {
      std::array<uint8_t, 16> bytes;
      for (size_t b = 0; b < 16; ++b) {
        bytes[b] = static_cast<uint8_t>(cidr->address().bytes()[b]);
      }
      bytes[14] |= static_cast<uint8_t>(i >> 8);
      bytes[15] |= static_cast<uint8_t>(i);
      ip = IpAddress::V6(bytes);
    }
    auto place = vmta->hosts.find(ip.ToString());
    if (place == vmta->hosts.end()) {
      const int next = vmta->section.source_hosts_size();
      if (next >= kMaxOfVirtualMta) return "a virtual MTA has at most 16384 source addresses";
      vmta->section.add_source_hosts()->set_ip(ip.ToString());
      place = vmta->hosts.emplace(ip.ToString(), next).first;
    }
    if (!host_name.empty()) {
      vmta->section.mutable_source_hosts(place->second)->set_host_name(host_name);
    }
  }
  return std::nullopt;
}

policy::v1::PolicySnapshot FinishDraft(Draft draft, std::vector<Diagnostic>* diagnostics,
                                       Origins* origins) {
  return Finisher(std::move(draft), diagnostics, origins).Finish();
}

}  // namespace sluice::config
