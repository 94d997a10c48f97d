// A client of an ingest in memory: it says what it is told.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "services/base/testing/manual_executor.h"
#include "services/ingest/core/smtp_connection.h"

namespace sluice::ingest::testing {

// A client that never waits for its turn. Thread-safety: none.
class SmtpClient final : public SmtpConnection::Driver {
 public:
  SmtpClient(Ingest& ingest, sluice::testing::ManualExecutor& executor, std::string ip,
             std::string listener)
      : executor_(executor),
        connection_(ingest, {std::move(ip), "127.0.0.1", std::move(listener)}, *this) {
    connection_.Start();
    Drain();
  }
  // What comes back; stops where the session stops reading.
  std::string Say(std::string_view text) {
    heard_.clear();
    while (!text.empty() && session().wants_read()) {
      const std::string_view piece = text.substr(0, 60'000);
      session().OnBytes(executor_.clock().Now(), piece);
      text.remove_prefix(piece.size());
      Drain();
      executor_.RunPosted();
    }
    left_over_ = text.size();
    Drain();
    return heard_;
  }
  std::string Hear() { return HearAfter(Duration::zero()); }
  std::string HearAfter(Duration time) {
    heard_.clear();
    executor_.RunPosted();
    if (time > Duration::zero()) executor_.Advance(time);
    Drain();
    return heard_;
  }
  // Since the last call: with the greeting, where there was none.
  const std::string& heard() const { return heard_; }
  void OnWake() override { Drain(); }
  mail::SaslChannelBindings ChannelBindings() override { return bindings; }
  // Takes what the session has said by itself.
  void Drain() {
    const std::string_view output = session().output();
    heard_ += output;
    session().Sent(executor_.clock().Now(), output.size());
  }
  SmtpConnection& connection() { return connection_; }
  mail::SmtpServerSession& session() { return connection_.session(); }
  size_t left_over() const { return left_over_; }

  mail::SaslChannelBindings bindings;

 private:
  sluice::testing::ManualExecutor& executor_;
  std::string heard_;
  size_t left_over_ = 0;
  SmtpConnection connection_;
};

}  // namespace sluice::ingest::testing
