#include "services/delivery/dns/dns_answer.h"

#include <ares.h>
#include <arpa/inet.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

constexpr size_t kHeaderBytes = 12;
// Records looked at in one message, of any section: an answer of 64 KiB holds about 4,000.
constexpr int kMaxRecordsRead = 8192;
// A name in the message, all labels with their lengths and the root's (RFC 1035 section 3.1).
constexpr size_t kMaxNameBytes = 255;
// Of one name; without loops, a name of that length has fewer.
constexpr int kMaxPointers = 128;

DnsAnswer Failed(std::string detail) {
  DnsAnswer answer;
  answer.detail = std::move(detail);
  return answer;
}

// A place in the message; every read says whether it stayed inside.
class Reader {
 public:
  explicit Reader(std::string_view message) : message_(message) {}

  size_t offset() const { return offset_; }
  void set_offset(size_t offset) { offset_ = offset; }

  bool U16(uint16_t* value) {
    if (message_.size() - offset_ < 2) return false;
    *value = static_cast<uint16_t>(Byte(0) << 8 | Byte(1));
    offset_ += 2;
    return true;
  }

  bool U32(uint32_t* value) {
    uint16_t high = 0;
    uint16_t low = 0;
    if (!U16(&high) || !U16(&low)) return false;
    *value = static_cast<uint32_t>(high) << 16 | low;
    return true;
  }

  // A possibly compressed name, in lower case without its final dot.
  bool Name(std::string* name) {
    if (!NameIsBounded()) return false;
    const auto* base = reinterpret_cast<const unsigned char*>(message_.data());
    char* expanded = nullptr;
    long encoded_bytes = 0;  // NOLINT(runtime/int): c-ares' type
    if (ares_expand_name(base + offset_, base, static_cast<int>(message_.size()), &expanded,
                         &encoded_bytes) != ARES_SUCCESS) {
      return false;
    }
    name->assign(expanded);
    ares_free_string(expanded);
    absl::AsciiStrToLower(name);
    offset_ += static_cast<size_t>(encoded_bytes);
    return offset_ <= message_.size();
  }

  bool Bytes(size_t count, std::string_view* bytes) {
    if (message_.size() - offset_ < count) return false;
    *bytes = message_.substr(offset_, count);
    offset_ += count;
    return true;
  }

 private:
  // c-ares expands names of any length: with thousands of pointers to one that fills the message,
  // an answer of 64 KiB would become hundreds of MiB.
  bool NameIsBounded() const {
    size_t at = offset_;
    size_t bytes = 1;
    for (int pointers = 0; at < message_.size();) {
      const auto length = static_cast<unsigned char>(message_[at]);
      if (length == 0) return true;
      if (length >= 0xc0) {
        if (++pointers > kMaxPointers || at + 1 >= message_.size()) return false;
        at = (length & 0x3fU) << 8 | static_cast<unsigned char>(message_[at + 1]);
        continue;
      }
      at += 1 + length;
      bytes += 1 + length;
      if (bytes > kMaxNameBytes) return false;
    }
    return false;
  }

  unsigned Byte(size_t i) const { return static_cast<unsigned char>(message_[offset_ + i]); }

  std::string_view message_;
  size_t offset_ = 0;
};

struct RawRecord {
  std::string owner;
  uint16_t type = 0;
  uint32_t ttl_s = 0;
  size_t data_offset = 0;
  std::string_view data;
};

bool ReadRecord(Reader& reader, RawRecord* record) {
  uint16_t dns_class = 0;
  uint16_t length = 0;
  if (!reader.Name(&record->owner) || !reader.U16(&record->type) || !reader.U16(&dns_class) ||
      !reader.U32(&record->ttl_s) || !reader.U16(&length)) {
    return false;
  }
  record->data_offset = reader.offset();
  if (record->ttl_s > 0x7fffffffU) record->ttl_s = 0;  // RFC 2181 section 8
  if (!reader.Bytes(length, &record->data)) return false;
  if (dns_class != 1) record->type = 0;  // not IN: of no interest
  return true;
}

std::optional<DnsRecord> Decode(std::string_view message, const RawRecord& raw, DnsType type) {
  DnsRecord record;
  record.ttl_s = raw.ttl_s;
  char text[INET6_ADDRSTRLEN];
  switch (type) {
    case DnsType::kA:
      if (raw.data.size() != 4) return std::nullopt;
      inet_ntop(AF_INET, raw.data.data(), text, sizeof(text));
      record.data = text;
      return record;
    case DnsType::kAaaa:
      if (raw.data.size() != 16) return std::nullopt;
      inet_ntop(AF_INET6, raw.data.data(), text, sizeof(text));
      record.data = text;
      return record;
    case DnsType::kMx: {
      Reader reader(message);
      reader.set_offset(raw.data_offset);
      if (!reader.U16(&record.preference) || !reader.Name(&record.data) ||
          reader.offset() != raw.data_offset + raw.data.size()) {
        return std::nullopt;
      }
      return record;
    }
    default:
      record.data = std::string(raw.data);
      return record;
  }
}

