#include "services/config/compile_cache.h"

#include <utility>

namespace sluice::config {
namespace {
constexpr size_t kMaxLines = 200;
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

std::string CompileCache::KeyOf(const std::vector<Statement>& statements, size_t open, size_t end) {
  std::string key;
  // Lengths in front, so that no text can look like a border.
  const auto add = [&key](std::string_view text, char kind) {
    const auto size = static_cast<uint32_t>(text.size());
    key.append(reinterpret_cast<const char*>(&size), sizeof(size));
    key += kind;
    key += text;
  };
  for (size_t i = open; i < end; ++i) {
    add(statements[i].name, 'n');
    for (const Token& token : statements[i].arguments) {
      add(token.text, token.regex ? 'r' : token.quoted ? 'q' : 't');
    }
  }
  return key;
}

const CompileCache::Entry* CompileCache::Find(const std::string& key) const {
  const auto found = last_.find(key);
  return found == last_.end() ? nullptr : &found->second;
}

CompileCache::Entry* CompileCache::FindKept(const std::string& key) {
  const auto found = next_.find(key);
  return found == next_.end() ? nullptr : &found->second;
}

void CompileCache::Turn() {
  last_ = std::move(next_);
  next_.clear();
}

}  // namespace sluice::config
