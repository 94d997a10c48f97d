#include "services/config/compiler_proxy.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

using policy::v1::EgressProxy;

constexpr size_t kMaxClients = 1024;

LineError Wrong(const Statement& statement, std::string_view form, size_t argument) {
  return {absl::StrCat("it is written ", statement.name, " ", std::string(form)), argument};
}

std::optional<Endpoint> ParseServer(const std::string& text) {
  const auto server = Endpoint::Parse(text);
  if (!server || server->port == 0 || server->ip.IsUnspecified()) return std::nullopt;
  return server;
}

// "192.0.2.1", "192.0.2.1:4000", "2001:db8::1", "[2001:db8::1]:4000".
std::optional<Endpoint> ParseClient(const std::string& text) {
  if (const auto ip = IpAddress::Parse(text)) return Endpoint{*ip, 0};
  return Endpoint::Parse(text);
}

std::optional<LineError> AddClient(const Statement& statement, size_t first, std::string_view form,
                                   policy::v1::SourceHost* host) {
  const auto client = ParseClient(statement.arguments[first].text);
  if (!client || client->ip.IsUnspecified()) return Wrong(statement, form, first);
  host->set_ip(client->ip.ToString());
  host->mutable_proxy()->set_client_port(client->port);
  if (statement.arguments.size() > first + 1) {
    const auto name = ParseHostName(statement.arguments[first + 1].text);
    if (!name) return Wrong(statement, form, first + 1);
    host->set_host_name(*name);
  }
  return std::nullopt;
}

// A <proxy> that is used has what it takes.
bool Complete(const std::string& name, const ProxyDraft& proxy,
              std::vector<Diagnostic>* diagnostics) {
  std::string what;
  if (proxy.proxy.server().empty()) what = "has no server";
  if (proxy.clients.empty()) what = "has no client";
  const bool user = !proxy.proxy.username().empty();
  if (user != !proxy.proxy.password().empty() || (user && !proxy.socks5)) {
    what = "has one of username and password, or both without type socks5";
  }
  if (what.empty()) return true;
  diagnostics->push_back({Diagnostic::Severity::kError, proxy.where,
                          absl::StrCat("the proxy \"", name, "\" ", what), ""});
  return false;
}

}  // namespace

std::optional<LineError> AddProxyLine(const Statement& statement, ProxyDraft* proxy) {
  const std::string& name = statement.name;
  const std::string& first = statement.arguments[0].text;
  const size_t count = statement.arguments.size();
  if (name == "server") {
    const auto server = ParseServer(first);
    if (count != 1 || !server) return Wrong(statement, "IP:PORT", 0);
    proxy->proxy.set_server(server->ToString());
  } else if (name == "client") {
    constexpr std::string_view kForm = "IP[:PORT] [HOSTNAME]";
    if (count > 2) return Wrong(statement, kForm, 2);
    if (proxy->clients.size() >= kMaxClients) return LineError{"a proxy has at most 1024 clients"};
    policy::v1::SourceHost host;
    if (auto error = AddClient(statement, 0, kForm, &host)) return error;
    proxy->clients.push_back(std::move(host));
  } else if (name == "type") {
    if (count != 1 || (first != "proxy-protocol" && first != "socks5")) {
      return Wrong(statement, "proxy-protocol | socks5", 0);
    }
    proxy->socks5 = first == "socks5";
  } else if (name == "protocol-version") {
    const auto version = ParseCount(first);
    if (count != 1 || !version || *version < 1 || *version > 2) return Wrong(statement, "1 | 2", 0);
    proxy->version = static_cast<int>(*version);
  } else if (name == "username" || name == "password") {
    if (count != 1 || first.size() > 255) return Wrong(statement, "TEXT", 0);
    name == "username" ? proxy->proxy.set_username(first) : proxy->proxy.set_password(first);
  }
  return std::nullopt;
}

std::optional<LineError> AddUseProxy(const Statement& statement, ProxyUse* use) {
  use->said = true;
  use->names.clear();
  for (size_t i = 0; i < statement.arguments.size(); ++i) {
    for (const std::string& name : SplitList(statement.arguments[i].text)) {
      const std::string lower = absl::AsciiStrToLower(name);
      if (lower == "none") continue;
      use->names.emplace_back(lower, statement.At(statement.arguments[i]));
    }
  }
  return std::nullopt;
}

std::optional<LineError> AddProxySourceHost(const Statement& statement, ProxyUse* use) {
  constexpr std::string_view kForm = "NETWORK SERVER-IP:PORT CLIENT-IP[:PORT] [HOSTNAME]";
  const size_t count = statement.arguments.size();
  if (count < 3 || count > 4) return Wrong(statement, kForm, count);
  const auto network = ParseNetwork(statement.arguments[0].text);
  if (!network) return Wrong(statement, kForm, 0);
  const auto server = ParseServer(statement.arguments[1].text);
  if (!server) return Wrong(statement, kForm, 1);
  policy::v1::SourceHost host;
  if (auto error = AddClient(statement, 2, kForm, &host)) return error;
  host.mutable_proxy()->set_server(server->ToString());
  host.mutable_proxy()->set_local_network(*network);
  use->said = true;
  if (use->hosts.size() >= kMaxClients) return LineError{"more than 1024 source addresses"};
  use->hosts.push_back(std::move(host));
  return std::nullopt;
}

void AddProxySources(const ProxyUse& own, const ProxyUse& otherwise,
                     const std::map<std::string, ProxyDraft>& proxies,
                     policy::v1::VirtualMtaSection* section, std::vector<Diagnostic>* diagnostics) {
  const ProxyUse& use = own.said ? own : otherwise;
  if (use.names.empty() && use.hosts.empty()) return;
  if (section->source_hosts_size() > 0) {
    if (!own.said) return;  // its own addresses are more particular than what holds for all
    // Half of the mail would leave by another way than was meant.
    diagnostics->push_back(
        {Diagnostic::Severity::kError, use.names.empty() ? Location{} : use.names.front().second,
         absl::StrCat("the virtual MTA \"", section->name(),
                      "\" has source addresses of this machine and goes through proxies"),
         "use-proxy none in the virtual MTA ends the latter"});
    return;
  }
  const int version = own.version != 0 ? own.version : otherwise.version;
  for (const policy::v1::SourceHost& each : use.hosts) {
    policy::v1::SourceHost* host = section->add_source_hosts();
    *host = each;
    host->mutable_proxy()->set_protocol(version == 2 ? EgressProxy::PROTOCOL_PROXY_V2
                                                     : EgressProxy::PROTOCOL_PROXY_V1);
  }
  for (const auto& [name, where] : use.names) {
    const auto found = proxies.find(name);
    if (found == proxies.end()) {
      diagnostics->push_back({Diagnostic::Severity::kError, where,
                              absl::StrCat("there is no <proxy ", name, ">"), ""});
      continue;
    }
    const ProxyDraft& proxy = found->second;
    if (!Complete(name, proxy, diagnostics)) continue;
    for (const policy::v1::SourceHost& client : proxy.clients) {
      policy::v1::SourceHost* host = section->add_source_hosts();
      *host = client;
      const uint32_t port = client.proxy().client_port();
      *host->mutable_proxy() = proxy.proxy;
      host->mutable_proxy()->set_client_port(port);
      host->mutable_proxy()->set_protocol(proxy.socks5         ? EgressProxy::PROTOCOL_SOCKS5
                                          : proxy.version == 2 ? EgressProxy::PROTOCOL_PROXY_V2
                                                               : EgressProxy::PROTOCOL_PROXY_V1);
    }
  }
}

}  // namespace sluice::config
