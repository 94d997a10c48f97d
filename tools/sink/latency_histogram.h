// Percentiles of durations in constant memory.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace sluice::sink {

// Buckets grow with the value, so that each is within 1/64 (1.6 %) of what it stands for; from one
// microsecond to 2^40 (12 days). Thread-safety: none.
class LatencyHistogram {
 public:
  // Negative values count as zero.
  void Record(int64_t us) {
    uint64_t value = us < 0 ? 0 : static_cast<uint64_t>(us);
    ++buckets_[IndexOf(value)];
    ++count_;
    sum_us_ += value;
    if (value > max_us_) max_us_ = value;
  }

  void Merge(const LatencyHistogram& other) {
    for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    sum_us_ += other.sum_us_;
    if (other.max_us_ > max_us_) max_us_ = other.max_us_;
  }

  // The value that `share` (0 to 1) of the records do not exceed; zero without records.
  uint64_t PercentileUs(double share) const {
    uint64_t rank = static_cast<uint64_t>(share * static_cast<double>(count_));
    if (rank >= count_ && count_ > 0) rank = count_ - 1;
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > rank) {
        uint64_t upper = UpperOf(i);
        return upper < max_us_ ? upper : max_us_;
      }
    }
    return 0;
  }
  uint64_t count() const { return count_; }
  uint64_t max_us() const { return max_us_; }
  double mean_us() const {
    return count_ == 0 ? 0 : static_cast<double>(sum_us_) / static_cast<double>(count_);
  }

 private:
  static constexpr int kSubBits = 6;
  static constexpr uint64_t kSub = uint64_t{1} << kSubBits;
  static constexpr int kMaxBits = 40;
  static constexpr size_t kBuckets = (kMaxBits - kSubBits + 1) * kSub;

  static size_t IndexOf(uint64_t value) {
    if (value < kSub) return value;
    int shift = std::bit_width(value) - 1 - kSubBits;
    if (shift >= kMaxBits - kSubBits) return kBuckets - 1;
    return static_cast<size_t>(shift + 1) * kSub + ((value >> shift) - kSub);
  }
  static uint64_t UpperOf(size_t index) {
    if (index < kSub) return index;
    int shift = static_cast<int>(index / kSub) - 1;
    return ((index % kSub + kSub + 1) << shift) - 1;
  }

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t sum_us_ = 0;
  uint64_t max_us_ = 0;
};

}  // namespace sluice::sink
