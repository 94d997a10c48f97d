// sluice-sink: a receiver that behaves as remote providers do, for quickstart, tests and
// benchmarks.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>

#include "nlohmann/json.hpp"
#include "services/base/version.h"
#include "tools/sink/sink.h"

namespace sluice::sink {
namespace {

// SIGTERM and SIGINT end the loop, SIGUSR1 prints the counters.
class Signals final : public FdWatcher {
 public:
  Signals(EventLoop& loop, Sink& sink) : loop_(loop), sink_(sink) {
    sigset_t set;
    sigemptyset(&set);
    for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    fd_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    loop_.Watch(fd_.get(), EPOLLIN, this);
  }
  ~Signals() { loop_.Unwatch(fd_.get(), this); }

  void OnEvents(uint32_t) override {
    signalfd_siginfo info;
    if (::read(fd_.get(), &info, sizeof(info)) != sizeof(info)) return;
    if (info.ssi_signo == SIGUSR1) {
      std::cout << sink_.CountersJson() << std::endl;
    } else {
      loop_.Stop();
    }
  }

 private:
  EventLoop& loop_;
  Sink& sink_;
  UniqueFd fd_;
};

int Fail(const std::string& text) {
  std::cerr << "sluice-sink: " << text << std::endl;
  return 1;
}

bool ParseEndpoint(const std::string& text, std::optional<Endpoint>* endpoint) {
  *endpoint = Endpoint::Parse(text);
  return endpoint->has_value();
}

int Main(int argc, char** argv) {
  std::vector<std::string> listen = {"127.0.0.1:2525"};
  std::vector<std::string> listen_tls;
  std::string dns, http, rules_file, hash = "crc32c", ready_file, counters_file, rtt = "0ms";
  std::string idle = "5m";
  std::vector<std::string> dns_addresses, rules;
  uint64_t seed = std::random_device()();
  bool quiet = false;
  SinkOptions options;

  CLI::App app{"An SMTP receiver with DNS that behaves as its rules say, and counts.",
               "sluice-sink"};
  app.set_version_flag("--version", VersionText(), "print version, build and formats, and exit");
  app.footer(std::string(RuleTable::Help()) +
             "HTTP: GET /counters (JSON), GET /healthz, POST /rules (lines), POST /reset.\n"
             "Signals: SIGUSR1 prints the counters, SIGTERM and SIGINT print them and end.");
  app.add_option("--listen", listen, "SMTP address:port; port 0 takes a free one")
      ->capture_default_str();
  app.add_option(
      "--tls-certificate", options.tls_certificate,
      "offer STARTTLS with the key and certificate of this PEM file; \"self-signed\" makes "
      "one (ECDSA P-256)");
  app.add_option("--listen-tls", listen_tls, "SMTP address:port with TLS from the first byte");
  app.add_option("--tls1.3", options.tls_protocols.tls1_3, "take TLS 1.3")->capture_default_str();
  app.add_option("--dns", dns, "serve DNS by UDP and TCP on this address:port");
  app.add_option("--dns-address", dns_addresses,
                 "IP behind every name (default: the SMTP addresses)");
  app.add_option("--dns-ttl", options.dns_options.ttl_s, "seconds")->capture_default_str();
  app.add_option("--http", http, "serve counters and rules on this address:port");
  app.add_option("--rule", rules, "a rule, see below; may be repeated")->take_all();
  app.add_option("--rules", rules_file, "file of rules");
  app.add_option("--round-trip", rtt, "added to every reply, such as 50ms")->capture_default_str();
  app.add_option("--log", options.log.log_path,
                 "append a line of JSON for each accepted recipient: time_us, to, client, local, "
                 "ehlo, from, size, message_id, test_id (X-Test-Id), body_hash, text_hash, file");
  app.add_option("--hash", hash, "of the log: crc32c or sha256")
      ->check(CLI::IsMember({"crc32c", "sha256"}))
      ->capture_default_str();
  app.add_option("--store", options.log.store_dir, "write each message to DIR/N.eml");
  app.add_option("--host-name", options.session.host_name, "in greeting and EHLO")
      ->capture_default_str();
  app.add_option("--extension", options.session.extensions, "offered after EHLO, besides SIZE")
      ->capture_default_str();
  app.add_option("--size-max", options.session.size_max_bytes, "bytes of a message")
      ->capture_default_str();
  app.add_option("--recipients-max", options.session.recipients_max, "of a transaction")
      ->capture_default_str();
  app.add_option("--idle-timeout", idle, "for SMTP clients")->capture_default_str();
  app.add_option("--domains", options.json_domains_max, "domains shown in the counters, at most")
      ->capture_default_str();
  app.add_option("--seed", seed, "for the shares of rules (default: random)");
  app.add_option("--ready-file", ready_file, "written with the addresses, as JSON, when serving");
  app.add_option("--counters-file", counters_file, "counters at exit (default: stdout)");
  app.add_flag("--quiet", quiet, "no counters on stdout at exit");
  CLI11_PARSE(app, argc, argv);

  for (const std::string& text : listen) {
    std::optional<Endpoint> endpoint;
    if (!ParseEndpoint(text, &endpoint)) return Fail("--listen " + text + ": not an address:port");
    options.listen.push_back(*endpoint);
  }
  for (const std::string& text : listen_tls) {
    std::optional<Endpoint> endpoint;
    if (!ParseEndpoint(text, &endpoint)) {
      return Fail("--listen-tls " + text + ": not an address:port");
    }
    options.listen_tls.push_back(*endpoint);
  }
  if (!dns.empty() && !ParseEndpoint(dns, &options.dns)) return Fail("--dns: not an address:port");
  if (!http.empty() && !ParseEndpoint(http, &options.http)) {
    return Fail("--http: not an address:port");
  }
  for (const std::string& text : dns_addresses) {
    auto ip = IpAddress::Parse(text);
    if (!ip) return Fail("--dns-address " + text + ": not an IP address");
    options.dns_options.addresses.push_back(*ip);
  }
  auto round_trip = ParseDuration(rtt);
  auto idle_timeout = ParseDuration(idle);
  if (!round_trip || !idle_timeout) return Fail("a time is written as 50ms, 2s or 5m");
  options.round_trip = *round_trip;
  options.idle_timeout = *idle_timeout;
  if (hash == "sha256") options.log.hash = MessageLog::Hash::kSha256;

  // Every connection is a descriptor.
  rlimit files;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }

