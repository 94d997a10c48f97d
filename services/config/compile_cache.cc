#include "services/config/compile_cache.h"

#include <string_view>
#include <utility>

namespace sluice::config {
namespace {

constexpr size_t kMaxLines = 200;

// FNV-1a.
void Mix(std::string_view text, uint64_t* hash) {
  for (const char c : text) {
    *hash = (*hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
}

}  // namespace

std::optional<size_t> CompileCache::EndOf(const std::vector<Statement>& statements, size_t open) {
  const Statement& first = statements[open];
  if (first.kind != Statement::Kind::kOpen || first.name != "domain" ||
      first.arguments.size() != 1 || first.arguments[0].text.starts_with('$')) {
    return std::nullopt;
  }
  for (size_t i = open + 1; i < statements.size() && i - open <= kMaxLines; ++i) {
    const Statement& statement = statements[i];
    if (statement.kind == Statement::Kind::kOpen || statement.name == "include") {
      return std::nullopt;
    }
    if (statement.kind == Statement::Kind::kClose) {
      return statement.name == "domain" ? std::optional(i) : std::nullopt;
    }
  }
  return std::nullopt;
}

uint64_t CompileCache::FingerprintOf(const std::vector<Statement>& statements, size_t open,
                                     size_t end) {
  uint64_t hash = 0xcbf29ce484222325;
  // A size in front of each text, so that none can look like a border.
  const auto add = [&hash](std::string_view text, uint64_t kind) {
    hash = (hash ^ (text.size() * 4 + kind)) * 0x100000001b3;
    Mix(text, &hash);
  };
  for (size_t i = open; i < end; ++i) {
    add(statements[i].name, 0);
    for (const Token& token : statements[i].arguments) {
      add(token.text, token.regex ? 1 : token.quoted ? 2 : 3);
    }
  }
  return hash;
}

const CompileCache::Entry* CompileCache::Take(const std::string& pattern, uint64_t fingerprint) {
  const auto found = last_.find(pattern);
  if (found == last_.end() || found->second->fingerprint != fingerprint ||
      found->second->section.name().empty()) {
    return nullptr;
  }
  const Entry* const entry = found->second.get();
  next_.insert_or_assign(pattern, std::move(found->second));
  last_.erase(found);
  return entry;
}

CompileCache::Entry* CompileCache::Keep(const std::string& pattern, Entry entry) {
  auto& place = next_[pattern];
  place = std::make_unique<Entry>(std::move(entry));
  return place.get();
}

void CompileCache::Turn() {
  last_ = std::move(next_);
  next_.clear();
}

}  // namespace sluice::config
