#include "services/base/net/tls_session_cache.h"

namespace sluice {

TlsSessionCache::~TlsSessionCache() {
  for (const Entry& each : order_) SSL_SESSION_free(each.second);
}

void TlsSessionCache::Put(const std::string& key, SSL_SESSION* session) {
  Erase(key);
  order_.emplace_front(key, session);
  entries_[key] = order_.begin();
  if (order_.size() > max_entries_) Erase(std::string(order_.back().first));
}

SSL_SESSION* TlsSessionCache::Find(const std::string& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  order_.splice(order_.begin(), order_, found->second);
  return found->second->second;
}

void TlsSessionCache::Erase(const std::string& key) {
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  SSL_SESSION_free(found->second->second);
  order_.erase(found->second);
  entries_.erase(found);
}

}  // namespace sluice
