#include "services/config/explain.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "services/base/net/ip_address.h"
#include "services/config/domain_pattern.h"
#include "services/config/explain_layers.h"
#include "services/config/printer.h"
#include "services/config/registry.h"
#include "services/config/settings_defaults.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

using google::protobuf::Message;
std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

const policy::v1::SectionContent* FindContent(const policy::v1::PolicySnapshot& snapshot,
                                              const std::string& name) {
  for (const auto& section : snapshot.sections()) {
    if (section.name() == name) return &section.content();
  }
  return nullptr;
}

// The line that gives this address to the virtual MTA.
std::string HostWhere(const Compiled& compiled, std::string_view vmta, std::string_view ip) {
  const auto address = IpAddress::Parse(ip);
  const std::string name = Lower(vmta);
  for (auto line = compiled.host_lines.rbegin(); line != compiled.host_lines.rend(); ++line) {
    if (line->vmta != name) continue;
    const auto network = Cidr::Parse(line->network);
    if (network && address && network->Contains(*address)) {
      return absl::StrCat(*line->where.file, ":", line->where.line);
    }
  }
  return "";
}

// Lists outside of sections that are no field of their own. Their lines are known by name only.
void AddLists(const Compiled& compiled, const policy::v1::GlobalSettings& global,
              std::vector<ExplainedSetting>* settings) {
  std::vector<std::pair<std::string, std::string>> all;
  for (const auto& alias : global.aliases()) {
    all.emplace_back("alias", absl::StrCat(alias.source(), " ", alias.target()));
  }
  for (const std::string& rule : global.relay_addresses().values()) {
    all.emplace_back("relay-address", rule.starts_with('/') ? PrintRegex(rule.substr(1)) : rule);
  }
  for (const auto& pickup : global.pickups()) {
    all.emplace_back("pickup", absl::StrCat(pickup.folder(), " ", pickup.bad_folder()));
  }
  for (const auto& sender : global.sender_sources()) {
    for (const std::string& ip : sender.ips()) {
      all.emplace_back("ip", absl::StrCat(ip, " domain = ", sender.domain(),
                                          "; by the virtual MTA ", sender.virtual_mta()));
    }
  }
  for (const auto& [name, value] : all) {
    if (!settings->empty() && settings->back().directive == name) {
      absl::StrAppend(&settings->back().value, "; ", value);
      continue;
    }
    std::string where;
    for (const ConfigLine& line : compiled.lines) {
      if (line.directive->name == name) {
        where = absl::StrCat(*line.where.file, ":", line.where.line);
      }
    }
    settings->push_back({name, value, "", std::move(where), false});
  }
}

// A text that a file holds, in one line. Longer ones are known by their size and a number that
// differs where they do.
std::string TextValue(std::string_view text) {
  constexpr size_t kMostShown = 300;
  std::string shown(text.substr(0, kMostShown));
  while (shown.ends_with('\n') || shown.ends_with('\r')) shown.pop_back();
  absl::StrReplaceAll({{"\r\n", "; "}, {"\n", "; "}}, &shown);
  if (text.size() <= kMostShown) return shown;
  return absl::StrCat(shown, "... (", text.size(), " bytes, ",
                      absl::Hex(TextMark(text), absl::kZeroPad8), ")");
}

// Fields that are read from files, or whose directives are more than a field.
void AddTexts(const Compiled& compiled, const Message& message, const std::string& place,
              const std::string& section, std::vector<ExplainedSetting>* settings) {
  constexpr std::pair<const char*, const char*> kTexts[] = {
      {"include-headers-from", "include_headers"},
      {"custom-dsn-from-header", "custom_dsn_from_header"},
      {"dsn-failed-from-template", "dsn_failed_from_template"},
      {"dsn-failed-subject-template", "dsn_failed_subject_template"},
      {"dsn-failed-body-template-from", "dsn_failed_body_template"},
      {"precached-domains-file", "precached_domains"}};
  for (const auto& [directive, name] : kTexts) {
    const auto* const field = message.GetDescriptor()->FindFieldByName(name);
    if (field == nullptr || !message.GetReflection()->HasField(message, field)) continue;
    std::string text;
    if (field->message_type() == nullptr) {
      text = message.GetReflection()->GetString(message, field);
    } else {
      const auto& list = dynamic_cast<const policy::v1::StringList&>(
          message.GetReflection()->GetMessage(message, field));
      text = absl::StrJoin(list.values(), " ");
    }
    settings->push_back(
        {directive, TextValue(text), section, WhereOf(compiled, place, field->number()), false});
  }
}

