// Proves that two ends agree after a delta, or notice that they do not.
#include "services/config/snapshot_delta.h"

#include "gtest/gtest.h"
#include "services/config/snapshot_hash.h"

namespace sluice::config {
namespace {

policy::v1::PolicySnapshot Snapshot(uint64_t version,
                                    const std::vector<std::pair<std::string, int>>& domains) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(version);
  for (const auto& [pattern, connections] : domains) {
    policy::v1::SectionContent content;
    content.mutable_domain()->set_pattern(pattern);
    content.mutable_domain()->mutable_settings()->set_max_smtp_out(
        static_cast<uint32_t>(connections));
    *snapshot.add_sections() = MakeSection("domain/" + pattern, std::move(content));
  }
  SortSections(&snapshot);
  return snapshot;
}

TEST(SnapshotDeltaTest, OnlyWhatChangedIsSent) {
  const auto one = Snapshot(1, {{"a", 1}, {"b", 1}, {"c", 1}, {"e", 1}});
  const auto two = Snapshot(2, {{"b", 1}, {"c", 2}, {"d", 1}});
  const auto delta = MakeDelta(one, two);
  ASSERT_EQ(delta.changed_size(), 2);
  EXPECT_EQ(delta.changed(0).name(), "domain/c");
  EXPECT_EQ(delta.changed(1).name(), "domain/d");
  EXPECT_EQ(delta.removed_size(), 2);
  const auto got = ApplyDelta(one, delta);
  ASSERT_TRUE(got.ok()) << got.status().message();
  EXPECT_EQ(got->SerializeAsString(), two.SerializeAsString());
}

TEST(SnapshotDeltaTest, EverythingReplacesWhateverIsThere) {
  const auto two = Snapshot(2, {{"b", 1}});
  const auto got = ApplyDelta(Snapshot(7, {{"x", 1}}), MakeDelta({}, two));
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->SerializeAsString(), two.SerializeAsString());
}

TEST(SnapshotDeltaTest, WhatDoesNotFitIsRefused) {
  const auto one = Snapshot(1, {{"a", 1}});
  const auto two = Snapshot(2, {{"a", 1}, {"b", 1}});
  EXPECT_FALSE(ApplyDelta(Snapshot(3, {{"a", 1}}), MakeDelta(one, two)).ok());
  // The same version with another content.
  EXPECT_FALSE(ApplyDelta(Snapshot(1, {{"z", 1}}), MakeDelta(one, two)).ok());
  auto broken = MakeDelta(one, two);
  broken.mutable_changed(0)->mutable_content()->mutable_domain()->set_pattern("x");
  EXPECT_FALSE(ApplyDelta(one, broken).ok());
}

TEST(SnapshotDeltaTest, PartsMakeTheWhole) {
  std::vector<std::pair<std::string, int>> domains;
  for (int i = 0; i < 500; ++i) domains.emplace_back("domain-" + std::to_string(i), i);
  const auto target = Snapshot(2, domains);
  const auto chunks = SplitDelta(MakeDelta({}, target), 1000);
  EXPECT_GT(chunks.size(), 10u);
  policy::v1::SnapshotDelta whole = chunks[0];
  for (size_t i = 0; i < chunks.size(); ++i) {
    EXPECT_LE(chunks[i].ByteSizeLong(), 1000u);
    EXPECT_EQ(chunks[i].version(), 2u);
    if (i > 0) whole.mutable_changed()->MergeFrom(chunks[i].changed());
  }
  const auto got = ApplyDelta({}, whole);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(SectionsHash(*got), SectionsHash(target));
  EXPECT_EQ(SplitDelta(MakeDelta(target, target), 1000).size(), 1u);
}

}  // namespace
}  // namespace sluice::config
