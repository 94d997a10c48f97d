#include "services/config/policy_view.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/config/domain_pattern.h"
#include "services/config/queue_mark.h"
#include "services/config/settings_defaults.h"

namespace sluice::config {
namespace {

using policy::v1::ClientSettings;
using policy::v1::ControlEntry;
using policy::v1::DomainSection;
using policy::v1::QueueSettings;
using policy::v1::SourceSettings;

constexpr size_t kMaxCached = 100'000;

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

// Sections by pattern: those whose pattern is a plain domain are found by name, the others by
// trying.
class DomainTable {
 public:
  void Add(const DomainSection& section) { sections_.push_back(&section); }
  void Finish() {
    // From general to particular; of equals, the later one in the file wins.
    std::stable_sort(sections_.begin(), sections_.end(),
                     [](const DomainSection* a, const DomainSection* b) {
                       return PatternRank(a->pattern(), a->from_macro()) <
                              PatternRank(b->pattern(), b->from_macro());
                     });
    for (size_t i = 0; i < sections_.size(); ++i) {
      if (IsPlainDomain(sections_[i]->pattern())) {
        plain_[sections_[i]->pattern()].push_back(i);
      } else {
        patterns_.push_back(i);
      }
    }
  }
  void MergeInto(std::string_view domain, QueueSettings* settings) const {
    std::vector<size_t> matching;
    for (size_t i : patterns_) {
      if (PatternMatches(sections_[i]->pattern(), domain)) matching.push_back(i);
    }
    if (const auto found = plain_.find(std::string(domain)); found != plain_.end()) {
      matching.insert(matching.end(), found->second.begin(), found->second.end());
    }
    std::sort(matching.begin(), matching.end());
    for (size_t i : matching) OverlaySettings(sections_[i]->settings(), settings);
  }

 private:
  std::vector<const DomainSection*> sections_;
  std::vector<size_t> patterns_;
  absl::flat_hash_map<std::string, std::vector<size_t>> plain_;
};

// Results that are asked for again and again; dropped whole when there are too many.
template <class Key, class Settings>
class Cache {
 public:
  template <class Make>
  std::shared_ptr<const Settings> Get(const Key& key, Make make) {
    std::lock_guard lock(mutex_);
    if (const auto found = entries_.find(key); found != entries_.end()) return found->second;
    if (entries_.size() >= kMaxCached) entries_.clear();
    auto made = std::make_shared<Settings>();
    make(made.get());
    // Most queues have equal settings: they share one object.
    const std::string bytes = made->SerializeAsString();
    auto& shared = by_content_[bytes];
    std::shared_ptr<const Settings> result = shared.lock();
    if (result == nullptr) {
      result = made;
      shared = result;
    }
    entries_.emplace(key, result);
    return result;
  }