// min(SOA's TTL, SOA's MINIMUM), RFC 2308 section 5.
std::optional<uint32_t> NegativeTtl(std::string_view message, const RawRecord& soa) {
  Reader reader(message);
  reader.set_offset(soa.data_offset);
  std::string name;
  uint32_t field = 0;
  if (!reader.Name(&name) || !reader.Name(&name)) return std::nullopt;
  for (int i = 0; i < 5; ++i) {  // serial, refresh, retry, expire, minimum
    if (!reader.U32(&field)) return std::nullopt;
  }
  return std::min(soa.ttl_s, field);
}

std::string_view RcodeName(int rcode) {
  switch (rcode) {
    case 1:
      return "FORMERR";
    case 2:
      return "SERVFAIL";
    case 4:
      return "NOTIMP";
    case 5:
      return "REFUSED";
    default:
      return "an unknown error code";
  }
}

}  // namespace

std::string_view DnsTypeName(DnsType type) {
  switch (type) {
    case DnsType::kA:
      return "A";
    case DnsType::kCname:
      return "CNAME";
    case DnsType::kSoa:
      return "SOA";
    case DnsType::kMx:
      return "MX";
    case DnsType::kTxt:
      return "TXT";
    case DnsType::kAaaa:
      return "AAAA";
    case DnsType::kTlsa:
      return "TLSA";
  }
  return "?";
}

DnsAnswer ParseDnsAnswer(std::string_view message, std::string_view name, DnsType type) {
  Reader reader(message);
  uint16_t id = 0;
  uint16_t flags = 0;
  uint16_t questions = 0;
  uint16_t answers = 0;
  uint16_t authorities = 0;
  uint16_t additionals = 0;
  if (message.size() < kHeaderBytes || !reader.U16(&id) || !reader.U16(&flags) ||
      !reader.U16(&questions) || !reader.U16(&answers) || !reader.U16(&authorities) ||
      !reader.U16(&additionals)) {
    return Failed("malformed DNS answer: shorter than a header");
  }
  if ((flags & 0x8000) == 0) return Failed("malformed DNS answer: it is a question");
  const int rcode = flags & 0x0f;
  if (rcode != 0 && rcode != 3) return Failed(absl::StrCat(RcodeName(rcode).data()));

  for (int i = 0; i < questions; ++i) {
    std::string question;
    uint16_t ignored = 0;
    if (!reader.Name(&question) || !reader.U16(&ignored) || !reader.U16(&ignored)) {
      return Failed("malformed DNS answer: bad question section");
    }
  }
  std::vector<RawRecord> records;
  for (int i = 0; i < answers; ++i) {
    if (i >= kMaxRecordsRead) break;
    RawRecord record;
    if (!ReadRecord(reader, &record)) return Failed("malformed DNS answer: bad answer section");
    if (record.type == static_cast<uint16_t>(type) ||
        record.type == static_cast<uint16_t>(DnsType::kCname)) {
      records.push_back(std::move(record));
    }
  }

  DnsAnswer answer;
  answer.authenticated = (flags & 0x0020) != 0;
  answer.ttl_s = 0x7fffffffU;
  std::string owner = absl::AsciiStrToLower(absl::string_view(name.data(), name.size()));
  if (!owner.empty() && owner.back() == '.') owner.pop_back();
  for (int link = 0;; ++link) {
    if (link > kMaxCnameLinks) return Failed("CNAME loop, or more than 16 CNAMEs in a row");
    const RawRecord* alias = nullptr;
    for (const RawRecord& record : records) {
      if (record.owner != owner) continue;
      if (record.type != static_cast<uint16_t>(type)) {
        alias = &record;
        continue;
      }
      if (answer.records.size() >= kMaxDnsRecords) break;
      std::optional<DnsRecord> decoded = Decode(message, record, type);
      if (!decoded) return Failed(absl::StrCat("malformed ", DnsTypeName(type).data(), " record"));
      answer.ttl_s = std::min(answer.ttl_s, decoded->ttl_s);
      answer.records.push_back(*std::move(decoded));
    }
    if (!answer.records.empty()) {
      answer.status = DnsStatus::kAnswer;
      answer.canonical = std::move(owner);
      return answer;
    }
    if (alias == nullptr) break;
    answer.ttl_s = std::min(answer.ttl_s, alias->ttl_s);
    Reader target(message);
    target.set_offset(alias->data_offset);
    if (!target.Name(&owner)) return Failed("malformed CNAME record");
  }

  answer.status = rcode == 3 ? DnsStatus::kNxDomain : DnsStatus::kNoData;
  answer.canonical = std::move(owner);
  uint32_t negative_ttl_s = kDefaultNegativeTtlSeconds;
  for (int i = 0; i < authorities && i < kMaxRecordsRead; ++i) {
    RawRecord record;
    if (!ReadRecord(reader, &record)) break;  // the answer stands without it
    if (record.type != static_cast<uint16_t>(DnsType::kSoa)) continue;
    negative_ttl_s = NegativeTtl(message, record).value_or(kDefaultNegativeTtlSeconds);
    break;
  }
  answer.ttl_s = std::min(answer.ttl_s, negative_ttl_s);
  return answer;
}

}  // namespace sluice::delivery
