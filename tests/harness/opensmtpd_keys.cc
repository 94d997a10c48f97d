// Preloaded into Debian 12's OpenSMTPD 6.8.0, whose TLS as a server fails with every client
// ("missing private key", "EVP lib"): it marks the legacy form of its key, so that another process
// signs, and hands OpenSSL 3 the EVP_PKEY, which no longer is that form but keeps a copy of it.
// OpenSMTPD 7.4 hands over what it has marked (OpenSMTPD's issue 1171); this does the same for the
// old one.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <dlfcn.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>

// In place of OpenSSL's, which it calls.
extern "C" int SSL_CTX_use_PrivateKey(SSL_CTX* context, EVP_PKEY* key) {
  const auto use = reinterpret_cast<decltype(&SSL_CTX_use_PrivateKey)>(
      dlsym(RTLD_NEXT, "SSL_CTX_use_PrivateKey"));
  EVP_PKEY* marked = EVP_PKEY_new();
  int made = 0;
  if (RSA* rsa = EVP_PKEY_get1_RSA(key)) {
    made = EVP_PKEY_assign_RSA(marked, rsa);
  } else if (EC_KEY* ec = EVP_PKEY_get1_EC_KEY(key)) {
    made = EVP_PKEY_assign_EC_KEY(marked, ec);
  }
  const int used = use(context, made == 1 ? marked : key);
  EVP_PKEY_free(marked);
  return used;
}
