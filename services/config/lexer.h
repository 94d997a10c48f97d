// Cuts the text of one directive file into directives and section borders.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/diagnostic.h"

namespace sluice::config {

struct Token {
  std::string text;  // without quotes
  bool quoted = false;
  bool regex = false;  // text is /.../flags as written
  int column = 0;      // from 1
  size_t more = 0;     // of Statement::more, from 1; 0: in the statement's first line
};

// One directive, `<name argument>` or `</name>`.
struct Statement {
  enum class Kind { kDirective, kOpen, kClose };
  Kind kind = Kind::kDirective;
  std::string name;  // lower case; "/" where the line begins with a regex
  std::vector<Token> arguments;
  Location where;  // of the name
  // What follows the name, as written, without comment and outer blanks.
  std::string rest;
  std::vector<std::pair<int, std::string>> more;  // lines that it goes on in: number and text

  Location At(const Token& token) const {
    Location at = where;
    at.column = token.column;
    if (token.more > 0) {
      // Nothing is shown of a line that is not to be shown.
      if (token.more > more.size()) return where;
      at.line = more[token.more - 1].first;
      at.line_text = more[token.more - 1].second;
    }
    return at;
  }
};

// `#` outside quotes starts a comment; LF and CRLF end lines; a byte order mark at the
// start is skipped; double quotes group, with \" and \\ inside; a line that ends in a comma goes on
// in the next one. Where `takes_regex` says so of the name, and at the start of a line, /.../flags
// is one token, quotes and blanks included. Lines over 1 MiB, and what is not UTF-8 outside of
// comments, are refused. What cannot be read becomes a diagnostic and its line is left out. Takes
// any bytes. Memory: of one statement. Lifetime: text and diagnostics outlive it.
class Lexer {
 public:
  // Of whole lines of a file, of which `first_line` is the first one's number.
  Lexer(std::shared_ptr<const std::string> file, int first_line, std::string_view text,
        bool (*takes_regex)(std::string_view name), std::vector<Diagnostic>* diagnostics);
  // Nothing: the end.
  std::optional<Statement> Next();

 private:
  std::optional<Statement> Read();
  void TooLong(std::string_view content);
  size_t Append(std::vector<Token>& tokens, std::string_view content, Statement* statement);

  const std::shared_ptr<const std::string> file_;
  int line_;
  std::string_view text_;
  bool (*takes_regex_)(std::string_view);
  std::vector<Diagnostic>* diagnostics_;
  size_t said_ = 0;  // diagnostics of this lexer
};

// All of them. Pure.
std::vector<Statement> LexPart(const std::shared_ptr<const std::string>& file, int first_line,
                               std::string_view text, bool (*takes_regex)(std::string_view name),
                               std::vector<Diagnostic>* diagnostics);
inline std::vector<Statement> Lex(std::string_view file, std::string_view text,
                                  bool (*takes_regex)(std::string_view name),
                                  std::vector<Diagnostic>* diagnostics) {
  return LexPart(std::make_shared<const std::string>(file), 1, text, takes_regex, diagnostics);
}

}  // namespace sluice::config