// What a proxy is to the host behind it; its password is not shown.
std::string ProxyValue(const policy::v1::EgressProxy& proxy) {
  const bool socks5 = proxy.protocol() == policy::v1::EgressProxy::PROTOCOL_SOCKS5;
  const bool v2 = proxy.protocol() == policy::v1::EgressProxy::PROTOCOL_PROXY_V2;
  return absl::StrCat(" by ",
                      socks5 ? "socks5"
                      : v2   ? "proxy-protocol 2"
                             : "proxy-protocol 1",
                      " ", proxy.server(), proxy.client_port() == 0 ? "" : " from port ",
                      proxy.client_port() == 0 ? "" : std::to_string(proxy.client_port()),
                      proxy.username().empty() ? "" : absl::StrCat(" as ", proxy.username()));
}

}  // namespace

std::vector<ExplainedSetting> ExplainVirtualMta(const Compiled& compiled, std::string_view vmta) {
  const std::string name = absl::StrCat("vmta/", Lower(vmta));
  const auto* const content = FindContent(compiled.snapshot, name);
  if (content == nullptr) return {};
  const std::string shown = absl::StrCat("<virtual-mta ", content->virtual_mta().name(), ">");
  auto settings = Resolve(compiled, Target::kVirtualMta, {{&content->virtual_mta(), name, shown}});
  AddTexts(compiled, content->virtual_mta(), name, shown, &settings);
  for (const auto& host : content->virtual_mta().source_hosts()) {
    settings.push_back({"smtp-source-host",
                        absl::StrCat(host.ip(), " ", host.host_name(),
                                     host.has_proxy() ? ProxyValue(host.proxy()) : ""),
                        shown, HostWhere(compiled, vmta, host.ip()), false,
                        host.proxy().password().empty() ? 0 : SecretMark(host.proxy().password())});
  }
  return settings;
}

std::vector<ExplainedSetting> ExplainSource(const Compiled& compiled, std::string_view ip) {
  const auto address = IpAddress::Parse(ip);
  const std::string text = address ? address->ToString() : std::string(ip);
  std::vector<ExplainedSetting> settings;
  const std::string name = absl::StrCat("source/", text);
  if (const auto* const content = FindContent(compiled.snapshot, name)) {
    settings =
        Resolve(compiled, Target::kSourceSettings,
                {{&content->source().settings(), name, absl::StrCat("<source ", text, ">")}});
  }
  for (const auto& section : compiled.snapshot.sections()) {
    for (const auto& host : section.content().virtual_mta().source_hosts()) {
      if (host.ip() != text) continue;
      const std::string& vmta = section.content().virtual_mta().name();
      const std::string shown = absl::StrCat("<virtual-mta ", vmta, ">");
      const std::string where = HostWhere(compiled, vmta, host.ip());
      settings.push_back({"virtual-mta", vmta, shown, where, false});
      settings.push_back({"host-name", host.host_name(), shown, "", false});
    }
  }
  return settings;
}

std::vector<ExplainedSetting> ExplainClient(const Compiled& compiled, std::string_view ip) {
  const auto address = IpAddress::Parse(ip);
  policy::v1::ClientSettings defaults = DefaultClientSettings();
  if (address && address->IsLoopback()) defaults.set_allow_relay(true);
  std::vector<Layer> layers = {{&defaults, "", "", true}};
  std::vector<std::pair<Cidr, const policy::v1::Section*>> networks;
  for (const auto& section : compiled.snapshot.sections()) {
    if (section.content().has_global()) {
      layers.push_back({&section.content().global().client_defaults(), "global client", ""});
    }
    if (!section.content().has_client()) continue;
    const auto network = Cidr::Parse(section.content().client().cidr());
    if (network && address && network->Contains(*address))
      networks.emplace_back(*network, &section);
  }
  std::stable_sort(networks.begin(), networks.end(), [](const auto& a, const auto& b) {
    return a.first.prefix_bits() < b.first.prefix_bits();
  });
  for (const auto& [network, section] : networks) {
    layers.push_back({&section->content().client().settings(), section->name(),
                      absl::StrCat("<source ", section->content().client().cidr(), ">")});
  }
  return Resolve(compiled, Target::kClientSettings, layers);
}

std::vector<ExplainedSetting> ExplainGlobal(const Compiled& compiled) {
  std::vector<Layer> layers = {{&DefaultGlobalSettings(), "", "", true}};
  const auto* const content = FindContent(compiled.snapshot, "global");
  if (content != nullptr) {
    layers.push_back({&content->global().settings(), "global settings", ""});
  }
  auto settings = Resolve(compiled, Target::kGlobalSettings, layers);
  if (content != nullptr) {
    AddLists(compiled, content->global().settings(), &settings);
    AddTexts(compiled, content->global().settings(), "global settings", "", &settings);
  }
  return settings;
}

