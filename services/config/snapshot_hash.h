// Hashes by which two ends tell that they have the same snapshot.
#pragma once

#include <cstdint>
#include <string>

#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// Of the content serialised deterministically; the same on every machine. Never 0. It tells
// versions of a section apart; it does not keep out forgers. Pure.
uint64_t HashContent(const policy::v1::SectionContent& content);
policy::v1::Section MakeSection(std::string name, policy::v1::SectionContent content);

// In order of name, which is the order that snapshots are kept in.
void SortSections(policy::v1::PolicySnapshot* snapshot);
// Of all (name, hash) pairs; the sections must be in order. Never 0.
uint64_t SectionsHash(const policy::v1::PolicySnapshot& snapshot);

}  // namespace sluice::config
