#include "services/config/semantic_checks.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/base/net/ip_address.h"
#include "services/config/command_line.h"
#include "services/config/domain_pattern.h"
#include "services/config/queue_checks.h"
#include "services/config/registry.h"
#include "services/config/value.h"
#include "services/config/value_lines.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxWarnings = 1'000;
constexpr int kMinRsaBits = 1024;
constexpr uint32_t kDayMinutes = 24 * 60;

using Lines = std::vector<const ConfigLine*>;

std::string Clock(uint32_t minute) {
  return absl::StrFormat("%02d:%02d", minute / 60, minute % 60);
}

class Checker {
 public:
  Checker(const Compiled& compiled, FileSource& files,
          const std::optional<std::set<std::string>>& owned_ips)
      : compiled_(compiled), files_(files), owned_ips_(owned_ips) {}

  std::vector<Diagnostic> Run() {
    for (const ConfigLine& line : compiled_.lines) by_section_[line.section].push_back(&line);
    Sources();
    ClusterThrottles();
    Rollups();
    Keys();
    for (Diagnostic& warning : CheckQueues(compiled_)) {
      if (warnings_.size() < kMaxWarnings) warnings_.push_back(std::move(warning));
    }
    for (const auto& [section, lines] : by_section_) {
      KeyAlgorithm(lines);
      Ciphers(lines);
      Schedule(lines);
    }
    return std::move(warnings_);
  }

 private:
  void Warn(const Location& where, std::string message) {
    if (warnings_.size() >= kMaxWarnings) return;
    warnings_.push_back({Diagnostic::Severity::kWarning, where, std::move(message), ""});
  }