std::vector<ExplainedSetting> ExplainSection(const Compiled& compiled, const std::string& name) {
  const auto* const content = FindContent(compiled.snapshot, name);
  if (content == nullptr) return {};
  const std::string rest = name.substr(name.find('/') + 1);
  const auto resolve = [&](Target target, const Message& settings, const char* kind) {
    return Resolve(compiled, target, {{&settings, name, absl::StrCat("<", kind, " ", rest, ">")}});
  };
  if (content->has_listener()) {
    return resolve(Target::kListenerSettings, content->listener().settings(), "smtp-listener");
  }
  if (content->has_client()) {
    return resolve(Target::kClientSettings, content->client().settings(), "source");
  }
  if (content->has_source_group()) {
    return resolve(Target::kSourceGroup, content->source_group(), "source-group");
  }
  if (content->has_smtp_user()) {
    return resolve(Target::kSmtpUser, content->smtp_user(), "smtp-user");
  }
  if (!content->has_pool()) return {};
  auto settings = resolve(Target::kPool, content->pool(), "virtual-mta-pool");
  settings.push_back({"virtual-mta", absl::StrJoin(content->pool().virtual_mtas(), " "),
                      absl::StrCat("<virtual-mta-pool ", rest, ">"), "", false});
  AddTexts(compiled, content->pool(), name, absl::StrCat("<virtual-mta-pool ", rest, ">"),
           &settings);
  return settings;
}

std::vector<std::string> PoolsOf(const policy::v1::PolicySnapshot& snapshot,
                                 std::string_view vmta) {
  std::vector<std::string> pools;
  for (const auto& section : snapshot.sections()) {
    const auto& members = section.content().pool().virtual_mtas();
    if (std::any_of(members.begin(), members.end(),
                    [&](const std::string& name) { return Lower(name) == Lower(vmta); })) {
      pools.push_back(section.content().pool().name());
    }
  }
  return pools;
}

namespace {

const policy::v1::MxRollupSection& RollupsOf(const Compiled& compiled) {
  const auto* const content = FindContent(compiled.snapshot, "mx-rollup");
  return content == nullptr ? policy::v1::MxRollupSection::default_instance()
                            : content->mx_rollup();
}

// Where mail of a queue with these settings is counted if `mx` is its best host; nullptr: apart.
const policy::v1::MxRollup* RollupOf(const Compiled& compiled, const std::string& mx,
                                     const std::vector<ExplainedSetting>& own) {
  for (const ExplainedSetting& setting : own) {
    const bool elsewhere = setting.directive == "smtp-hosts" && !setting.value.empty();
    const bool alone = setting.directive == "disable-mx-rollup" && setting.value == "yes";
    const bool local = setting.directive == "type" && setting.value != "smtp";
    if (elsewhere || alone || local) return nullptr;
  }
  for (const auto& entry : RollupsOf(compiled).entries()) {
    if (!mx.empty() && PatternMatches(entry.mx(), mx)) return &entry;
  }
  return nullptr;
}

void NoteRollups(const Compiled& compiled, const std::string& domain, const std::string& mx,
                 std::vector<std::string>* notes) {
  std::vector<std::string> own;
  for (const auto& entry : RollupsOf(compiled).entries()) {
    if (entry.queue() == domain) own.push_back(entry.mx());
  }
  if (!own.empty()) {
    notes->push_back(absl::StrCat("of all domains whose best MX matches ", absl::StrJoin(own, ", "),
                                  " together (<mx-rollup-list>)"));
  } else if (mx.empty() && !RollupsOf(compiled).entries().empty()) {
    notes->push_back(
        "a domain whose MX matches a line of <mx-rollup-list> has the settings of that rollup: "
        "give --mx HOST, or look at `sluicectl queues show`");
  }
}

}  // namespace

