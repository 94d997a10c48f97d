#include "services/config/lexer.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxLineBytes = size_t{1} << 20;
constexpr size_t kShownBytes = 200;
constexpr size_t kMaxDiagnostics = 1'000;

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\f' || c == '\v'; }

// Elsewhere than in comments other bytes are refused: services exchange settings as UTF-8.
bool IsUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = Utf8Bytes(text, at);
    if (bytes == 0) return false;
    at += bytes;
  }
  return true;
}

class LineReader {
 public:
  LineReader(std::shared_ptr<const std::string> file, int line, std::string_view text,
             bool (*takes_regex)(std::string_view), std::vector<Diagnostic>* diagnostics)
      : file_(std::move(file)),
        line_(line),
        text_(text),
        takes_regex_(takes_regex),
        diagnostics_(diagnostics) {}

  // Tokens up to the comment or the end; nothing if the line cannot be read.
  std::optional<std::vector<Token>> Tokens() {
    std::vector<Token> tokens;
    size_t at = 0;
    bool regex = false;
    while (true) {
      while (at < text_.size() && IsBlank(text_[at])) ++at;
      if (at == text_.size() || text_[at] == '#') break;
      Token token;
      token.column = static_cast<int>(at) + 1;
      if (text_[at] == '/' && (tokens.empty() || regex)) {
        if (!ReadRegex(&at, &token)) return std::nullopt;
      } else if (!ReadToken(&at, &token)) {
        return std::nullopt;
      }
      if (!IsUtf8(token.text)) {
        Fail(static_cast<size_t>(token.column), "this is not UTF-8");
        return std::nullopt;
      }
      if (tokens.empty()) regex = takes_regex_(absl::AsciiStrToLower(token.text));
      tokens.push_back(std::move(token));
    }
    end_ = at;
    return tokens;
  }

  Location At(size_t column) const {
    return {file_, line_, static_cast<int>(column), std::string(text_.substr(0, kShownBytes))};
  }
  void Fail(size_t column, std::string message) {
    diagnostics_->push_back(
        {Diagnostic::Severity::kError, At(column), std::move(message), std::string()});
  }
  // Where the comment, or the end, is.
  size_t end() const { return end_; }

 private:
  // From one slash to the next that flags and a blank follow; \/ is a slash inside. What has no
  // such end is an ordinary token: a path.
  bool ReadRegex(size_t* at, Token* token) {
    const size_t start = *at;
    size_t i = start + 1;
    while (i < text_.size() && text_[i] != '\0') {
      if (text_[i] == '#') {
        Fail(i + 1, "a \"#\" starts a comment, and this regex has no end; write \\x23 for it");
        return false;
      }
      if (text_[i] == '\\' && i + 1 < text_.size()) {
        i += 2;
        continue;
      }
      if (text_[i++] != '/') continue;
      size_t end = i;
      while (end < text_.size() && absl::ascii_isalpha(text_[end])) ++end;
      if (end < text_.size() && !IsBlank(text_[end])) continue;
      token->text = std::string(text_.substr(start, end - start));
      token->regex = true;
      *at = end;
      return true;
    }
    return ReadToken(at, token);
  }

  // A token may have quoted parts: name="a b" is one.
  bool ReadToken(size_t* at, Token* token) {
    while (*at < text_.size() && !IsBlank(text_[*at]) && text_[*at] != '#') {
      const char c = text_[*at];
      if (c == '"') {
        const size_t opened = *at;
        token->quoted = true;
        ++*at;
        while (*at < text_.size() && text_[*at] != '"') {
          if (text_[*at] == '\\' && *at + 1 < text_.size() &&
              (text_[*at + 1] == '"' || text_[*at + 1] == '\\')) {
            ++*at;
          }
          token->text += text_[(*at)++];
        }
        if (*at == text_.size()) {
          Fail(opened + 1, "this quotation does not end in its line");
          return false;
        }
        ++*at;
      } else if (c == '\0') {
        Fail(*at + 1, "a NUL byte; is this a text file?");
        return false;
      } else {
        token->text += c;
        ++*at;
      }
    }
    return true;
  }

  std::shared_ptr<const std::string> file_;
  int line_;
  std::string_view text_;
  bool (*takes_regex_)(std::string_view);
  std::vector<Diagnostic>* diagnostics_;
  size_t end_ = 0;
};

// `<name argument...>` or `</name>`; the '>' is the last byte of the last token.
std::optional<Statement> ReadBorder(LineReader* reader, std::vector<Token> tokens) {
  Token& last = tokens.back();
  if (last.text.empty() || last.text.back() != '>' || (last.quoted && last.text == ">")) {
    reader->Fail(tokens.front().column, "a section line ends in \">\"");
    return std::nullopt;
  }
  last.text.pop_back();
  if (last.text.empty() && !last.quoted && tokens.size() > 1) tokens.pop_back();
  Statement statement;
  std::string name = tokens.front().text.substr(1);
  statement.kind = Statement::Kind::kOpen;
  if (!name.empty() && name.front() == '/') {
    statement.kind = Statement::Kind::kClose;
    name.erase(0, 1);
  }
  if (name.empty()) {
    reader->Fail(tokens.front().column, "a section needs a name right after \"<\"");
    return std::nullopt;
  }
  if (statement.kind == Statement::Kind::kClose && tokens.size() > 1) {
    reader->Fail(tokens[1].column, absl::StrCat("nothing may follow the name in </", name, ">"));
    return std::nullopt;
  }
  statement.name = absl::AsciiStrToLower(name);
  statement.where = reader->At(tokens.front().column);
  tokens.erase(tokens.begin());
  statement.arguments = std::move(tokens);
  return statement;
}

