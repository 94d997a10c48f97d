#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/cluster_rates.h"
#include "services/config/printer.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

using policy::v1::DomainSection;
using policy::v1::Section;
using policy::v1::SectionContent;

class SnapshotPrinter {
 public:
  explicit SnapshotPrinter(bool with_secrets) : with_secrets_(with_secrets) {}

  std::string Print(const policy::v1::PolicySnapshot& snapshot) {
    // What others name comes first.
    for (const Section& section : snapshot.sections()) CollectMacros(section.content());
    for (const auto kind :
         {SectionContent::kGlobal, SectionContent::kListener, SectionContent::kVirtualMta,
          SectionContent::kPool, SectionContent::kRewriteList, SectionContent::kPatternList,
          SectionContent::kSmtpPatternList, SectionContent::kBounceCategories,
          SectionContent::kMxRollup, SectionContent::kSourceGroup, SectionContent::kSmtpUser,
          SectionContent::kSource, SectionContent::kClient, SectionContent::kDomain}) {
      for (const Section& section : snapshot.sections()) {
        if (section.content().content_case() == kind) PrintSection(section.content());
      }
    }
    return std::move(text_);
  }

 private:
  void CollectMacros(const SectionContent& content) {
    const auto collect = [this](const DomainSection& domain) {
      if (!domain.from_macro()) return;
      const std::string& pattern = domain.pattern();
      if (std::find(macros_.begin(), macros_.end(), pattern) == macros_.end()) {
        macros_.push_back(pattern);
        Line(absl::StrCat("domain-macro m", macros_.size(), " ", pattern));
      }
    };
    if (content.has_domain()) collect(content.domain());
    for (const auto& domain : content.virtual_mta().domains()) collect(domain);
    for (const auto& domain : content.pool().domains()) collect(domain);
  }

  void Line(const std::string& line) {
    absl::StrAppend(&text_, std::string(depth_ * 2, ' '), line, "\n");
  }
  void Open(const std::string& section, const std::string& name) {
    if (depth_ == 0 && !text_.empty()) text_ += "\n";
    Line(absl::StrCat("<", section, name.empty() ? "" : " ", name, ">"));
    ++depth_;
  }
  void Close(const std::string& section) {
    --depth_;
    Line(absl::StrCat("</", section, ">"));
  }
  void Settings(Scope scope, Target target, const google::protobuf::Message& message) {
    for (const std::string& line : PrintSettings(scope, target, message, with_secrets_)) Line(line);
  }

  void Domain(const DomainSection& domain) {
    std::string name = domain.pattern();
    if (domain.from_macro()) {
      const auto at = std::find(macros_.begin(), macros_.end(), name);
      name = absl::StrCat("$m", at - macros_.begin() + 1);
    }
    Open("domain", name);
    Settings(kDomain, Target::kQueueSettings, domain.settings());
    Penalties(domain.settings());
    Limits(domain.settings());
    Close("domain");
  }

  void Limits(const policy::v1::QueueSettings& settings) {
    const std::vector<ClusterRateLine> lines = ClusterRates(settings);
    if (lines.empty()) return;
    Open("limits", "");
    for (const ClusterRateLine& line : lines) {
      Line(absl::StrCat(std::string(line.directive), " ", PrintClusterRate(*line.said)));
    }
    Close("limits");
  }

  void Penalties(const policy::v1::QueueSettings& settings) {
    for (const auto& penalty : settings.penalties().entries()) {
      Open("smtp-pattern", penalty.name());
      for (const std::string& pattern : penalty.patterns()) {
        Line(absl::StrCat("pattern ", PrintWritten(pattern)));
      }
      if (penalty.initial_us() != 0) {
        Line(absl::StrCat("initial-pts ",
                          DurationText(static_cast<uint64_t>(penalty.initial_us()))));
      }
      if (penalty.max_us() != 0) {
        Line(absl::StrCat("max-pts ", DurationText(static_cast<uint64_t>(penalty.max_us()))));
      }
      Close("smtp-pattern");
    }
  }

