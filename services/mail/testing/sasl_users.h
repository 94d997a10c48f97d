// Users that a test names. Thread-safety: none.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "services/mail/sasl_server.h"

namespace sluice::mail::testing {

// crypt(5), sha512crypt with the least rounds, of "sesame".
inline constexpr char kSesame[] =
    "$6$rounds=1000$abcdefgh$"
    "1WhD5NSPfUW3vvjZt0oAl77wZvqZB/nJcOoNyFB4UHH98F.JCFg5bmMLyU4dXf5WU9tCX9pTKt8vIYOpqoRCm0";

class TestSaslUsers : public SaslUsers {
 public:
  std::shared_ptr<const SaslCredential> Find(std::string_view name) const override {
    const auto found = users.find(std::string(name));
    return found == users.end() ? nullptr : found->second;
  }
  void Add(const std::string& name, SaslCredential credential) {
    users[name] = std::make_shared<SaslCredential>(std::move(credential));
  }
  std::map<std::string, std::shared_ptr<const SaslCredential>> users;
};

}  // namespace sluice::mail::testing
