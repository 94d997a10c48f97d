#include "tools/sink/message_log.h"

#include <fcntl.h>
#include <isa-l/crc.h>
#include <openssl/sha.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sluice::sink {
namespace {

constexpr size_t kPendingMaxBytes = 256 * 1024;

void AppendHex(const unsigned char* bytes, size_t size, std::string* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (size_t i = 0; i < size; ++i) {
    out->push_back(kDigits[bytes[i] >> 4]);
    out->push_back(kDigits[bytes[i] & 15]);
  }
}

// JSON wants UTF-8; what a client sends need not be. Bytes above 127 become U+0080 to U+00FF, one
// for one, so that nothing is lost.
void AppendJson(std::string_view text, std::string* out) {
  out->push_back('"');
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20 || byte >= 0x7f) {
      out->append("\\u00");
      AppendHex(&byte, 1, out);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

void AppendField(const char* name, std::string_view value, std::string* out) {
  out->append(",\"").append(name).append("\":");
  AppendJson(value, out);
}

void AppendHash(MessageLog::Hash hash, std::string_view bytes, std::string* out) {
  if (hash == MessageLog::Hash::kSha256) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
    AppendHex(digest, sizeof(digest), out);
    return;
  }
  uint32_t crc = ~crc32_iscsi(reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data())),
                              static_cast<int>(bytes.size()), ~0u);
  unsigned char big_endian[4] = {
      static_cast<unsigned char>(crc >> 24), static_cast<unsigned char>(crc >> 16),
      static_cast<unsigned char>(crc >> 8), static_cast<unsigned char>(crc)};
  AppendHex(big_endian, sizeof(big_endian), out);
}

void WriteAll(int fd, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      std::fprintf(stderr, "sluice-sink: cannot write %s: %s\n", path.c_str(),
                   std::strerror(errno));
      std::exit(1);
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

std::string_view HeaderField(std::string_view text, std::string_view name) {
  while (!text.empty() && !text.starts_with("\r\n")) {
    size_t end = text.find("\r\n");
    std::string_view line = text.substr(0, end);
    if (line.size() > name.size() && line[name.size()] == ':' &&
        ::strncasecmp(line.data(), name.data(), name.size()) == 0) {
      line.remove_prefix(name.size() + 1);
      while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
      return line;
    }
    if (end == text.npos) break;
    text.remove_prefix(end + 2);
  }
  return {};
}

MessageLog::~MessageLog() {
  Flush();
  loop_.CancelTurnEnd(this);
}

absl::Status MessageLog::Open(const Options& options) {
  options_ = options;
  if (!options_.store_dir.empty() && ::mkdir(options_.store_dir.c_str(), 0755) != 0 &&
      errno != EEXIST) {
    return absl::UnavailableError("cannot make " + options_.store_dir + ": " +
                                  std::strerror(errno));
  }
  if (!options_.log_path.empty()) {
    log_ = UniqueFd(
        ::open(options_.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!log_) {
      return absl::UnavailableError("cannot open " + options_.log_path + ": " +
                                    std::strerror(errno));
    }
  }
  return absl::OkStatus();
}

void MessageLog::OnMessage(const ReceivedMessage& message) {
  if (!options_.store_dir.empty()) Store(message.text);
  if (!log_) return;
  size_t header_end = message.text.find("\r\n\r\n");
  std::string_view body =
      header_end == message.text.npos ? std::string_view() : message.text.substr(header_end + 4);
  // What is the same for all recipients.
  std::string tail;
  AppendField("client", message.client.ToString(), &tail);
  AppendField("local", message.local.ToString(), &tail);
  AppendField("ehlo", message.ehlo, &tail);
  AppendField("from", message.from, &tail);
  tail += ",\"size\":" + std::to_string(message.text.size());
  AppendField("message_id", HeaderField(message.text, "Message-ID"), &tail);
  AppendField("test_id", HeaderField(message.text, "X-Test-Id"), &tail);
  tail += ",\"body_hash\":\"";
  AppendHash(options_.hash, body, &tail);
  tail += "\",\"text_hash\":\"";
  AppendHash(options_.hash, message.text, &tail);
  tail += "\"";
  if (!options_.store_dir.empty()) tail += ",\"file\":\"" + std::to_string(stored_) + ".eml\"";
  tail += "}\n";
  std::string time = std::to_string(ToUnixMicros(loop_.clock().WallNow()));
  for (const std::string& recipient : *message.recipients) {
    pending_ += "{\"time_us\":" + time;
    AppendField("to", recipient, &pending_);
    pending_ += tail;
  }
  if (pending_.size() > kPendingMaxBytes) {
    Flush();
  } else {
    loop_.AtTurnEnd(this);
  }
}

void MessageLog::Store(std::string_view text) {
  std::string path = options_.store_dir + "/" + std::to_string(++stored_) + ".eml";
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  WriteAll(file.get(), text, path);
}

void MessageLog::Flush() {
  WriteAll(log_.get(), pending_, options_.log_path);
  pending_.clear();
}

}  // namespace sluice::sink