  EventLoop loop;
  SinkState state(loop.clock(), seed);
  if (!rules_file.empty()) {
    std::ifstream file(rules_file);
    std::stringstream text;
    text << file.rdbuf();
    if (!file) return Fail("cannot read " + rules_file);
    absl::Status status = state.rules().AddAll(text.str());
    if (!status.ok()) return Fail(rules_file + ": " + std::string(status.message()));
  }
  for (const std::string& rule : rules) {
    absl::Status status = state.rules().Add(rule);
    if (!status.ok()) return Fail(std::string(status.message()));
  }
  auto sink = Sink::Open(loop, state, options);
  if (!sink.ok()) return Fail(std::string(sink.status().message()));
  Signals signals(loop, **sink);

  nlohmann::json ready = {{"smtp", nlohmann::json::array()}};
  for (const Endpoint& endpoint : (*sink)->smtp_addresses()) {
    ready["smtp"].push_back(endpoint.ToString());
  }
  for (const Endpoint& endpoint : (*sink)->tls_addresses()) {
    ready["smtp_tls"].push_back(endpoint.ToString());
  }
  if (auto address = (*sink)->dns_address()) ready["dns"] = address->ToString();
  if (auto address = (*sink)->http_address()) ready["http"] = address->ToString();
  const std::string line = ready.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (!ready_file.empty()) {
    // Renamed into place, so that a reader never sees half of it.
    std::string partial = ready_file + ".new";
    std::ofstream(partial) << line << "\n";
    if (std::rename(partial.c_str(), ready_file.c_str()) != 0) {
      return Fail("cannot write " + ready_file);
    }
  }
  if (!quiet) std::cout << "ready " << line << std::endl;

  loop.Run();

  std::string counters = (*sink)->CountersJson();
  if (!counters_file.empty()) {
    std::ofstream(counters_file) << counters << "\n";
  } else if (!quiet) {
    std::cout << counters << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace sluice::sink

int main(int argc, char** argv) { return sluice::sink::Main(argc, argv); }
