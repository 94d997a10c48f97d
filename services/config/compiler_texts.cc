// Directives that are texts or name files of text: templates of delivery reports, header lines for
// every message, domains that are resolved ahead, users.
#include <algorithm>
#include <filesystem>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "services/base/utf8.h"
#include "services/config/compiler_auth.h"
#include "services/config/compiler_impl.h"
#include "services/config/setter.h"
#include "services/config/text_grammar.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxTextBytes = 32 * 1024;
constexpr size_t kMaxLineBytes = 998;
// What services/mail/dsn.h knows.
constexpr std::string_view kDsnVariables[] = {"sender",     "recipient", "status",
                                              "diagnostic", "host",      "remote",
                                              "envid",      "subject",   "postmaster"};

// The first variable of `text` that a report does not know.
std::string UnknownVariable(std::string_view text) {
  for (size_t begin = text.find("${"); begin != text.npos; begin = text.find("${", begin + 2)) {
    const size_t end = text.find('}', begin);
    if (end == text.npos) return std::string(text.substr(begin + 2, 20));
    const std::string_view name = text.substr(begin + 2, end - begin - 2);
    if (std::find(std::begin(kDsnVariables), std::end(kDsnVariables), name) ==
        std::end(kDsnVariables)) {
      return std::string(name.substr(0, 40));
    }
  }
  return "";
}

std::vector<std::string> LinesOf(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.emplace_back(line);
  }
  return lines;
}

// A From field: an address, or a name and <address>. Variables stand for what they may be.
bool IsFrom(std::string text) {
  for (size_t begin = text.find("${"); begin != text.npos; begin = text.find("${")) {
    const size_t end = text.find('}', begin);
    if (end == text.npos) return false;
    const std::string name = text.substr(begin + 2, end - begin - 2);
    const bool address = name == "sender" || name == "recipient" || name == "postmaster";
    text.replace(begin, end + 1 - begin, address ? "x@x.test" : name == "host" ? "x.test" : "x");
  }
  const size_t open = text.rfind('<');
  if (open == text.npos) return ParseEmail(text).has_value();
  return text.ends_with('>') &&
         ParseEmail(std::string_view(text).substr(open + 1, text.size() - open - 2)).has_value();
}

}  // namespace

std::optional<std::string> Compiler::ReadTextFile(const Statement& statement, size_t max_bytes) {
  const Location where = statement.At(statement.arguments[0]);
  std::filesystem::path path(statement.arguments[0].text);
  if (path.is_relative()) {
    path = std::filesystem::path(*statement.where.file).parent_path() / path;
  }
  const std::string name = path.lexically_normal().string();
  if (!NoteBytes(0, where)) return std::nullopt;
  auto text = files_.Read(name);
  if (!text.ok()) NoteUnread(text.status(), where);
  if (text.ok() && !NoteBytes(text->size(), where)) return std::nullopt;
  std::string problem;
  if (!text.ok()) {
    problem = std::string(text.status().message());
  } else if (text->size() > max_bytes) {
    problem = absl::StrCat("larger than ", max_bytes / 1024, " KiB");
  } else if (!IsUtf8(*text)) {
    problem = "it is not UTF-8";
  } else {
    return *std::move(text);
  }
  Say(Accepted(statement.name) ? Severity::kWarning : Severity::kError, where,
      absl::StrCat("\"", name, "\": ", problem));
  return std::nullopt;
}