  void PrintSection(const SectionContent& content) {
    switch (content.content_case()) {
      case SectionContent::kGlobal:
        Settings(kGlobal, Target::kGlobalSettings, content.global().settings());
        Local(content.global().settings());
        Settings(kGlobal, Target::kQueueSettings, content.global().queue_defaults());
        Settings(kGlobal, Target::kClientSettings, content.global().client_defaults());
        Penalties(content.global().queue_defaults());
        return;
      case SectionContent::kVirtualMta:
        return VirtualMta(content.virtual_mta());
      case SectionContent::kPool:
        Open("virtual-mta-pool", content.pool().name());
        for (const std::string& name : content.pool().virtual_mtas()) {
          Line(absl::StrCat("virtual-mta ", name));
        }
        Settings(kPool, Target::kPool, content.pool());
        HeaderLines(content.pool().include_headers());
        for (const DomainSection& domain : content.pool().domains()) Domain(domain);
        return Close("virtual-mta-pool");
      case SectionContent::kDomain:
        return Domain(content.domain());
      case SectionContent::kClient:
        Open("source",
             content.client().name().empty() ? content.client().cidr() : content.client().name());
        Settings(kSource, Target::kClientSettings, content.client().settings());
        return Close("source");
      case SectionContent::kSource:
        Open("source", content.source().ip());
        Settings(kSource, Target::kSourceSettings, content.source().settings());
        return Close("source");
      case SectionContent::kListener:
        Open("smtp-listener", content.listener().address());
        Settings(kListener, Target::kListenerSettings, content.listener().settings());
        return Close("smtp-listener");
      case SectionContent::kSourceGroup:
        Open("source-group", content.source_group().name());
        Settings(kSourceGroup, Target::kSourceGroup, content.source_group());
        return Close("source-group");
      case SectionContent::kSmtpUser:
        Open("smtp-user", content.smtp_user().name());
        Settings(kSmtpUser, Target::kSmtpUser, content.smtp_user());
        return Close("smtp-user");
      default:
        return Patterns(content);
    }
  }

  void Local(const policy::v1::GlobalSettings& settings) {
    for (const auto& alias : settings.aliases()) {
      Line(absl::StrCat("alias ", PrintWord(alias.source()), " ", PrintWord(alias.target())));
    }
    for (const auto& sender : settings.sender_sources()) {
      for (const std::string& ip : sender.ips()) {
        Line(absl::StrCat("ip ", ip, " domain = ", sender.domain(), ";"));
      }
    }
    for (const std::string& rule : settings.relay_addresses().values()) {
      Line(absl::StrCat("relay-address ",
                        rule.starts_with('/') ? PrintRegex(rule.substr(1)) : PrintWord(rule)));
    }
    const auto text = [this](const char* name, const std::string& value) {
      if (!value.empty()) Line(absl::StrCat(name, " ", PrintWord(value)));
    };
    text("custom-dsn-from-header", settings.custom_dsn_from_header());
    text("dsn-failed-from-template", settings.dsn_failed_from_template());
    text("dsn-failed-subject-template", settings.dsn_failed_subject_template());
    if (!settings.dsn_failed_body_template().empty()) {
      Line(absl::StrCat("# dsn-failed-body-template-from: a file of ",
                        settings.dsn_failed_body_template().size(), " bytes"));
    }
    HeaderLines(settings.include_headers());
    for (const auto& pickup : settings.pickups()) {
      Line(
          absl::StrCat("pickup ", PrintWord(pickup.folder()), " ", PrintWord(pickup.bad_folder())));
    }
  }

  // What came from a file: as a comment.
  void HeaderLines(std::string_view header) {
    if (header.empty()) return;
    Line("# include-headers-from: a file that says");
    while (!header.empty()) {
      const size_t end = std::min(header.find("\r\n"), header.size());
      Line(absl::StrCat("#   ", std::string(header.substr(0, end))));
      header.remove_prefix(std::min(end + 2, header.size()));
    }
  }

