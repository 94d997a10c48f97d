#include "tools/sink/dns_answer.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace sluice::sink {
namespace {

constexpr uint16_t kTypeA = 1;
constexpr uint16_t kTypeCname = 5;
constexpr uint16_t kTypeSoa = 6;
constexpr uint16_t kTypeMx = 15;
constexpr uint16_t kTypeAaaa = 28;
constexpr uint16_t kTypeOpt = 41;
constexpr uint16_t kTypeAny = 255;
constexpr uint16_t kClassIn = 1;

constexpr uint8_t kNoError = 0;
constexpr uint8_t kFormErr = 1;
constexpr uint8_t kServFail = 2;
constexpr uint8_t kNxDomain = 3;
constexpr uint8_t kNotImp = 4;

constexpr size_t kHeaderBytes = 12;
constexpr size_t kUdpBytes = 512;
constexpr size_t kUdpBytesMax = 4096;

uint16_t Get16(std::string_view bytes, size_t at) {
  return static_cast<uint16_t>(static_cast<uint8_t>(bytes[at]) << 8 |
                               static_cast<uint8_t>(bytes[at + 1]));
}

void Put16(uint32_t value, std::string* out) {
  out->push_back(static_cast<char>(value >> 8));
  out->push_back(static_cast<char>(value));
}

void Put32(uint32_t value, std::string* out) {
  Put16(value >> 16, out);
  Put16(value & 0xffff, out);
}

void PutName(std::string_view name, std::string* out) {
  while (!name.empty()) {
    size_t dot = name.find('.');
    std::string_view label = name.substr(0, std::min<size_t>(dot, 63));
    out->push_back(static_cast<char>(label.size()));
    out->append(label);
    if (dot == name.npos) break;
    name.remove_prefix(dot + 1);
  }
  out->push_back('\0');
}

// A query's name in lower case without the root's dot; `*at` moves behind it. No pointers: a
// question is the first name of its message.
std::optional<std::string> ReadName(std::string_view message, size_t* at) {
  std::string name;
  while (*at < message.size()) {
    size_t length = static_cast<uint8_t>(message[(*at)++]);
    if (length == 0) return name;
    if (length > 63 || *at + length > message.size() || name.size() > 255) return std::nullopt;
    if (!name.empty()) name.push_back('.');
    for (size_t i = 0; i < length; ++i) {
      char c = message[(*at)++];
      name.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
    }
  }
  return std::nullopt;
}

// mx3.example.com -> 3, example.com; nothing where the first label is not of that form.
std::optional<uint32_t> MxNumber(std::string_view name, std::string_view* domain) {
  size_t dot = name.find('.');
  if (dot == name.npos || dot < 3 || name.substr(0, 2) != "mx") return std::nullopt;
  uint32_t number = 0;
  auto [end, error] = std::from_chars(name.data() + 2, name.data() + dot, number);
  if (error != std::errc() || end != name.data() + dot || number == 0) return std::nullopt;
  *domain = name.substr(dot + 1);
  return number;
}

struct Records {
  std::string bytes;
  uint32_t count = 0;
};

class Answer {
 public:
  Answer(const RuleTable& rules, const DnsOptions& options) : rules_(rules), options_(options) {}

  // Fills in what `name` has of `type`. A chain of aliases is followed for eight steps.
  void Resolve(const std::string& name, uint16_t type, int depth = 0) {
    const Rule& rule = rules_.ForDomain(name);
    if (!rule.cname.empty() && rules_.HasExact(name)) {
      std::string target;
      PutName(rule.cname, &target);
      Put(name, kTypeCname, target);
      if (type != kTypeCname && depth < 8) Resolve(rule.cname, type, depth + 1);
      return;
    }
    std::string_view domain;
    auto mx_number = MxNumber(name, &domain);
    bool is_mx_host = mx_number.has_value() && !rules_.HasExact(name);
    if (!is_mx_host) {
      switch (rule.dns) {
        case DnsMode::kNxdomain:
          rcode = kNxDomain;
          return;
        case DnsMode::kServfail:
          rcode = kServFail;
          return;
        case DnsMode::kTimeout:
          silent = true;
          return;
        case DnsMode::kTruncate:
          truncate = true;
          break;
        default:
          break;
      }
    }
    if (type == kTypeMx && !is_mx_host) PutMx(name, rule);
    if (type != kTypeA && type != kTypeAaaa && type != kTypeAny) return;
    const Rule& owner = is_mx_host ? rules_.ForDomain(domain) : rule;
    const std::vector<IpAddress>& addresses =
        owner.addresses.empty() ? options_.addresses : owner.addresses;
    for (size_t i = 0; i < addresses.size(); ++i) {
      // A numbered MX host has one address where its rule gives several.
      if (is_mx_host && !owner.addresses.empty() && i != (*mx_number - 1) % addresses.size()) {
        continue;
      }
      uint16_t address_type = addresses[i].is_v4() ? kTypeA : kTypeAaaa;
      if (type == address_type || type == kTypeAny) {
        Put(name, address_type, addresses[i].bytes());
      }
    }
  }

