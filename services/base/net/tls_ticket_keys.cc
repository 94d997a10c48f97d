#include "services/base/net/tls_ticket_keys.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <cstring>

#include "services/base/check.h"

namespace sluice {

TlsTicketKeys::TlsTicketKeys(const Clock& clock, Duration rotate_after)
    : clock_(clock), rotate_after_(rotate_after), current_(Make(clock.Now())) {}

TlsTicketKeys::Key TlsTicketKeys::Make(MonotonicTime now) {
  Key key;
  key.made = now;
  SLUICE_CHECK(RAND_bytes(key.name.data(), static_cast<int>(key.name.size())) == 1);
  SLUICE_CHECK(RAND_bytes(key.aes.data(), static_cast<int>(key.aes.size())) == 1);
  SLUICE_CHECK(RAND_bytes(key.hmac.data(), static_cast<int>(key.hmac.size())) == 1);
  return key;
}

int TlsTicketKeys::Use(unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher,
                       EVP_MAC_CTX* mac, bool encrypt) {
  Key key;
  bool replace = false;
  {
    std::lock_guard lock(mutex_);
    const MonotonicTime now = clock_.Now();
    if (previous_ && now - current_.made >= rotate_after_) previous_.reset();
    if (now - current_.made >= rotate_after_) {
      // One that lies longer than that unused is not good for decryption either.
      if (now - current_.made < 2 * rotate_after_) previous_ = current_;
      current_ = Make(now);
    }
    if (encrypt || std::memcmp(name, current_.name.data(), current_.name.size()) == 0) {
      key = current_;
    } else if (previous_ &&
               std::memcmp(name, previous_->name.data(), previous_->name.size()) == 0) {
      key = *previous_;
      replace = true;
    } else {
      return 0;
    }
  }
  char digest[] = "SHA256";
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.hmac.data(), key.hmac.size()),
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end(),
  };
  if (EVP_MAC_CTX_set_params(mac, parameters) != 1) return -1;
  if (encrypt) {
    std::memcpy(name, key.name.data(), key.name.size());
    if (RAND_bytes(iv, 16) != 1) return -1;
    return EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), nullptr, key.aes.data(), iv) == 1 ? 1 : -1;
  }
  if (EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), nullptr, key.aes.data(), iv) != 1) return -1;
  return replace ? 2 : 1;
}

}  // namespace sluice