 private:
  std::mutex mutex_;
  absl::flat_hash_map<Key, std::shared_ptr<const Settings>> entries_;
  absl::flat_hash_map<std::string, std::weak_ptr<const Settings>> by_content_;
};

class SnapshotView final : public PolicyView {
 public:
  absl::Status Init(const policy::v1::PolicySnapshot& snapshot) {
    snapshot_ = snapshot;
    global_ = DefaultGlobalSettings();
    for (const policy::v1::Section& section : snapshot_.sections()) {
      const auto& content = section.content();
      switch (content.content_case()) {
        case policy::v1::SectionContent::kGlobal:
          OverlaySettings(content.global().settings(), &global_);
          OverlaySettings(content.global().queue_defaults(), &queue_defaults_);
          OverlaySettings(content.global().client_defaults(), &client_defaults_);
          break;
        case policy::v1::SectionContent::kVirtualMta: {
          const auto& vmta = content.virtual_mta();
          vmtas_.push_back(&vmta);
          Named& named = vmta_by_name_[Lower(vmta.name())];
          named.vmta = &vmta;
          for (const DomainSection& domain : vmta.domains()) named.domains.Add(domain);
          named.domains.Finish();
          break;
        }
        case policy::v1::SectionContent::kPool: {
          Named& named = pool_by_name_[Lower(content.pool().name())];
          named.pool = &content.pool();
          pools_.push_back(&content.pool());
          for (const DomainSection& domain : content.pool().domains()) named.domains.Add(domain);
          named.domains.Finish();
          break;
        }
        case policy::v1::SectionContent::kDomain:
          domains_.Add(content.domain());
          break;
        case policy::v1::SectionContent::kListener:
          listeners_[content.listener().address()] = &content.listener().settings();
          break;
        case policy::v1::SectionContent::kPatternList:
          pattern_lists_[Lower(content.pattern_list().name())] = &content.pattern_list();
          break;
        case policy::v1::SectionContent::kSmtpPatternList:
          smtp_pattern_lists_[Lower(content.smtp_pattern_list().name())] =
              &content.smtp_pattern_list();
          break;
        case policy::v1::SectionContent::kRewriteList:
          rewrite_lists_[Lower(content.rewrite_list().name())] = &content.rewrite_list();
          break;
        case policy::v1::SectionContent::kBounceCategories:
          bounce_categories_ = &content.bounce_categories();
          break;
        case policy::v1::SectionContent::kMxRollup:
          mx_rollup_ = &content.mx_rollup();
          break;
        case policy::v1::SectionContent::kSourceGroup:
          source_groups_.push_back(&content.source_group());
          break;
        case policy::v1::SectionContent::kClient: {
          if (!content.client().name().empty()) {
            named_sources_[Lower(content.client().name())] = &content.client().settings();
            break;
          }
          const auto cidr = Cidr::Parse(content.client().cidr());
          if (!cidr) {
            return absl::InvalidArgumentError(absl::StrCat(
                "section ", section.name(), ": \"", content.client().cidr(), "\" is no network"));
          }
          clients_.emplace_back(*cidr, &content.client().settings());
          break;
        }
        case policy::v1::SectionContent::kSource:
          sources_[content.source().ip()] = &content.source().settings();
          break;
        case policy::v1::SectionContent::kControl:
          controls_.push_back(&content.control());
          break;
        case policy::v1::SectionContent::kSmtpUser:
          smtp_users_[content.smtp_user().name()] = &content.smtp_user();
          break;
        case policy::v1::SectionContent::kAuthFile:
          auth_files_[content.auth_file().name()] = &content.auth_file();
          break;
        case policy::v1::SectionContent::kAuthSecret:
          auth_secret_ = &content.auth_secret().secret();
          break;
        case policy::v1::SectionContent::CONTENT_NOT_SET:
          return absl::InvalidArgumentError(
              absl::StrCat("section ", section.name(), " has no content that this version knows"));
      }
    }
    domains_.Finish();
    if (vmtas_.empty()) {
      fallback_vmta_.set_name("default");
      vmtas_.push_back(&fallback_vmta_);
      vmta_by_name_["default"].vmta = &fallback_vmta_;
    }
    std::stable_sort(clients_.begin(), clients_.end(), [](const auto& a, const auto& b) {
      return a.first.prefix_bits() < b.first.prefix_bits();
    });
    return absl::OkStatus();
  }

  uint64_t version() const override { return snapshot_.version(); }
  const policy::v1::GlobalSettings& global() const override { return global_; }

  std::shared_ptr<const QueueSettings> ForQueue(std::string_view domain, std::string_view vmta,
                                                std::string_view pool) const override {
    domain = WithoutMark(domain);
    const std::string name = absl::StrCat(absl::string_view(domain.data(), domain.size()), "/",
                                          absl::string_view(vmta.data(), vmta.size()), "/",
                                          absl::string_view(pool.data(), pool.size()));
    return queues_.Get(name, [&](QueueSettings* settings) {
      *settings = DefaultQueueSettings();
      OverlaySettings(queue_defaults_, settings);
      domains_.MergeInto(domain, settings);
      if (const auto found = pool_by_name_.find(Lower(pool)); found != pool_by_name_.end()) {
        found->second.domains.MergeInto(domain, settings);
      }
      if (const auto found = vmta_by_name_.find(Lower(vmta)); found != vmta_by_name_.end()) {
        OverlaySettings(found->second.vmta->queue_defaults(), settings);
        found->second.domains.MergeInto(domain, settings);
      }
    });
  }

  std::shared_ptr<const ClientSettings> ForClient(std::string_view ip) const override {
    const auto address = IpAddress::Parse(ip);
    return client_cache_.Get(std::string(ip),
                             [&](ClientSettings* settings) { MergeClient(address, settings); });
  }

