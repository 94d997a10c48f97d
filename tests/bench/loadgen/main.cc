// sluice-load: a load generator that is no bottleneck, by SMTP or gRPC.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>

#include "tests/bench/loadgen/grpc_load.h"
#include "tests/bench/loadgen/smtp_load.h"
#include "tools/sink/rules.h"

namespace sluice::bench {
namespace {

int Fail(const std::string& text) {
  std::cerr << "sluice-load: " << text << std::endl;
  return 1;
}

int Main(int argc, char** argv) {
  LoadOptions load;
  SmtpLoadOptions smtp;
  GrpcLoadOptions grpc;
  std::vector<std::string> targets = {"127.0.0.1:2525"};
  std::vector<std::string> sources;
  std::string timeout = "5m";
  std::string output;
  bool starttls = false;
  bool immediate_tls = false;

  CLI::App app{"Injects mail by SMTP or gRPC and prints what came of it as JSON.", "sluice-load"};
  app.footer("Exit code 0 where every message was accepted, 2 where some were not, 1 for errors.");
  app.add_option("--to", targets, "address:port, taken in turn by the sessions")
      ->capture_default_str();
  app.add_option("--source", sources, "local IPs, taken in turn by the sessions");
  app.add_option("--sessions", smtp.sessions, "connections at one time")
      ->check(CLI::Range(1, 60'000))
      ->capture_default_str();
  app.add_option("--messages", load.messages, "in all")->capture_default_str();
  app.add_option("--size", load.size_bytes, "bytes of a message, header and body")
      ->capture_default_str();
  app.add_option("--recipients", load.recipients, "of a message, all in one domain")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  app.add_option("--per-connection", smtp.messages_per_connection,
                 "messages before a connection is closed; 0: no end")
      ->capture_default_str();
  app.add_option("--domain", load.domain, "of the recipients; with --domains the end of each name")
      ->capture_default_str();
  app.add_option("--domains", load.domains, "number of domains: d1.DOMAIN, d2.DOMAIN, ...")
      ->check(CLI::Range(1, 100'000'000))
      ->capture_default_str();
  app.add_option("--zipf", load.zipf, "exponent of their distribution; 0: all alike")
      ->capture_default_str();
  app.add_option("--rate", load.rate, "messages a second; 0: as fast as replies come")
      ->capture_default_str();
  app.add_flag("--pipelining", smtp.pipelining,
               "envelope in one write, the next one with the end of the text");
  app.add_flag("--starttls", starttls, "encrypt by STARTTLS");
  app.add_flag("--tls", immediate_tls, "TLS from the first byte");
  app.add_flag("!--no-tls-resumption", smtp.tls_resumption, "a full handshake each time");
  app.add_option("--idle", smtp.idle_sessions,
                 "connections besides that say EHLO and nothing more; messages begin behind them")
      ->check(CLI::Range(0, 60'000))
      ->capture_default_str();
  app.add_option("--from", load.from, "sender")->capture_default_str();
  app.add_option("--ehlo", smtp.ehlo, "name")->capture_default_str();
  app.add_option("--header", load.headers, "another field, 'Name: value'");
  app.add_option("--test-id", load.test_id, "X-Test-Id is this, '-' and the message's number")
      ->capture_default_str();
  app.add_option("--timeout", timeout, "for connecting and for each reply")->capture_default_str();
  app.add_option("--seed", load.seed, "of the domains")->capture_default_str();
  app.add_option("--grpc", grpc.target, "address:port: inject by IngestService.InjectStream");
  app.add_option("--streams", grpc.streams, "of gRPC")->capture_default_str();
  app.add_option("--outstanding", grpc.outstanding, "unanswered messages of a gRPC stream")
      ->capture_default_str();
  app.add_option("--output", output, "file for the JSON (default: stdout)");
  CLI11_PARSE(app, argc, argv);

  for (const std::string& text : targets) {
    auto endpoint = Endpoint::Parse(text);
    if (!endpoint) return Fail("--to " + text + ": not an address:port");
    smtp.targets.push_back(*endpoint);
  }
  for (const std::string& text : sources) {
    auto ip = IpAddress::Parse(text);
    if (!ip) return Fail("--source " + text + ": not an IP address");
    smtp.sources.push_back(*ip);
  }
  auto limit = sink::ParseDuration(timeout);
  if (!limit) return Fail("--timeout " + timeout + ": a time is written as 50ms, 2s or 5m");
  smtp.timeout = *limit;
  if (starttls) smtp.tls = SmtpLoadOptions::Tls::kStartTls;
  if (immediate_tls) smtp.tls = SmtpLoadOptions::Tls::kImmediate;
  if (load.messages == 0) return Fail("--messages: at least one");

  rlimit files;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }

  LoadResult result;
  if (!grpc.target.empty()) {
    auto done = RunGrpcLoad(load, grpc);
    if (!done.ok()) return Fail(std::string(done.status().message()));
    result = *done;
  } else {
    EventLoop loop;
    SmtpLoad run(loop, load, smtp, [&] { loop.Stop(); });
    run.Start();
    loop.Run();
    result = run.result();
  }
  if (output.empty()) {
    std::cout << result.ToJson() << std::endl;
  } else {
    std::ofstream(output) << result.ToJson() << "\n";
  }
  if (result.finished() < load.messages) return Fail("too many connections failed");
  return result.accepted == load.messages ? 0 : 2;
}

}  // namespace
}  // namespace sluice::bench

int main(int argc, char** argv) { return sluice::bench::Main(argc, argv); }