absl::StatusOr<Explanation> Explain(const Compiled& compiled, const ExplainQuestion& question) {
  Explanation answer;
  const std::string name = PlainTargetName(question.vmta);
  std::string domain;
  if (!question.domain.empty()) {
    const auto pattern = ParseDomainPattern(question.domain);
    if (!pattern) return absl::InvalidArgumentError(question.domain + " is no domain");
    domain = *pattern;
  }
  for (const std::string* ip : {&question.source, &question.client}) {
    if (!ip->empty() && !IpAddress::Parse(*ip)) {
      return absl::InvalidArgumentError(*ip + " is no IP address");
    }
  }
  const auto add = [&](std::string subject, std::vector<ExplainedSetting> settings) {
    answer.subjects.emplace_back(std::move(subject), std::move(settings));
  };
  if (!question.mx.empty() && domain.empty()) {
    return absl::InvalidArgumentError("of which domain is this the MX?");
  }
  const auto queue = [&](const std::string& vmta, const std::string& pool, const char* shown) {
    const std::string mail = pool.empty() ? "" : absl::StrCat(", mail for the pool ", pool);
    auto own = ExplainQueue(compiled, domain, vmta, pool);
    const std::string name = absl::StrCat("queue ", domain, "/", shown, mail);
    const auto* const rollup = RollupOf(compiled, Lower(question.mx), own);
    if (rollup == nullptr) return add(name, std::move(own));
    for (const char* tls : {"require-starttls", "use-dane", "use-mta-sts"}) {
      const auto asks = [tls](const ExplainedSetting& each) {
        return each.directive == tls && each.value == "yes" && !each.is_default;
      };
      if (std::any_of(own.begin(), own.end(), asks)) {
        answer.notes.push_back(absl::StrCat(tls, " yes of ", domain, " holds all the same"));
      }
    }
    add(absl::StrCat(name, ", which is of ", rollup->queue(), "/", shown, " (mx ", rollup->mx(),
                     " ", rollup->queue(), ")"),
        ExplainQueue(compiled, rollup->queue(), vmta, pool));
  };
  if (!domain.empty()) NoteRollups(compiled, domain, question.mx, &answer.notes);
  if (domain.empty() && name.empty() && question.source.empty() && question.client.empty()) {
    add("outside of sections", ExplainGlobal(compiled));
  }
  const auto* const pool = FindContent(compiled.snapshot, absl::StrCat("pool/", Lower(name)));
  auto vmta = ExplainVirtualMta(compiled, name);
  if (!name.empty() && pool == nullptr &&
      FindContent(compiled.snapshot, absl::StrCat("vmta/", Lower(name))) == nullptr) {
    return absl::NotFoundError(absl::StrCat("there is no virtual MTA or pool ", name));
  }
  if (!domain.empty() && pool != nullptr) {
    for (const std::string& member : pool->pool().virtual_mtas()) {
      queue(member, name, member.c_str());
    }
  } else if (!domain.empty()) {
    queue(name, question.pool, name.empty() ? "* (no virtual MTA's own)" : name.c_str());
    if (question.pool.empty()) {
      for (const std::string& other : PoolsOf(compiled.snapshot, name)) {
        answer.notes.push_back(
            absl::StrCat("mail for the pool ", other, " may differ: give --pool ", other));
      }
    }
  }
  if (pool != nullptr && domain.empty()) {
    add(absl::StrCat("virtual-mta-pool ", name),
        ExplainSection(compiled, absl::StrCat("pool/", Lower(name))));
  }
  if (!vmta.empty()) add(absl::StrCat("virtual-mta ", name), std::move(vmta));
  if (!question.source.empty()) {
    auto settings = ExplainSource(compiled, question.source);
    if (settings.empty()) {
      answer.notes.push_back(absl::StrCat("no line is about the source ", question.source,
                                          ", and no virtual MTA has it"));
    }
    add(absl::StrCat("source ", question.source), std::move(settings));
  }
  if (!question.client.empty()) {
    add(absl::StrCat("client ", question.client), ExplainClient(compiled, question.client));
  }
  return answer;
}

std::string RenderExplained(const std::vector<ExplainedSetting>& settings, bool all) {
  size_t name_width = 0;
  size_t value_width = 0;
  for (const ExplainedSetting& setting : settings) {
    if (setting.is_default && !all) continue;
    name_width = std::max(name_width, setting.directive.size());
    value_width = std::max(value_width, std::min<size_t>(setting.value.size(), 40));
  }
  std::string text;
  for (const ExplainedSetting& setting : settings) {
    if (setting.is_default && !all) continue;
    std::string place = setting.is_default ? "default" : setting.where;
    if (!setting.section.empty()) {
      absl::StrAppend(&place, place.empty() ? "" : " ", setting.section);
    }
    const auto pad = [](size_t width, size_t size) {
      return std::string(width > size ? width - size : 0, ' ');
    };
    absl::StrAppend(&text, setting.directive, pad(name_width, setting.directive.size()), "  ",
                    setting.value, pad(value_width, setting.value.size()), "  ", place, "\n");
  }
  return text;
}

}  // namespace sluice::config
