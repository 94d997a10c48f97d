#include "tools/ctl/inject.h"

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>

#include "tools/ctl/generate.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using ingest::v1::InjectRequest;
using ingest::v1::InjectStreamRequest;
using ingest::v1::InjectStreamResponse;

constexpr size_t kFileBytesMax = size_t{256} << 20;
constexpr size_t kFailuresShown = 10;
constexpr int64_t kRetryPauseUs = 200'000;

bool ReadMessage(const std::string& path, Environment& env, std::string& content) {
  std::ifstream file;
  if (path != "-") file.open(path, std::ios::binary);
  std::istream& in = path == "-" ? env.in : file;
  content.assign(std::istreambuf_iterator<char>(in), {});
  if (in.bad() || (path != "-" && !file.is_open())) {
    env.err << "sluicectl: inject: cannot read " << PrintableText(path) << "\n";
    return false;
  }
  if (content.empty()) {
    env.err << "sluicectl: inject: " << (path == "-" ? "standard input" : PrintableText(path))
            << " is empty, no message was sent\n";
    return false;
  }
  if (content.size() > kFileBytesMax) {
    env.err << "sluicectl: inject: " << PrintableText(path) << " is larger than "
            << FormatBytes(kFileBytesMax) << "\n";
    return false;
  }
  return true;
}

// What all messages of this call have in common. Nothing where an argument is wrong.
std::optional<InjectRequest> CommonPart(const InjectOptions& options, Environment& env) {
  InjectRequest request;
  request.set_virtual_mta(options.vmta);
  request.set_job_id(options.job);
  request.set_envid(options.envid);
  request.set_priority(options.priority);
  request.set_traceparent(options.traceparent);
  request.set_tenant(options.tenant);
  const int64_t now_us = env.now_us();
  if (options.delay_us > 0) request.set_not_before_us(now_us + options.delay_us);
  if (options.deliver_within_us > 0) request.set_deliver_by_us(now_us + options.deliver_within_us);
  if (options.ret == "full") request.set_dsn_return(common::v1::DSN_RETURN_FULL);
  if (options.ret == "hdrs") request.set_dsn_return(common::v1::DSN_RETURN_HEADERS);
  for (const std::string& pair : options.metadata) {
    const size_t at = pair.find('=');
    if (at == 0 || at == std::string::npos) {
      env.err << "sluicectl: inject: --metadata " << PrintableText(pair) << ": give key=value\n";
      return std::nullopt;
    }
    (*request.mutable_metadata())[pair.substr(0, at)] = pair.substr(at + 1);
  }
  return request;
}

uint32_t NotifyBits(const std::vector<std::string>& words) {
  uint32_t bits = 0;
  for (const std::string& word : words) {
    bits |= word == "never" ? 1 : word == "success" ? 2 : word == "failure" ? 4 : 8;
  }
  return bits;
}

// Makes message n when it is wanted, so that a million of them need no memory.
class Messages {
 public:
  Messages(const InjectOptions& options, InjectRequest common, std::vector<std::string> contents,
           std::string key_pattern, int64_t now_us)
      : options_(options),
        common_(std::move(common)),
        contents_(std::move(contents)),
        key_pattern_(std::move(key_pattern)),
        now_us_(now_us) {}

  uint64_t size() const { return options_.count * (contents_.empty() ? 1 : contents_.size()); }

  // n: from 0.
  InjectRequest Make(uint64_t n) const {
    InjectRequest request = common_;
    request.set_mail_from(options_.from == "<>" ? "" : FillIn(options_.from, n + 1));
    const uint32_t notify = NotifyBits(options_.notify);
    for (const std::string& to : options_.to) {
      auto* recipient = request.add_recipients();
      recipient->set_address(FillIn(to, n + 1));
      recipient->set_notify(notify);
    }
    request.set_idempotency_key(FillIn(key_pattern_, n + 1));
    request.set_content(contents_.empty()
                            ? GenerateMessage(request.mail_from(), request.recipients(0).address(),
                                              n + 1, now_us_, options_.size_bytes)
                            : contents_[n % contents_.size()]);
    return request;
  }

 private:
  const InjectOptions& options_;
  const InjectRequest common_;
  const std::vector<std::string> contents_;
  const std::string key_pattern_;
  const int64_t now_us_;
};

