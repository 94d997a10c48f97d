#include "services/queue/core/queue_domain.h"

#include <algorithm>

#include "services/base/idna.h"

namespace sluice::queue {
namespace {

void LowerCase(std::string_view text, std::string* lower) {
  lower->assign(text);
  for (char& c : *lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
}

}  // namespace

std::string_view DomainOf(std::string_view address) {
  const size_t at = address.rfind('@');
  return at == std::string_view::npos ? std::string_view() : address.substr(at + 1);
}

void QueueDomainOf(const common::v1::Delivery& delivery, std::string* domain) {
  LowerCase(delivery.queue_domain().empty() ? DomainOf(delivery.rcpt()) : delivery.queue_domain(),
            domain);
  if (std::all_of(domain->begin(), domain->end(), [](char c) { return c >= 0; })) return;
  // What has no such form is told by the lookup.
  if (auto ascii = HostNameToAscii(*domain)) *domain = *std::move(ascii);
}

}  // namespace sluice::queue