// One directive; true where it goes on in the next line.
bool FromLine(LineReader* reader, std::string_view content, std::vector<Token> tokens,
              Statement* statement) {
  statement->where = reader->At(static_cast<size_t>(tokens.front().column));
  if (tokens.front().regex) {
    statement->name.assign(1, '/');
  } else {
    statement->name = absl::AsciiStrToLower(tokens.front().text);
    tokens.erase(tokens.begin());
  }
  bool continues = false;
  if (!tokens.empty()) {
    const auto from = static_cast<size_t>(tokens.front().column) - 1;
    std::string_view rest = content.substr(from, reader->end() - from);
    while (!rest.empty() && IsBlank(rest.back())) rest.remove_suffix(1);
    statement->rest = std::string(rest);
    continues = !tokens.back().quoted && tokens.back().text.ends_with(',');
  }
  statement->arguments = std::move(tokens);
  return continues;
}

}  // namespace

Lexer::Lexer(std::shared_ptr<const std::string> file, int first_line, std::string_view text,
             bool (*takes_regex)(std::string_view name), std::vector<Diagnostic>* diagnostics)
    : file_(std::move(file)),
      line_(first_line),
      text_(text),
      takes_regex_(takes_regex),
      diagnostics_(diagnostics) {
  if (first_line == 1 && text_.substr(0, 3) == "\xEF\xBB\xBF") text_.remove_prefix(3);
}

void Lexer::TooLong(std::string_view content) {
  diagnostics_->push_back({Diagnostic::Severity::kError,
                           {file_, line_, 1, std::string(content.substr(0, kShownBytes))},
                           "a line has at most 1048576 bytes, with those that it goes on in",
                           ""});
}

std::optional<Statement> Lexer::Next() {
  const size_t before = diagnostics_->size();
  auto statement = Read();
  said_ += diagnostics_->size() - before;
  return statement;
}

std::optional<Statement> Lexer::Read() {
  const size_t before = diagnostics_->size();
  std::optional<Statement> statement;  // that goes on in the next line
  size_t bytes = 0;
  bool dropped = false;  // of a statement that is too long
  for (; !text_.empty(); ++line_) {
    const size_t end = text_.find('\n');
    std::string_view content = text_.substr(0, end);
    text_.remove_prefix(end == text_.npos ? text_.size() : end + 1);
    if (!content.empty() && content.back() == '\r') content.remove_suffix(1);
    // Nobody reads more of them.
    if (said_ + (diagnostics_->size() - before) > kMaxDiagnostics) text_ = {};
    std::optional<std::vector<Token>> tokens;
    LineReader reader(file_, line_, content, takes_regex_, diagnostics_);
    if (content.size() > kMaxLineBytes) {
      TooLong(content);
    } else {
      tokens = reader.Tokens();
    }
    // Blank lines and comments do not end a continued list; a line that cannot be read does.
    if (tokens && tokens->empty()) continue;
    if (statement) {
      const bool goes_on = tokens && tokens->back().text.ends_with(',');
      if (tokens && bytes + content.size() > kMaxLineBytes && !std::exchange(dropped, true)) {
        TooLong(content);
      }
      if (tokens && !dropped) bytes += Append(*tokens, content, &*statement) + content.size();
      if (goes_on) continue;
      ++line_;
      return statement;
    }
    if (!tokens) continue;
    if (tokens->front().text.starts_with('<') && !tokens->front().quoted) {
      auto border = ReadBorder(&reader, *std::move(tokens));
      if (!border) continue;
      ++line_;
      return border;
    }
    const bool continues = FromLine(&reader, content, *std::move(tokens), &statement.emplace());
    bytes = content.size();
    if (continues) continue;
    ++line_;
    return statement;
  }
  return statement;
}

size_t Lexer::Append(std::vector<Token>& tokens, std::string_view content, Statement* statement) {
  statement->more.emplace_back(line_, std::string(content.substr(0, kShownBytes)));
  for (Token& token : tokens) {
    absl::StrAppend(&statement->rest, token.text);
    token.more = statement->more.size();
    statement->arguments.push_back(std::move(token));
  }
  return tokens.size() * sizeof(Token) + sizeof(statement->more.front());
}

std::vector<Statement> LexPart(const std::shared_ptr<const std::string>& file, int first_line,
                               std::string_view text, bool (*takes_regex)(std::string_view name),
                               std::vector<Diagnostic>* diagnostics) {
  std::vector<Statement> statements;
  Lexer lexer(file, first_line, text, takes_regex, diagnostics);
  while (auto statement = lexer.Next()) statements.push_back(*std::move(statement));
  return statements;
}

}  // namespace sluice::config