  std::shared_ptr<const ClientSettings> ForClientOf(
      std::string_view ip, const std::vector<std::string>& sources) const override {
    if (sources.empty()) return ForClient(ip);
    const auto address = IpAddress::Parse(ip);
    std::string key(ip);
    for (const std::string& source : sources) {
      // No name has a line end.
      key += '\n';
      key += Lower(source);
    }
    return client_cache_.Get(key, [&](ClientSettings* settings) {
      MergeClient(address, settings);
      for (const std::string& source : sources) {
        const auto found = named_sources_.find(Lower(source));
        if (found == named_sources_.end()) continue;
        OverlaySettings(*found->second, settings);
        if (found->second->has_max_smtp_in()) settings->set_max_smtp_in_scope(Lower(source));
      }
    });
  }

  const policy::v1::ListenerSettings* FindListener(std::string_view address) const override {
    if (listeners_.empty()) return nullptr;
    const auto find = [this](std::string key) {
      const auto found = listeners_.find(key);
      return found == listeners_.end() ? nullptr : found->second;
    };
    if (const auto* own = find(std::string(address))) return own;
    const std::string port(address.substr(std::min(address.rfind(':'), address.size())));
    const auto* const every = address.starts_with('[') ? nullptr : find("0.0.0.0" + port);
    // One that listens on all of IPv6 takes IPv4 too.
    return every != nullptr ? every : find("[::]" + port);
  }
  const policy::v1::SmtpPatternListSection* FindSmtpPatternList(
      std::string_view name) const override {
    const auto found = smtp_pattern_lists_.find(Lower(name));
    return found == smtp_pattern_lists_.end() ? nullptr : found->second;
  }
  const policy::v1::RewriteListSection* FindRewriteList(std::string_view name) const override {
    const auto found = rewrite_lists_.find(Lower(name));
    return found == rewrite_lists_.end() ? nullptr : found->second;
  }
  const policy::v1::BounceCategorySection& bounce_categories() const override {
    return *bounce_categories_;
  }
  const policy::v1::MxRollupSection& mx_rollup() const override { return *mx_rollup_; }
  const policy::v1::PatternListSection* FindPatternList(std::string_view name) const override {
    const auto found = pattern_lists_.find(Lower(name));
    return found == pattern_lists_.end() ? nullptr : found->second;
  }
  const std::vector<const policy::v1::SourceGroupSection*>& source_groups() const override {
    return source_groups_;
  }

  std::shared_ptr<const SourceSettings> ForSource(std::string_view ip) const override {
    return source_cache_.Get(std::string(ip), [&](SourceSettings* settings) {
      settings->mutable_max_msg_rate()->set_unlimited(true);
      if (const auto found = sources_.find(std::string(ip)); found != sources_.end()) {
        OverlaySettings(*found->second, settings);
      }
    });
  }

  const policy::v1::VirtualMtaSection* FindVirtualMta(std::string_view name) const override {
    const auto found = vmta_by_name_.find(Lower(name));
    return found == vmta_by_name_.end() ? nullptr : found->second.vmta;
  }
  const policy::v1::PoolSection* FindPool(std::string_view name) const override {
    const auto found = pool_by_name_.find(Lower(name));
    return found == pool_by_name_.end() ? nullptr : found->second.pool;
  }
  const std::vector<const policy::v1::VirtualMtaSection*>& virtual_mtas() const override {
    return vmtas_;
  }
  const std::vector<const policy::v1::PoolSection*>& pools() const override { return pools_; }

  const policy::v1::SmtpUserSection* FindSmtpUser(std::string_view name) const override {
    const auto found = smtp_users_.find(std::string(name));
    return found == smtp_users_.end() ? nullptr : found->second;
  }
  std::vector<const policy::v1::SmtpUserSection*> smtp_users() const override {
    std::vector<const policy::v1::SmtpUserSection*> users;
    for (const auto& [name, user] : smtp_users_) users.push_back(user);
    return users;
  }
  const policy::v1::AuthFileSection* FindAuthFile(std::string_view name) const override {
    const auto found = auth_files_.find(std::string(name));
    return found == auth_files_.end() ? nullptr : found->second;
  }
  const std::string& auth_secret() const override { return *auth_secret_; }