bool RefusedForNow(uint32_t code) {
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::RESOURCE_EXHAUSTED ||
         code == grpc::StatusCode::DEADLINE_EXCEEDED || code == grpc::StatusCode::ABORTED;
}

struct Outcome {
  uint64_t accepted = 0;
  uint64_t duplicates = 0;  // part of accepted
  uint64_t refused = 0;
  uint64_t unanswered = 0;            // the connection broke: perhaps taken, perhaps not
  std::vector<std::string> failures;  // the first few
  std::string ids;

  void Add(const InjectStreamResponse& answer, const InjectOptions& options) {
    if (answer.code() == grpc::StatusCode::OK) {
      ++accepted;
      if (answer.duplicate()) ++duplicates;
      if (options.ids || options.json) {
        if (options.json && !ids.empty()) ids += ",";
        ids += options.json ? "\"" + PrintableText(answer.message_id()) + "\""
                            : PrintableText(answer.message_id()) + "\n";
      }
      return;
    }
    ++refused;
    if (failures.size() < kFailuresShown) {
      failures.push_back("message " + std::to_string(answer.token() + 1) + ": " +
                         PrintableText(answer.detail()));
    }
  }
};

// Sends `numbers` and hands each answer to `on_answer`; returns the numbers without an answer, with
// `status` saying why. Stops sending when the stream breaks or falls silent.
template <typename OnAnswer>
std::vector<uint64_t> StreamOut(Client& client, const Messages& messages,
                                const std::vector<uint64_t>& numbers, const InjectOptions& options,
                                OnAnswer on_answer, grpc::Status& status) {
  grpc::ClientContext context;
  const auto stream = client.ingest().InjectStream(&context);
  std::mutex mutex;
  std::condition_variable moved;
  std::map<uint64_t, bool> waiting;  // sent and not answered
  bool broken = false;
  std::thread reader([&] {
    InjectStreamResponse answer;
    while (stream->Read(&answer)) {
      const std::lock_guard lock(mutex);
      if (waiting.erase(answer.token()) == 1) on_answer(answer);
      moved.notify_one();
    }
    const std::lock_guard lock(mutex);
    broken = true;
    moved.notify_one();
  });
  // False where the stream ended, or nothing was answered for too long.
  const auto wait_below = [&](std::unique_lock<std::mutex>& lock, size_t limit) {
    while (!broken && waiting.size() >= limit) {
      if (moved.wait_for(lock, std::chrono::microseconds(options.answer_us)) ==
          std::cv_status::timeout) {
        return false;
      }
    }
    return !broken || waiting.size() < limit;
  };
  size_t sent = 0;
  bool silent = false;
  InjectStreamRequest request;
  for (; sent < numbers.size(); ++sent) {
    {
      std::unique_lock lock(mutex);
      if (!wait_below(lock, options.window)) silent = !broken;
      if (broken || silent) break;
      waiting.emplace(numbers[sent], true);
    }
    request.set_token(numbers[sent]);
    *request.mutable_message() = messages.Make(numbers[sent]);
    if (!stream->Write(request)) {
      ++sent;
      break;
    }
  }
  stream->WritesDone();
  {
    std::unique_lock lock(mutex);
    if (!wait_below(lock, 1)) silent = silent || !broken;
  }
  if (silent) context.TryCancel();
  reader.join();
  status = stream->Finish();
  if (silent) status = grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "no answer in time");
  std::vector<uint64_t> left;
  for (const auto& [number, unused] : waiting) left.push_back(number);
  left.insert(left.end(), numbers.begin() + static_cast<ptrdiff_t>(sent), numbers.end());
  return left;
}

template <typename OnAnswer>
std::vector<uint64_t> CallEach(Client& client, const Messages& messages,
                               const std::vector<uint64_t>& numbers, OnAnswer on_answer,
                               grpc::Status& status) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    ingest::v1::InjectResponse response;
    status = client.Call(messages.Make(numbers[i]), &response);
    InjectStreamResponse answer;
    answer.set_token(numbers[i]);
    answer.set_code(static_cast<uint32_t>(status.error_code()));
    answer.set_detail(status.error_message());
    answer.set_message_id(response.message_id());
    answer.set_duplicate(response.duplicate());
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE ||
        status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return {numbers.begin() + static_cast<ptrdiff_t>(i), numbers.end()};
    }
    on_answer(answer);
  }
  status = grpc::Status::OK;
  return {};
}