  // With such a list no handshake would ever succeed.
  void Ciphers(const Lines& lines) {
    for (const ConfigLine* line : lines) {
      const std::string_view name = line->directive->name;
      const bool suites = name.ends_with("ciphersuites");
      if (!suites && !name.ends_with("tls-ciphers")) continue;
      if (line->value.empty() || line->directive->status != Status::kActive) continue;
      const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_method()),
                                                                      &SSL_CTX_free);
      if (context == nullptr) return;
      const bool good = suites ? SSL_CTX_set_ciphersuites(context.get(), line->value.c_str()) == 1
                               : SSL_CTX_set_cipher_list(context.get(), line->value.c_str()) == 1;
      ERR_clear_error();
      if (!good) {
        Warn(line->where, absl::StrCat("OpenSSL cannot use \"", line->value.substr(0, 80),
                                       "\": nothing could be encrypted"));
      }
    }
  }

  static const ConfigLine* Find(const Lines& lines, std::string_view name) {
    const ConfigLine* found = nullptr;
    for (const ConfigLine* line : lines) {
      if (line->directive->name == name) found = line;
    }
    return found;
  }

  bool IsOwned(const std::string& ip) const {
    const auto address = IpAddress::Parse(ip);
    return owned_ips_->contains(ip) ||
           std::any_of(owned_ips_->begin(), owned_ips_->end(), [&](const std::string& each) {
             const auto network = each.find('/') == each.npos ? std::nullopt : Cidr::Parse(each);
             return network && address && network->Contains(*address);
           });
  }

  void Sources() {
    for (const auto& section : compiled_.snapshot.sections()) {
      if (!section.content().has_virtual_mta()) continue;
      const auto& vmta = section.content().virtual_mta();
      const auto where = compiled_.section_places.find(section.name());
      if (where == compiled_.section_places.end()) continue;  // the one that is always there
      if (vmta.source_hosts().empty()) {
        Warn(where->second, absl::StrCat("the virtual MTA \"", vmta.name(),
                                         "\" has no source address; the system chooses one"));
      }
      for (const auto& host : vmta.source_hosts()) {
        // One behind a proxy is the proxy's.
        if (!owned_ips_ || host.has_proxy() || IsOwned(host.ip())) continue;
        Warn(where->second, absl::StrCat("no delivery worker has the address ", host.ip(), " of \"",
                                         vmta.name(), "\""));
      }
    }
  }

  // Divided over the source addresses, of which each is one worker's.
  void ClusterThrottles() {
    std::set<std::string> sources;
    for (const auto& section : compiled_.snapshot.sections()) {
      for (const auto& host : section.content().virtual_mta().source_hosts()) {
        sources.insert(host.ip());
      }
    }
    for (const auto& section : compiled_.snapshot.sections()) {
      const auto& rate = section.content().domain().settings().domain_throttle().rate();
      if (rate.count() == 0 || rate.count() >= sources.size()) continue;
      const auto fields = compiled_.origins.find(section.name());
      if (fields == compiled_.origins.end()) continue;
      const auto said = fields->second.find(policy::v1::QueueSettings::kDomainThrottleFieldNumber);
      if (said == fields->second.end()) continue;
      Location where;
      where.file = said->second.file;
      where.line = said->second.line;
      where.column = 1;
      Warn(where, absl::StrCat("the rate is divided over ", sources.size(),
                               " source addresses: a worker that has few of them may have no part "
                               "of it, and sends this domain nothing"));
    }
  }

  // Its settings are those of all domains with such an MX: one that says none has the limits that
  // are meant for a single domain.
  void Rollups() {
    std::set<std::string> seen;
    CollectPatterns();
    for (const ConfigLine& line : compiled_.lines) {
      if (line.directive->scopes != kMxRollupList) continue;
      const std::string name =
          absl::AsciiStrToLower(line.value.substr(line.value.find_last_of(" \t") + 1));
      if (!seen.insert(name).second || HasDomain(name)) continue;
      Warn(line.where, absl::StrCat("no <domain ", name, "> says limits: those of any domain hold ",
                                    "for all that are put together here"));
    }
  }

  void CollectPatterns(const policy::v1::DomainSection& section) {
    if (section.pattern() == "*") return;
    if (IsPlainDomain(section.pattern())) {
      domains_.insert(section.pattern());
    } else {
      patterns_.insert(section.pattern());
    }
  }
  void CollectPatterns() {
    for (const auto& section : compiled_.snapshot.sections()) {
      const auto& content = section.content();
      if (content.has_domain()) CollectPatterns(content.domain());
      for (const auto& domain : content.virtual_mta().domains()) CollectPatterns(domain);
      for (const auto& domain : content.pool().domains()) CollectPatterns(domain);
    }
  }
  bool HasDomain(const std::string& name) const {
    return domains_.contains(name) ||
           std::any_of(patterns_.begin(), patterns_.end(),
                       [&](const std::string& each) { return PatternMatches(each, name); });
  }

  void Keys() {
    std::map<std::pair<std::string, std::string>, const ConfigLine*> by_selector;
    for (const ConfigLine& line : compiled_.lines) {
      if (line.directive->name == "dkim-key") KeyFile(line, line.value);
      if (line.directive->name == "command" && RunsVariables(SplitCommand(line.value))) {
        Warn(line.where,
             "this would run what senders write, so all of it waits; give the variable as an "
             "argument behind the program text: sh -c \"… $1\" x ${local}");
      }
      if (line.directive->name != "domain-key") continue;
      const auto key = ParseDomainKey(line.value);
      if (!key) continue;
      KeyFile(line, key->file);
      const auto [other, fresh] = by_selector.emplace(std::pair(key->selector, key->domain), &line);
      if (!fresh && ParseDomainKey(other->second->value)->file != key->file) {
        Warn(line.where, absl::StrCat("the selector ", key->selector, " of ", key->domain,
                                      " has another key in line ", other->second->where.line));
      }
    }
  }

  // A key signs with its own algorithm only.
  void KeyAlgorithm(const Lines& lines) {
    const ConfigLine* const algorithm = Find(lines, "dkim-algorithm");
    if (algorithm == nullptr) return;
    for (const ConfigLine* line : lines) {
      const auto domain_key =
          line->directive->name == "domain-key" ? ParseDomainKey(line->value) : std::nullopt;
      if (!domain_key && line->directive->name != "dkim-key") continue;
      const auto type = key_types_.find(domain_key ? domain_key->file : line->value);
      if (type == key_types_.end()) continue;
      const bool rsa = type->second == EVP_PKEY_RSA;
      if (rsa == algorithm->value.starts_with("rsa")) continue;
      Warn(algorithm->where, absl::StrCat("dkim-algorithm ", algorithm->value, " with ",
                                          rsa ? "an RSA" : "an Ed25519", " key (line ",
                                          line->where.line, "): nothing can be signed"));
    }
  }

  void KeyFile(const ConfigLine& line, const std::string& name) {
    if (name.starts_with('{')) return;  // in a vault
    std::filesystem::path path(name);
    if (path.is_relative() && line.where.file != nullptr) {
      path = std::filesystem::path(*line.where.file).parent_path() / path;
    }
    const auto text = files_.Read(path.string());
    if (!text.ok()) {
      return Warn(line.where,
                  absl::StrCat("the key \"", name, "\": ", std::string(text.status().message())));
    }
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(
        BIO_new_mem_buf(text->data(), static_cast<int>(text->size())), &BIO_free);
    const auto no_password = [](char*, int, int, void*) { return 0; };
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
        PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr), &EVP_PKEY_free);
    if (key == nullptr) {
      return Warn(line.where, absl::StrCat("\"", name, "\" holds no private key"));
    }
    key_types_[name] = EVP_PKEY_base_id(key.get());
    if (EVP_PKEY_base_id(key.get()) == EVP_PKEY_RSA && EVP_PKEY_bits(key.get()) < kMinRsaBits) {
      Warn(line.where, absl::StrCat("the key \"", name, "\" has ", EVP_PKEY_bits(key.get()),
                                    " bits; verifiers refuse RSA keys below 1024 (RFC 8301)"));
    }
  }

  // Lines with the same end hold for the same days.
  void Schedule(const Lines& lines) {
    std::map<int64_t, std::vector<std::pair<ScheduleLine, const ConfigLine*>>> by_end;
    for (const ConfigLine* line : lines) {
      if (line->directive->grammar != Grammar::kSchedule) continue;
      if (const auto parsed = ParseScheduleLine(line->value)) {
        by_end[parsed->until_us].emplace_back(*parsed, line);
      }
    }
    for (auto& [end, rates] : by_end) {
      std::stable_sort(rates.begin(), rates.end(), [](const auto& a, const auto& b) {
        return a.first.from_minute < b.first.from_minute;
      });
      uint32_t covered = 0;
      for (const auto& [rate, line] : rates) {
        if (rate.from_minute > covered) {
          Warn(line->where, absl::StrCat("no rate from ", Clock(covered), " to ",
                                         Clock(rate.from_minute), " on these days"));
        } else if (rate.from_minute < covered) {
          Warn(line->where,
               absl::StrCat("two rates from ", Clock(rate.from_minute), " to ",
                            Clock(std::min(covered, rate.to_minute)), " on these days"));
        }
        // 23:59 is written for the day's end.
        const uint32_t to = rate.to_minute == kDayMinutes - 1 ? kDayMinutes : rate.to_minute;
        covered = std::max(covered, to);
      }
      if (covered < kDayMinutes) {
        Warn(rates.back().second->where,
             absl::StrCat("no rate from ", Clock(covered), " to 24:00 on these days"));
      }
    }
  }

  const Compiled& compiled_;
  FileSource& files_;
  const std::optional<std::set<std::string>>& owned_ips_;
  std::map<size_t, Lines> by_section_;
  std::set<std::string> domains_;         // that <domain> sections name
  std::set<std::string> patterns_;        // and those with a wildcard
  std::map<std::string, int> key_types_;  // by file, as OpenSSL names them
  std::vector<Diagnostic> warnings_;
};

}  // namespace

std::vector<Diagnostic> CheckSemantics(const Compiled& compiled, FileSource& files,
                                       const std::optional<std::set<std::string>>& owned_ips) {
  return Checker(compiled, files, owned_ips).Run();
}

}  // namespace sluice::config
