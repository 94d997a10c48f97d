// What this worker's limits on bytes have used up over its restarts. A volume counts whole messages
// in a window, so what is not known must count as all of it, and mail would stand still for one
// period after each start. A worker that ends in good order leaves what it knows to the next one;
// after a kill nothing is known, and the limit comes before the mail.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

int64_t Micros(MonotonicTime time) { return time.time_since_epoch().count(); }

// `promise`: of one that goes on, by the ledger.
void Add(const std::string& key, const VolumeWindow* volume, MonotonicTime now,
         const VolumeWindow::Promise* promise, v1::VolumeRecords* records) {
  if (volume == nullptr || !volume->limited()) return;
  const uint64_t unsettled = promise == nullptr ? 0 : promise->unsettled;
  if (volume->Rested(now) && unsettled == 0) return;
  const VolumeWindow::Record record = volume->RecordOf(now, promise == nullptr);
  v1::VolumeRecord* const written = records->add_records();
  written->set_unsettled_bytes(unsettled);
  written->set_key(key);
  written->set_period_us(record.period.count());
  written->set_paid_until_us(Micros(record.paid_until));
  for (const auto& [when, bytes] : record.sent) {
    written->add_sent_us(Micros(when));
    written->add_sent_bytes(bytes);
  }
}

}  // namespace

void Worker::TakeOverVolumes(const v1::VolumeRecords& records) {
  const MonotonicTime now = executor_.clock().Now();
  if (records.written_us() > Micros(now)) return;  // of another boot
  knows_past_ = true;
  if (records.running()) short_unknown_until_ = now;
  past_epoch_ = records.owners_epoch();
  unknown_until_ = MonotonicTime(Duration(records.unknown_until_us()));
  for (const v1::VolumeRecord& written : records.records()) {
    if (records.running() && Duration(written.period_us()) < options_.ledger_from) continue;
    VolumeWindow::Record& record = past_volumes_[written.key()];
    record.period = Duration(written.period_us());
    record.paid_until = MonotonicTime(Duration(written.paid_until_us()));
    const int count = std::min(written.sent_us_size(), written.sent_bytes_size());
    for (int i = 0; i < count; ++i) {
      record.sent.emplace_back(MonotonicTime(Duration(written.sent_us(i))), written.sent_bytes(i));
    }
    if (written.unsettled_bytes() > 0) record.sent.emplace_back(now, written.unsettled_bytes());
  }
}

v1::VolumeRecords Worker::Volumes() const { return VolumesWith({}); }

v1::VolumeRecords Worker::VolumesWith(const VolumePromises& promises) const {
  const auto promise = [&promises](const std::string& key) -> const VolumeWindow::Promise* {
    const auto found = promises.find(key);
    return found == promises.end() ? nullptr : &found->second;
  };
  const MonotonicTime now = executor_.clock().Now();
  v1::VolumeRecords records;
  records.set_written_us(Micros(now));
  records.set_unknown_until_us(Micros(unknown_until_));
  if (owners_ != nullptr) records.set_owners_epoch(owners_->epoch());
  EachVolume([&](const std::string& key, const VolumeWindow& volume) {
    Add(key, &volume, now, promise(key), &records);
  });
  // Nothing was sent of these, but the next one must not forget them either.
  for (const auto& [key, record] : past_volumes_) {
    VolumeWindow window;
    const uint64_t any = uint64_t{1} << 62;
    window.Limit(now, any, record.period);
    window.TakeOver(record, {});
    Add(key, &window, now, nullptr, &records);
  }
  return records;
}

// A limit begins to be counted.
void Worker::FirstVolume(const std::string& key, VolumeWindow* volume) {
  const auto past = past_volumes_.find(key);
  if (past == past_volumes_.end()) {
    const bool unknown = volume->period() < options_.ledger_from;
    volume->Exhaust(unknown ? std::max(unknown_until_, short_unknown_until_) : unknown_until_);
    return;
  }
  volume->TakeOver(past->second, unknown_until_);
  past_volumes_.erase(past);
}

std::string Worker::WhyPart(const SourcePart& part, const RateCap& cap, MonotonicTime now) {
  const std::string limit = absl::StrCat(cap.ToString(), " (", part.source->ip, ")");
  return &cap == &part.caps.volume ? WhyVolume(limit, *part.pace.volume, now) : limit;
}

std::string Worker::WhyVolume(const std::string& limit, const VolumeWindow& volume,
                              MonotonicTime now) {
  if (!volume.waits_for_unknown(now)) return limit;
  return absl::StrCat(limit,
                      ", counted as used up: what was sent before this worker began is not "
                      "known");
}

}  // namespace sluice::delivery
