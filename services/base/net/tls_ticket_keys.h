// The keys of session tickets (RFC 5077, RFC 8446 4.6.1): one encrypts, the one before it still
// decrypts.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <mutex>
#include <optional>

#include "services/base/clock.h"

namespace sluice {

// Thread-safety: all functions from any thread. Lifetime: outlives the contexts that it serves.
class TlsTicketKeys {
 public:
  // A key encrypts for `rotate_after`, and decrypts as long again.
  explicit TlsTicketKeys(const Clock& clock, Duration rotate_after = std::chrono::hours(12));

  // As OpenSSL's ticket key callback: 1 done, 2 done and the ticket is to be replaced, 0 the key is
  // not known, -1 failure.
  int Use(unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
          bool encrypt);

 private:
  struct Key {
    std::array<unsigned char, 16> name;
    std::array<unsigned char, 32> aes;
    std::array<unsigned char, 32> hmac;
    MonotonicTime made;
  };
  static Key Make(MonotonicTime now);

  const Clock& clock_;
  const Duration rotate_after_;
  std::mutex mutex_;
  Key current_;                  // guarded by mutex_
  std::optional<Key> previous_;  // guarded by mutex_
};

}  // namespace sluice
