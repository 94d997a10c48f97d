// One SMTP session of the sink, without IO: bytes in, replies out. It is strict where that shows a
// client's faults (line ends, order of commands) and knows no more of SMTP than a receiver needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/clock.h"
#include "services/base/net/ip_address.h"
#include "tools/sink/sink_state.h"
#include "tools/sink/text_reader.h"

namespace sluice::sink {

// Where replies go. Calls come in the order in which the client must see their effect.
class SessionOutput {
 public:
  virtual void Reply(std::string_view lines) = 0;
  // What follows comes this much later.
  virtual void Delay(Duration delay) = 0;
  // Nothing follows.
  virtual void Close() = 0;
  // A TLS handshake follows; OnTlsReady when it is done. What the client sent behind STARTTLS has
  // been dropped.
  virtual void StartTls() {}

 protected:
  ~SessionOutput() = default;
};

struct ReceivedMessage {
  IpAddress client;
  IpAddress local;
  std::string_view ehlo;
  std::string_view from;
  const std::vector<std::string>* recipients;  // accepted ones
  std::string_view text;                       // without doubled dots
};

// Where whole messages go, before their final reply is written.
class MessageKeeper {
 public:
  virtual void OnMessage(const ReceivedMessage& message) = 0;

 protected:
  ~MessageKeeper() = default;
};

struct SessionOptions {
  std::string host_name = "sink.test";
  // Of PIPELINING, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, DSN.
  std::vector<std::string> extensions = {"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES",
                                         "SMTPUTF8", "DSN"};
  uint64_t size_max_bytes = 100 * 1024 * 1024;
  uint32_t recipients_max = 10'000;
  bool starttls = false;       // offered
  std::string ehlo_reply;      // made by Finish
  std::string ehlo_reply_tls;  // the same behind the handshake

  void Finish();
};

// Thread-safety: none. Lifetime: state, options, output and keeper outlive it.
class Session {
 public:
  // `keeper` may be null: then texts are counted and not kept.
  Session(SinkState& state, const SessionOptions& options, SessionOutput& output,
          MessageKeeper* keeper, const IpAddress& client, const IpAddress& local);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // The client has connected.
  void Start();
  // Does nothing after Close.
  void OnBytes(std::string_view bytes);
  void OnTlsReady(bool resumed);

 private:
  void OnLine(std::string_view line);
  void OnText(std::string_view piece);
  void OnHello(std::string_view line, bool extended);
  void OnMail(std::string_view line);
  void OnRcpt(std::string_view line);
  void OnData();
  void OnFinalDot();
  void OnStartTls();
  void NoteLatency(WallTime now);
  void ResetTransaction();
  // Applies delay and close of `rule` at `stage`. True where the session was closed.
  bool Act(const Rule& rule, Stage stage);
  // The reply that `rule` scripts for `stage`, or nothing.
  const std::string* Failure(const Rule& rule, Stage stage, DomainState* domain);
  bool CountConnection(DomainState* domain, const Rule& rule);
  // The state of the domain of `address`.
  DomainState* DomainOf(std::string_view address);
  void Reply(std::string_view text) { output_.Reply(text); }
  void Close();

  SinkState& state_;
  const SessionOptions& options_;
  SessionOutput& output_;
  MessageKeeper* keeper_;
  const IpAddress client_;
  const IpAddress local_;
  SourceState* source_;

  bool closed_ = false;
  bool handshake_ = false;
  bool secured_ = false;
  bool greeted_ = false;
  bool in_text_ = false;
  bool have_sender_ = false;
  bool line_too_long_ = false;
  bool text_too_long_ = false;
  std::string partial_line_;
  std::string ehlo_;
  std::string from_;
  std::vector<std::string> recipients_;
  std::vector<DomainState*> recipient_domains_;
  TextReader reader_;
  std::string text_;  // the whole text with a keeper, else the front of its header
  DomainState* last_domain_ = nullptr;
  std::vector<DomainState*> counted_;  // domains that count this connection
};

}  // namespace sluice::sink