  Records records;
  uint8_t rcode = kNoError;
  bool silent = false;
  bool truncate = false;

 private:
  void PutMx(const std::string& name, const Rule& rule) {
    if (rule.dns == DnsMode::kNoMx) return;
    auto put = [&](uint32_t preference, std::string_view host) {
      std::string data;
      Put16(preference, &data);
      PutName(host, &data);
      Put(name, kTypeMx, data);
    };
    if (rule.dns == DnsMode::kNullMx) {
      put(0, "");
      return;
    }
    uint32_t preference = 0;
    for (const std::string& host : rule.mx) put(preference += 10, host);
    if (!rule.mx.empty()) return;
    for (uint32_t i = 1; i <= rule.mx_count; ++i)
      put(10 * i, "mx" + std::to_string(i) + "." + name);
  }

  void Put(std::string_view name, uint16_t type, std::string_view data) {
    PutName(name, &records.bytes);
    Put16(type, &records.bytes);
    Put16(kClassIn, &records.bytes);
    Put32(options_.ttl_s, &records.bytes);
    Put16(static_cast<uint32_t>(data.size()), &records.bytes);
    records.bytes.append(data);
    ++records.count;
  }

  const RuleTable& rules_;
  const DnsOptions& options_;
};

// What makes a negative answer cacheable (RFC 2308).
void PutSoa(std::string_view name, uint32_t ttl_s, std::string* out) {
  std::string data;
  PutName("ns.sink.test", &data);
  PutName("postmaster.sink.test", &data);
  for (uint32_t value : {1u, 3600u, 600u, 86400u, ttl_s}) Put32(value, &data);
  PutName(name, out);
  Put16(kTypeSoa, out);
  Put16(kClassIn, out);
  Put32(ttl_s, out);
  Put16(static_cast<uint32_t>(data.size()), out);
  out->append(data);
}

// The client's EDNS size (RFC 6891); its OPT record stands alone behind the question of a query.
size_t UdpSize(std::string_view query, size_t at) {
  if (Get16(query, 10) == 0 || query.size() < at + 11 || query[at] != 0 ||
      Get16(query, at + 1) != kTypeOpt) {
    return kUdpBytes;
  }
  return std::clamp<size_t>(Get16(query, at + 3), kUdpBytes, kUdpBytesMax);
}

}  // namespace

std::string AnswerDns(const RuleTable& rules, const DnsOptions& options, std::string_view query,
                      bool udp) {
  if (query.size() < kHeaderBytes || (query[2] & 0x80) != 0) return {};
  uint8_t opcode = (query[2] >> 3) & 15;
  bool recursion_desired = (query[2] & 1) != 0;
  size_t at = kHeaderBytes;
  auto name = ReadName(query, &at);
  bool well_formed = Get16(query, 4) == 1 && name && at + 4 <= query.size();

  Answer answer(rules, options);
  if (!well_formed) {
    answer.rcode = kFormErr;
  } else if (opcode != 0) {
    answer.rcode = kNotImp;
  } else {
    answer.Resolve(*name, Get16(query, at));
  }
  if (answer.silent) return {};
  if (answer.rcode != kNoError) answer.records = Records();

  std::string_view question;
  if (well_formed) question = query.substr(kHeaderBytes, at + 4 - kHeaderBytes);
  std::string authority;
  bool negative =
      answer.rcode == kNxDomain || (answer.rcode == kNoError && answer.records.count == 0);
  if (negative && well_formed) PutSoa(*name, options.ttl_s, &authority);

  size_t size = kHeaderBytes + question.size() + answer.records.bytes.size() + authority.size();
  bool cut = udp && well_formed && (answer.truncate || size > UdpSize(query, question.size() + 12));
  std::string out(query.substr(0, 2));
  out.push_back(static_cast<char>(0x84 | (opcode << 3) | (cut ? 2 : 0) | recursion_desired));
  out.push_back(static_cast<char>(0x80 | answer.rcode));
  Put16(question.empty() ? 0 : 1, &out);
  Put16(cut ? 0 : answer.records.count, &out);
  Put16(cut || authority.empty() ? 0 : 1, &out);
  Put16(0, &out);
  out.append(question);
  if (!cut) out.append(answer.records.bytes).append(authority);
  return out;
}

}  // namespace sluice::sink