void Compiler::ReadAuthFile(const Statement& statement, const Frame& frame) {
  if (statement.arguments.size() != 1 || statement.arguments[0].text.empty()) return;
  const Location where = statement.At(statement.arguments[0]);
  std::filesystem::path path(statement.arguments[0].text);
  if (path.is_relative()) {
    path = std::filesystem::path(*statement.where.file).parent_path() / path;
  }
  const std::string name = path.lexically_normal().string();
  for (auto* settings : frame.clients) settings->set_auth_plain(name);
  if (draft_.auth_files.contains(name)) return;
  if (!NoteBytes(0, where)) return;
  const auto text = files_.Read(name);
  if (!text.ok()) {
    NoteUnread(text.status(), where);
    // Doing without it is safe, where somebody has said so: nobody gets in.
    return Say(Accepted(statement.name) ? Severity::kWarning : Severity::kError, where,
               absl::StrCat("\"", name, "\": ", std::string(text.status().message())));
  }
  if (!NoteBytes(text->size(), where)) return;
  policy::v1::AuthFileSection section;
  section.set_name(name);
  if (const auto error = ParseAuthFile(*text, &section)) {
    return Say(Severity::kError, where,
               absl::StrCat("\"", name, "\" line ", error->line, ": ", error->message));
  }
  draft_.auth_files.emplace(name, std::move(section));
}

void Compiler::ReadDsnTemplate(const Directive& directive, const Statement& statement) {
  policy::v1::GlobalSettings& settings = *draft_.global.mutable_settings();
  if (statement.arguments.size() != 1) {
    return Say(Severity::kError, statement.where, SyntaxMessage(directive));
  }
  const Token& token = statement.arguments[0];
  const bool is_file = directive.grammar == Grammar::kFile;
  std::string text = token.text;
  if (is_file && !text.empty()) {
    auto content = ReadTextFile(statement, kMaxTextBytes);
    if (!content) return;
    text = *std::move(content);
  } else if (text.size() > kMaxLineBytes - 100) {
    return Say(Severity::kError, statement.At(token), "this is too long for a header field");
  } else if (HasControls(text)) {
    return Say(Severity::kError, statement.At(token), "control characters are not allowed here");
  }
  if (const std::string variable = UnknownVariable(text); !variable.empty()) {
    return Say(Severity::kError, statement.At(token),
               absl::StrCat("a report has no ${", variable,
                            "}; it has ${sender}, ${recipient}, ${status}, ${diagnostic}, ${host}, "
                            "${remote}, ${envid}, ${subject} and ${postmaster}"));
  }
  if (directive.name.find("from-") != directive.name.npos && !is_file && !text.empty() &&
      !IsFrom(text)) {
    return Say(Severity::kError, statement.At(token),
               "this is no From field; \"Name <address@example.com>\" is");
  }
  const char* const field = is_file ? "dsn_failed_body_template"
                            : directive.name == "custom-dsn-from-header" ? "custom_dsn_from_header"
                            : directive.name == "dsn-failed-from-template"
                                ? "dsn_failed_from_template"
                                : "dsn_failed_subject_template";
  settings.GetReflection()->SetString(&settings, settings.GetDescriptor()->FindFieldByName(field),
                                      std::move(text));
  KeepFieldOrigin(field, statement, settings);
}

// The lines of the file that the first argument names, without empty ones; none for "".
std::optional<std::vector<std::string>> Compiler::ReadHeaderLines(const Directive& directive,
                                                                  const Statement& statement,
                                                                  bool may_fold) {
  std::vector<std::string> header;
  if (statement.arguments.size() != 1) {
    Say(Severity::kError, statement.where, SyntaxMessage(directive));
    return std::nullopt;
  }
  if (statement.arguments[0].text.empty()) return header;
  const auto text = ReadTextFile(statement, kMaxTextBytes);
  if (!text) return std::nullopt;
  size_t number = 0;
  for (std::string& line : LinesOf(*text)) {
    ++number;
    if (line.empty()) continue;
    const bool folded =
        may_fold && (line.front() == ' ' || line.front() == '\t') && !header.empty();
    const size_t colon = line.find(':');
    const bool clean = std::all_of(line.begin(), line.end(), [](char c) {
      return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
    });
    if (!clean || line.size() > kMaxLineBytes ||
        (!folded && (colon == line.npos || !ParseHeaderName(line.substr(0, colon))))) {
      Say(Severity::kError, statement.At(statement.arguments[0]),
          absl::StrCat("\"", statement.arguments[0].text, "\" line ", number,
                       ": this is no header field"));
      return std::nullopt;
    }
    header.push_back(std::move(line));
  }
  return header;
}

