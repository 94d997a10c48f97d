// <proxy> sections and the lines that send a virtual MTA's connections through them. Private to the
// compiler.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "services/config/compiler_ingress.h"
#include "services/config/diagnostic.h"
#include "services/config/lexer.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// server, client, type, protocol-version, username, password.
std::optional<LineError> AddProxyLine(const Statement& statement, ProxyDraft* proxy);

// use-proxy NAME,NAME or none.
std::optional<LineError> AddUseProxy(const Statement& statement, ProxyUse* use);

// smtp-proxy-source-host CIDR SERVER:PORT CLIENT-IP[:PORT] HOSTNAME
std::optional<LineError> AddProxySourceHost(const Statement& statement, ProxyUse* use);

// Adds the sources that `own`, or where it says nothing `otherwise`, means, to `section`. Problems
// go to `diagnostics`.
void AddProxySources(const ProxyUse& own, const ProxyUse& otherwise,
                     const std::map<std::string, ProxyDraft>& proxies,
                     policy::v1::VirtualMtaSection* section, std::vector<Diagnostic>* diagnostics);

}  // namespace sluice::config
