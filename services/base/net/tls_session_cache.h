// Sessions that a TLS client may resume, the last one for each key; the least recently used one
// leaves first.
#pragma once

#include <openssl/ssl.h>

#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"

namespace sluice {

// Thread-safety: none.
class TlsSessionCache {
 public:
  explicit TlsSessionCache(size_t max_entries) : max_entries_(max_entries) {}
  ~TlsSessionCache();
  TlsSessionCache(const TlsSessionCache&) = delete;
  TlsSessionCache& operator=(const TlsSessionCache&) = delete;

  // Takes the caller's reference to `session`, also where it keeps none.
  void Put(const std::string& key, SSL_SESSION* session);
  // The cache's own reference, good until the next call; null where there is none.
  SSL_SESSION* Find(const std::string& key);
  void Erase(const std::string& key);
  size_t size() const { return entries_.size(); }

 private:
  using Entry = std::pair<std::string, SSL_SESSION*>;
  const size_t max_entries_;
  std::list<Entry> order_;  // the most recently used first
  absl::flat_hash_map<std::string, std::list<Entry>::iterator> entries_;
};

}  // namespace sluice