// The lines of a header as they go into messages; "" takes away what a more general place said.
void Compiler::ReadHeaderFile(const Directive& directive, const Statement& statement,
                              const Frame& frame) {
  const auto lines = ReadHeaderLines(directive, statement, /*may_fold=*/true);
  if (!lines) return;
  std::string header;
  for (const std::string& line : *lines) absl::StrAppend(&header, line, "\r\n");
  google::protobuf::Message* message = draft_.global.mutable_settings();
  if (frame.vmta != nullptr) message = &frame.vmta->section;
  if (frame.pool != nullptr) message = &frame.pool->section;
  message->GetReflection()->SetString(
      message, message->GetDescriptor()->FindFieldByName("include_headers"), std::move(header));
  KeepFieldOrigin("include_headers", statement, *message);
}

// More of http-delivery-header; "" takes away what a more general place said.
void Compiler::ReadHttpHeaderFile(const Directive& directive, const Statement& statement,
                                  const Frame& frame) {
  const auto lines = ReadHeaderLines(directive, statement, /*may_fold=*/false);
  if (!lines) return;
  candidate_.reset();  // the same text may mean another file's lines tomorrow
  constexpr int kField = policy::v1::QueueSettings::kHttpDeliveryHeadersFieldNumber;
  for (auto* const settings : frame.queues) {
    if (options_.keep_origins) {
      draft_.origins[settings][kField] = {statement.where.file, statement.where.line};
    }
    auto* const fields = settings->mutable_http_delivery_headers();
    if (lines->empty()) fields->clear_values();
    for (const std::string& line : *lines) fields->add_values(line);
  }
}

void Compiler::ReadDomainFile(const Directive& directive, const Statement& statement) {
  if (statement.arguments.size() != 1 || statement.arguments[0].text.empty()) {
    return Say(Severity::kError, statement.where, SyntaxMessage(directive));
  }
  const auto text = ReadTextFile(statement, 1 << 20);
  if (!text) return;
  auto* const domains = draft_.global.mutable_settings()->mutable_precached_domains();
  domains->clear_values();
  KeepFieldOrigin("precached_domains", statement, draft_.global.settings());
  size_t number = 0;
  for (std::string line : LinesOf(*text)) {
    ++number;
    line.resize(std::min(line.find('#'), line.size()));
    for (const std::string& name : SplitList(line)) {
      const auto domain = ParseHostName(name);
      if (!domain) {
        return Say(Severity::kError, statement.At(statement.arguments[0]),
                   absl::StrCat("\"", statement.arguments[0].text, "\" line ", number,
                                ": this is no domain"));
      }
      domains->add_values(*domain);
    }
  }
}

// What the sender of a message becomes: whole addresses, and domains.
void Compiler::AddRewrite(const Directive& directive, const Statement& statement,
                          policy::v1::RewriteListSection* list) {
  constexpr int kMostLines = 100'000;
  const bool address = directive.name == "mail-from";
  if (statement.arguments.size() != 2) {
    return Say(Severity::kError, statement.where, SyntaxMessage(directive));
  }
  std::string names[2];
  for (size_t i = 0; i < 2; ++i) {
    const Token& token = statement.arguments[i];
    const auto name = address ? ParseEmail(token.text) : ParseHostName(token.text);
    if (!name) {
      return Say(Severity::kError, statement.At(token),
                 absl::StrCat("\"", token.text.substr(0, 80), "\" is no ",
                              address ? "address" : "domain"));
    }
    names[i] = *name;
  }
  auto& entries = *(address ? list->mutable_mail_from() : list->mutable_from_domain());
  if (entries.size() >= kMostLines) {
    return Say(Severity::kError, statement.where, "a list has at most 100000 lines");
  }
  for (char& c : names[0]) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (!entries.insert({names[0], names[1]}).second) {
    Say(Severity::kWarning, statement.At(statement.arguments[0]),
        "an earlier line is about this one: it counts");
  }
}

}  // namespace sluice::config