std::string RandomKeyPrefix() {
  std::random_device random;
  char text[40];
  std::snprintf(text, sizeof text, "sluicectl-%08x%08x-", random(), random());
  return text;
}

void Report(const Outcome& outcome, const InjectOptions& options, double seconds,
            Environment& env) {
  char rate[64];
  std::snprintf(rate, sizeof rate, "%.0f", seconds > 0 ? outcome.accepted / seconds : 0.0);
  if (options.json) {
    char text[64];
    std::snprintf(text, sizeof text, "%.3f", seconds);
    env.out << "{\"accepted\": " << outcome.accepted << ", \"duplicates\": " << outcome.duplicates
            << ", \"refused\": " << outcome.refused << ", \"unanswered\": " << outcome.unanswered
            << ", \"seconds\": " << text << ", \"message_ids\": [" << outcome.ids << "]}\n";
  } else {
    env.out << outcome.ids << outcome.accepted << " accepted";
    if (outcome.duplicates != 0) env.out << " (" << outcome.duplicates << " known already)";
    if (outcome.refused != 0) env.out << ", " << outcome.refused << " refused";
    if (outcome.unanswered != 0) env.out << ", " << outcome.unanswered << " unanswered";
    if (outcome.accepted > 1) env.out << ", " << rate << " messages/s";
    env.out << "\n";
  }
  for (const std::string& failure : outcome.failures) env.err << "sluicectl: " << failure << "\n";
  if (outcome.refused > outcome.failures.size()) {
    env.err << "sluicectl: and " << outcome.refused - outcome.failures.size() << " more\n";
  }
}

}  // namespace

int Inject(Client& client, const InjectOptions& options, Environment& env) {
  const std::optional<InjectRequest> common = CommonPart(options, env);
  if (!common.has_value()) return kExitUsage;
  std::vector<std::string> contents(options.files.size());
  for (size_t i = 0; i < contents.size(); ++i) {
    if (!ReadMessage(options.files[i], env, contents[i])) return kExitUsage;
  }
  // A message is repeated only under a key, or it could be sent twice.
  std::string key = options.idempotency_key;
  if (key.empty() && options.retry_us > 0) key = RandomKeyPrefix() + "%n";
  const int64_t start_us = env.now_us();
  const Messages messages(options, *common, std::move(contents), key, start_us);
  if (!key.empty() && messages.size() > 1 && key.find("%n") == std::string::npos) {
    env.err << "sluicectl: inject: --idempotency-key needs %n, the message's number, where there "
               "is more than one message\n";
    return kExitUsage;
  }

  std::vector<uint64_t> numbers(messages.size());
  for (uint64_t n = 0; n < numbers.size(); ++n) numbers[n] = n;
  Outcome outcome;
  grpc::Status status;
  const auto steady_us = [] {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  const int64_t begin_us = steady_us();
  while (true) {
    const bool may_retry = steady_us() - begin_us < options.retry_us;
    std::vector<uint64_t> again;
    const auto on_answer = [&](const InjectStreamResponse& answer) {
      if (may_retry && RefusedForNow(answer.code())) {
        again.push_back(answer.token());
      } else {
        outcome.Add(answer, options);
      }
    };
    std::vector<uint64_t> left =
        options.unary ? CallEach(client, messages, numbers, on_answer, status)
                      : StreamOut(client, messages, numbers, options, on_answer, status);
    left.insert(left.end(), again.begin(), again.end());
    if (left.empty()) break;
    if (!may_retry) {
      outcome.unanswered = left.size();
      break;
    }
    numbers = std::move(left);
    env.sleep_us(kRetryPauseUs);
  }
  const double seconds = static_cast<double>(steady_us() - begin_us) / 1e6;
  if (!status.ok() && outcome.accepted + outcome.refused == 0) {
    return ReportFailure(status, "inject", client.options().ingest, false, env);
  }
  Report(outcome, options, seconds, env);
  if (!status.ok()) ReportFailure(status, "inject", client.options().ingest, false, env);
  if (outcome.refused + outcome.unanswered == 0) return kExitOk;
  return outcome.accepted == 0 ? kExitRefused : kExitPartly;
}

}  // namespace sluice::ctl