  void Patterns(const SectionContent& content) {
    if (content.has_rewrite_list()) {
      const auto& list = content.rewrite_list();
      const auto lines = [this](const char* name, const auto& entries) {
        const std::map<std::string, std::string> sorted(entries.begin(), entries.end());
        for (const auto& [from, to] : sorted) {
          Line(absl::StrCat(name, " ", PrintWord(from), " ", PrintWord(to)));
        }
      };
      Open("rewrite-list", list.name());
      lines("mail-from", list.mail_from());
      lines("from-domain", list.from_domain());
      return Close("rewrite-list");
    }
    if (content.has_pattern_list()) {
      Open("pattern-list", content.pattern_list().name());
      for (const auto& rule : content.pattern_list().rules()) {
        const bool header = rule.subject() == policy::v1::PatternRule::SUBJECT_HEADER;
        const bool sender = rule.subject() == policy::v1::PatternRule::SUBJECT_MAIL_FROM;
        Line(absl::StrCat(header   ? absl::StrCat("header ", rule.header())
                          : sender ? "mail-from"
                                   : "rcpt-to",
                          " ", PrintRegex(rule.regex()), " virtual-mta=", rule.virtual_mta()));
      }
      return Close("pattern-list");
    }
    if (content.has_smtp_pattern_list()) {
      Open("smtp-pattern-list", content.smtp_pattern_list().name());
      for (const auto& rule : content.smtp_pattern_list().rules()) Line(ReplyLine(rule));
      return Close("smtp-pattern-list");
    }
    if (content.has_bounce_categories()) {
      Open("bounce-category-patterns", "");
      for (const auto& rule : content.bounce_categories().rules()) {
        Line(absl::StrCat(PrintRegex(rule.regex()), " ", rule.category()));
      }
      return Close("bounce-category-patterns");
    }
    if (content.has_mx_rollup()) {
      Open("mx-rollup-list", "");
      for (const auto& entry : content.mx_rollup().entries()) {
        Line(absl::StrCat("mx ", entry.mx(), " ", entry.queue()));
      }
      Close("mx-rollup-list");
    }
  }

  static std::string ReplyLine(const policy::v1::ReplyRule& rule) {
    std::string line = absl::StrCat("reply ", PrintRegex(rule.regex()));
    const size_t bare = line.size();
    if (!rule.mode().empty()) absl::StrAppend(&line, " mode=", rule.mode());
    if (rule.backoff_to_normal_after_us() != 0) {
      absl::StrAppend(&line, " backoff-to-normal-after=", rule.backoff_to_normal_after_us() / 1000,
                      "ms");
    }
    if (rule.skip_mx()) line += " skip-mx";
    if (rule.bounce_queue()) line += " bounce-queue";
    if (rule.bounce_rcpt()) line += " bounce-rcpt";
    if (rule.disable_source_ip()) line += " disable-source-ip";
    if (rule.reenable_after_us() != 0) {
      absl::StrAppend(&line, " reenable-after=", rule.reenable_after_us() / 1000, "ms");
    }
    if (rule.defer_queue()) line += " defer-queue";
    if (!rule.bounce_category().empty()) {
      absl::StrAppend(&line, " category=", rule.bounce_category());
    }
    // A line that says only what it does not do.
    return line.size() == bare ? line + " skip-mx=no" : line;
  }

  // As one line; what a line cannot say (SOCKS5, a version) follows as a comment.
  void ProxiedHost(const policy::v1::SourceHost& host) {
    const policy::v1::EgressProxy& proxy = host.proxy();
    const std::string port = proxy.client_port() == 0 ? "" : absl::StrCat(":", proxy.client_port());
    const bool v6 = port.empty() ? false : host.ip().find(':') != std::string::npos;
    const std::string client = v6 ? absl::StrCat("[", host.ip(), "]", port) : host.ip() + port;
    const bool socks5 = proxy.protocol() == policy::v1::EgressProxy::PROTOCOL_SOCKS5;
    const bool v2 = proxy.protocol() == policy::v1::EgressProxy::PROTOCOL_PROXY_V2;
    Line(absl::StrCat(
        "smtp-proxy-source-host ", proxy.local_network().empty() ? "0/0" : proxy.local_network(),
        " ", proxy.server(), " ", client, host.host_name().empty() ? "" : " ", host.host_name(),
        socks5 ? "  # by socks5"
        : v2   ? "  # by version 2"
               : ""));
  }

  void VirtualMta(const policy::v1::VirtualMtaSection& vmta) {
    Open("virtual-mta", vmta.name());
    for (const auto& host : vmta.source_hosts()) {
      if (host.has_proxy()) {
        ProxiedHost(host);
        continue;
      }
      Line(absl::StrCat("smtp-source-host ", host.ip(), host.host_name().empty() ? "" : " ",
                        host.host_name()));
    }
    Settings(kVirtualMta, Target::kVirtualMta, vmta);
    HeaderLines(vmta.include_headers());
    Settings(kVirtualMta, Target::kQueueSettings, vmta.queue_defaults());
    for (const DomainSection& domain : vmta.domains()) Domain(domain);
    Close("virtual-mta");
  }

  const bool with_secrets_;
  std::string text_;
  size_t depth_ = 0;
  std::vector<std::string> macros_;
};

}  // namespace

std::string PrintSnapshot(const policy::v1::PolicySnapshot& snapshot, bool with_secrets) {
  return SnapshotPrinter(with_secrets).Print(snapshot);
}

}  // namespace sluice::config
