// The outbox: one record of events a commit, kept for a time and a size, dropped by whole
// stretches that nobody has to read for that.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"

namespace sluice::queue {
namespace {

// A stretch is closed after this many bytes, or that part of what is kept, or this long.
constexpr uint64_t kSegmentBytes = uint64_t{16} << 20;
constexpr uint64_t kSegmentsKept = 16;
constexpr int64_t kSegmentUs = 60'000'000;
// Of records read in one turn.
constexpr size_t kBytesPerTurn = size_t{1} << 20;
constexpr int kTurnsPerRead = 256;

uint64_t KeepBytes(const config::PolicyView& policy, const ShardOptions& options) {
  const uint64_t said = policy.global().events_keep_bytes();
  return said > 0 ? said : options.events_keep_bytes;
}

std::string SegmentKey(uint64_t first) { return "E" + U64Key(first); }

bool Parse(std::string_view text, v1::EventBatch* record) {
  return record->ParseFromArray(text.data(), static_cast<int>(text.size()));
}

}  // namespace

void Shard::PutSegment(const Segment& segment) {
  v1::OutboxSegmentRow row;
  row.set_next_sequence(segment.next);
  row.set_last_time_us(segment.last_time_us);
  row.set_bytes(segment.bytes);
  row.set_events(segment.events);
  journal_.batch().Put(Family::kMeta, SegmentKey(segment.first), row.SerializeAsString());
  outbox_bytes_ += segment.bytes;
  segments_.push_back(segment);
}

// At start: the closed stretches from their rows, and what came after the last of them.
void Shard::LoadOutbox() {
  auto rows = store_.Scan(Family::kMeta, "E", "F", false);
  for (; rows->Valid(); rows->Next()) {
    v1::OutboxSegmentRow row;
    if (rows->key().size() != 9 ||
        !row.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
      NoteDamage(Family::kMeta, rows->key(), "a stretch of the outbox cannot be read");
      continue;
    }
    segments_.push_back({ReadU64(rows->key(), 1), row.next_sequence(), row.last_time_us(),
                         row.bytes(), row.events()});
    outbox_bytes_ += row.bytes();
  }
  Segment rest;
  rest.first = segments_.empty() ? first_sequence_ : segments_.back().next;
  auto records = store_.Scan(Family::kEvents, U64Key(rest.first), "", false);
  for (; records->Valid(); records->Next()) {
    v1::EventBatch record;
    rest.next = ReadU64(records->key(), 0) + 1;
    rest.bytes += records->value().size();
    if (!Parse(records->value(), &record) || record.events().empty()) continue;
    rest.events += static_cast<uint64_t>(record.events_size());
    rest.last_time_us = record.events(0).time_us();
  }
  if (rest.bytes > 0) PutSegment(rest);
  open_first_ = journal_.next_sequence();
  open_since_us_ = NowUs();
}

void Shard::CloseOutboxSegment() {
  const uint64_t bytes = journal_.event_bytes_total() - open_bytes_before_;
  const uint64_t full = std::min(kSegmentBytes, KeepBytes(*policy_, options_) / kSegmentsKept);
  if (bytes == 0 || (bytes < full && NowUs() - open_since_us_ < kSegmentUs)) return;
  PutSegment({open_first_, journal_.next_sequence(), NowUs(), bytes,
              journal_.events_total() - open_events_before_});
  open_first_ = journal_.next_sequence();
  open_since_us_ = NowUs();
  open_bytes_before_ = journal_.event_bytes_total();
  open_events_before_ = journal_.events_total();
}

void Shard::TrimEvents() {
  const auto& global = policy_->global();
  const int64_t keep_us =
      global.events_keep_us() > 0 ? global.events_keep_us() : options_.events_keep.count();
  const uint64_t keep_bytes = KeepBytes(*policy_, options_);
  const int64_t oldest_us = NowUs() - keep_us;
  while (!segments_.empty() &&
         (segments_.front().last_time_us < oldest_us || outbox_bytes_ > keep_bytes)) {
    const Segment& segment = segments_.front();
    journal_.batch().DeleteRange(Family::kEvents, U64Key(first_sequence_), U64Key(segment.next));
    journal_.batch().Delete(Family::kMeta, SegmentKey(segment.first));
    first_sequence_ = segment.next;
    outbox_bytes_ -= segment.bytes;
    stats_.events_dropped += segment.events;
    segments_.pop_front();
  }
}

struct Shard::EventReading {
  v1::ReadEventsRequest request;
  Done<v1::ReadEventsResponse> done;
  v1::ReadEventsResponse response;
  int limit = 0;
  int turns = 0;
};

void Shard::ReadEvents(v1::ReadEventsRequest request, Done<v1::ReadEventsResponse> done) {
  constexpr uint32_t kDefaultEvents = 1000;
  constexpr uint32_t kMostEvents = 10'000;
  auto reading = std::make_shared<EventReading>();
  reading->limit = static_cast<int>(request.limit() == 0 ? kDefaultEvents
                                                         : std::min(request.limit(), kMostEvents));
  uint64_t from = std::max(request.from_sequence(), first_sequence_);
  if (const std::string& id = request.message_id(); id.size() == 16) {
    // Nothing of a message is older than its id, which begins with the time in milliseconds.
    const auto since_us = static_cast<int64_t>((ReadU64(id, 0) >> 16) * 1000) - kSegmentUs;
    for (const Segment& segment : segments_) {
      if (segment.last_time_us >= since_us) break;
      from = std::max(from, segment.next);
    }
  }
  reading->response.set_first_sequence(first_sequence_);
  reading->response.set_next_sequence(from);
  reading->request = std::move(request);
  reading->done = std::move(done);
  ReadMoreEvents(std::move(reading));
}

void Shard::ReadMoreEvents(std::shared_ptr<EventReading> reading) {
  v1::ReadEventsResponse& response = reading->response;
  const std::string& wanted = reading->request.message_id();
  size_t bytes = 0;
  auto rows = store_.Scan(Family::kEvents, U64Key(response.next_sequence()), "", false);
  for (; rows->Valid() && bytes < kBytesPerTurn && response.events_size() < reading->limit;
       rows->Next()) {
    bytes += rows->value().size() + 64;
    v1::EventBatch record;
    if (rows->key().size() != 8) continue;
    const uint64_t sequence = ReadU64(rows->key(), 0);
    response.set_next_sequence(sequence + 1);
    if (!Parse(rows->value(), &record)) {
      NoteDamage(Family::kEvents, rows->key(),
                 absl::StrCat("the events of sequence ", sequence, " cannot be read"));
      if (response.damaged_sequences_size() < reading->limit)
        response.add_damaged_sequences(sequence);
      continue;
    }
    uint32_t position = 0;
    for (common::v1::Event& event : *record.mutable_events()) {
      std::string id = U64Key(sequence);
      AppendU32(id, position++);
      event.set_id(id + options_.name);
      if (!wanted.empty() && event.message_id() != wanted) continue;
      *response.add_events() = std::move(event);
    }
  }
  if (rows->Valid() && response.events_size() < reading->limit &&
      ++reading->turns < kTurnsPerRead) {
    rows.reset();
    PostTask(
        [this, reading = std::move(reading)]() mutable { ReadMoreEvents(std::move(reading)); });
    return;
  }
  response.set_more(rows->Valid());
  reading->done(std::move(response));
}

}  // namespace sluice::queue