  const ControlEntry* FindPause(std::string_view queue, std::string_view job) const override {
    const ControlEntry* longest = nullptr;
    for (const ControlEntry* entry : controls_) {
      if (entry->kind() != ControlEntry::KIND_PAUSE) continue;
      if (!entry->queue_pattern().empty() && !WildcardMatches(entry->queue_pattern(), queue)) {
        continue;
      }
      if (job.empty() ? !entry->job_id().empty()
                      : !entry->job_id().empty() && entry->job_id() != job) {
        continue;
      }
      if (entry->until_us() == 0) return entry;
      if (longest == nullptr || entry->until_us() > longest->until_us()) longest = entry;
    }
    return longest;
  }
  const std::vector<const ControlEntry*>& controls() const override { return controls_; }

 private:
  void MergeClient(const std::optional<IpAddress>& address, ClientSettings* settings) const {
    *settings = DefaultClientSettings();
    if (address && address->IsLoopback()) settings->set_allow_relay(true);
    OverlaySettings(client_defaults_, settings);
    if (!address) return;
    for (const auto& [cidr, said] : clients_) {
      if (!cidr.Contains(*address)) continue;
      OverlaySettings(*said, settings);
      if (said->has_max_smtp_in()) settings->set_max_smtp_in_scope(cidr.ToString());
    }
  }

  struct Named {
    const policy::v1::VirtualMtaSection* vmta = nullptr;
    const policy::v1::PoolSection* pool = nullptr;
    DomainTable domains;
  };

  policy::v1::PolicySnapshot snapshot_;  // all pointers below lead into it
  policy::v1::GlobalSettings global_;
  QueueSettings queue_defaults_;
  ClientSettings client_defaults_;
  policy::v1::VirtualMtaSection fallback_vmta_;
  std::vector<const policy::v1::VirtualMtaSection*> vmtas_;
  std::vector<const policy::v1::PoolSection*> pools_;
  absl::flat_hash_map<std::string, Named> vmta_by_name_;
  absl::flat_hash_map<std::string, Named> pool_by_name_;
  DomainTable domains_;
  std::vector<std::pair<Cidr, const ClientSettings*>> clients_;  // from general to particular
  absl::flat_hash_map<std::string, const SourceSettings*> sources_;
  absl::flat_hash_map<std::string, const ClientSettings*> named_sources_;
  absl::flat_hash_map<std::string, const policy::v1::ListenerSettings*> listeners_;
  absl::flat_hash_map<std::string, const policy::v1::PatternListSection*> pattern_lists_;
  absl::flat_hash_map<std::string, const policy::v1::SmtpPatternListSection*> smtp_pattern_lists_;
  absl::flat_hash_map<std::string, const policy::v1::RewriteListSection*> rewrite_lists_;
  const policy::v1::BounceCategorySection* bounce_categories_ =
      &policy::v1::BounceCategorySection::default_instance();
  const policy::v1::MxRollupSection* mx_rollup_ = &policy::v1::MxRollupSection::default_instance();
  std::vector<const policy::v1::SourceGroupSection*> source_groups_;
  std::vector<const ControlEntry*> controls_;
  absl::flat_hash_map<std::string, const policy::v1::SmtpUserSection*> smtp_users_;
  absl::flat_hash_map<std::string, const policy::v1::AuthFileSection*> auth_files_;
  const std::string* auth_secret_ = &policy::v1::AuthSecretSection::default_instance().secret();
  mutable Cache<std::string, QueueSettings> queues_;
  mutable Cache<std::string, ClientSettings> client_cache_;
  mutable Cache<std::string, SourceSettings> source_cache_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const PolicyView>> PolicyView::Build(
    const policy::v1::PolicySnapshot& snapshot) {
  auto view = std::make_shared<SnapshotView>();
  if (absl::Status status = view->Init(snapshot); !status.ok()) return status;
  return std::shared_ptr<const PolicyView>(std::move(view));
}

std::shared_ptr<const PolicyView> PolicyView::Defaults() {
  auto view = std::make_shared<SnapshotView>();
  // A snapshot without sections has none that could be wrong.
  view->Init({}).IgnoreError();
  return view;
}

}  // namespace sluice::config
