#include "services/config/assertions.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/base/net/ip_address.h"
#include "services/config/lexer.h"
#include "services/config/policy_view.h"
#include "services/config/printer.h"
#include "services/config/registry.h"
#include "services/config/setter.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string_view Strip(std::string_view text) {
  while (!text.empty() && absl::ascii_isspace(text.front())) text.remove_prefix(1);
  while (!text.empty() && absl::ascii_isspace(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words;
  for (const auto word : absl::StrSplit(absl::string_view(text.data(), text.size()),
                                        absl::ByAnyChar(" \t"), absl::SkipEmpty())) {
    words.emplace_back(word);
  }
  return words;
}

// As in directive files: a "#" in quotes begins none.
std::string_view WithoutComment(std::string_view line) {
  bool quoted = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"') quoted = !quoted;
    if (line[i] == '\\' && quoted) ++i;
    if (line[i] == '#' && !quoted) return line.substr(0, i);
  }
  return line;
}

// What can be less or more; nothing for texts and lists.
std::optional<double> NumberOf(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64:
      return static_cast<double>(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_MESSAGE: {
      const auto* const rate =
          dynamic_cast<const policy::v1::Rate*>(&reflection.GetMessage(message, &field));
      if (rate == nullptr) return std::nullopt;
      if (rate->unlimited()) return std::numeric_limits<double>::infinity();
      return static_cast<double>(rate->count()) / static_cast<double>(rate->period_us());
    }
    default:
      return std::nullopt;
  }
}

// Where 0, or another number, is no limit, it is the largest value of all.
double Limit(const Directive& directive, double value) {
  const bool none = directive.unlimited && static_cast<double>(*directive.unlimited) == value;
  return none ? std::numeric_limits<double>::infinity() : value;
}

class Runner {
 public:
  Runner(const std::string& test_file, FileSource& files,
         const std::set<std::string>& accept_unsupported)
      : test_file_(test_file), files_(files) {
    options_.accept_unsupported = accept_unsupported;
  }

  AssertionResult Run(std::string_view text, const std::vector<std::string>& config_files) {
    paths_ = config_files;
    std::vector<std::pair<int, std::string>> lines;
    int number = 0;
    for (const auto part : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
      ++number;
      std::string_view line(part.data(), part.size());
      line = Strip(WithoutComment(line));
      if (line.empty() || ReadSetup(line)) continue;
      lines.emplace_back(number, std::string(line));
    }
    if (paths_.empty()) {
      Fail(1, "no configuration: a line `config FILE` names it");
      return std::move(result_);
    }
    compiled_ = Compile(paths_, files_, options_);
    result_.diagnostics = compiled_.diagnostics;
    if (compiled_.ok()) {
      auto view = PolicyView::Build(compiled_.snapshot);
      if (view.ok()) view_ = *std::move(view);
    }
    for (const auto& [at, line] : lines) Check(at, line);
    return std::move(result_);
  }

 private:
  void Fail(int line, std::string message) {
    result_.failures.push_back({line, std::move(message)});
  }

  bool ReadSetup(std::string_view line) {
    const std::vector<std::string> words = Words(line);
    if (words[0] == "config") {
      for (size_t i = 1; i < words.size(); ++i) {
        const std::filesystem::path path(words[i]);
        paths_.push_back(path.is_absolute()
                             ? path.string()
                             : (std::filesystem::path(test_file_).parent_path() / path).string());
      }
      return true;
    }
    if (words[0] == "accept-unsupported") {
      options_.accept_unsupported.insert(words.begin() + 1, words.end());
      return true;
    }
    return false;
  }

  void Check(int at, std::string_view line) {
    if (line == "loads" || line == "refused") {
      if (compiled_.ok() == (line == "loads")) {
        ++result_.passed;
      } else {
        Fail(at, compiled_.ok() ? "the configuration loads" : "the configuration does not load");
      }
      return;
    }
    const size_t colon = line.find(": ");
    if (colon == line.npos) return Fail(at, "no assertion; it is written queue D/V: NAME == VALUE");
    if (view_ == nullptr) return Fail(at, "the configuration does not load");
    const std::vector<std::string> subject = Words(line.substr(0, colon));
    ClaimText claim;
    if (!ReadClaim(line.substr(colon + 2), &claim)) {
      return Fail(at, "no assertion; it is written NAME == VALUE");
    }
    const auto before = result_.failures.size();
    CheckSubject(at, subject, claim);
    if (result_.failures.size() == before) ++result_.passed;
  }

  // NAME OPERATOR VALUE, the value as in a directive file.
  struct ClaimText {
    std::string name, op;
    std::vector<Token> value;
  };
  static bool ReadClaim(std::string_view text, ClaimText* claim) {
    for (std::string* word : {&claim->name, &claim->op}) {
      text = Strip(text);
      const size_t end = std::min(text.find_first_of(" \t"), text.size());
      *word = std::string(text.substr(0, end));
      text.remove_prefix(end);
    }
    std::vector<Diagnostic> diagnostics;
    const auto statements =
        Lex("", absl::StrCat(claim->name, std::string(text)), &TakesRegex, &diagnostics);
    if (statements.size() != 1 || !diagnostics.empty()) return false;
    claim->value = statements[0].arguments;
    return !claim->value.empty();
  }

  void CheckSubject(int at, const std::vector<std::string>& subject, const ClaimText& claim) {
    const std::string& kind = subject[0];
    if (kind == "global" && subject.size() == 1) {
      return Claim(at, kGlobal, Target::kGlobalSettings, view_->global(), "", claim);
    }
    if (subject.size() != 2) return Fail(at, "one queue, client, source, vmta or pool is named");
    const std::string& name = subject[1];
    if (kind == "queue") return Queue(at, name, claim);
    if ((kind == "client" || kind == "source") && !IpAddress::Parse(name)) {
      return Fail(at, absl::StrCat("\"", name, "\" is no IP address"));
    }
    if (kind == "client") {
      return Claim(at, kSource, Target::kClientSettings, *view_->ForClient(name), "", claim);
    }
    if (kind == "source") {
      return Claim(at, kSource, Target::kSourceSettings, *view_->ForSource(name), "", claim);
    }
    if (kind == "vmta") {
      const auto* const vmta = view_->FindVirtualMta(name);
      if (vmta == nullptr) return Fail(at, absl::StrCat("there is no virtual MTA \"", name, "\""));
      std::vector<std::string> hosts;
      for (const auto& host : vmta->source_hosts()) {
        hosts.push_back(host.ip());
        hosts.push_back(absl::StrCat(host.ip(), " ", host.host_name()));
      }
      if (ClaimsMember(at, {"smtp-source-host", "source"}, hosts, claim)) return;
      return Claim(at, kVirtualMta, Target::kVirtualMta, *vmta, "", claim);
    }
    if (kind == "pool") {
      const auto* const pool = view_->FindPool(name);
      if (pool == nullptr) return Fail(at, absl::StrCat("there is no pool \"", name, "\""));
      const std::vector<std::string> members(pool->virtual_mtas().begin(),
                                             pool->virtual_mtas().end());
      if (ClaimsMember(at, {"virtual-mta"}, members, claim)) return;
      return Claim(at, kPool, Target::kPool, *pool, "", claim);
    }
    Fail(at, absl::StrCat("\"", kind, "\" is none of queue, client, source, vmta, pool, global"));
  }

  // Of what may be said several times: one of them is the value. False: it is about another name.
  bool ClaimsMember(int at, const std::vector<std::string>& names,
                    const std::vector<std::string>& members, const ClaimText& claim) {
    const std::string name = absl::AsciiStrToLower(claim.name);
    if (std::find(names.begin(), names.end(), name) == names.end()) return false;
    std::string want;
    for (const Token& token : claim.value) {
      const auto ip = IpAddress::Parse(token.text);
      absl::StrAppend(&want, want.empty() ? "" : " ", ip ? ip->ToString() : token.text);
    }
    const bool has = std::any_of(members.begin(), members.end(), [&](const std::string& each) {
      return absl::EqualsIgnoreCase(each, want);
    });
    if (claim.op != "==" && claim.op != "!=") {
      Fail(at, absl::StrCat("\"", claim.op, "\" does not compare ", claim.name));
    } else if (has != (claim.op == "==")) {
      Fail(at, absl::StrCat(want, has ? " is" : " is not", " one of its"));
    }
    return true;
  }

  void Queue(int at, const std::string& name, const ClaimText& claim) {
    const size_t slash = name.rfind('/');
    if (slash == name.npos) return Fail(at, "a queue is DOMAIN/VIRTUAL-MTA");
    const auto parsed = ParseDomainPattern(name.substr(0, slash));
    if (!parsed || parsed->find('*') != parsed->npos) {
      return Fail(at, absl::StrCat("\"", name.substr(0, slash), "\" is no domain"));
    }
    const std::string& domain = *parsed;
    const std::string target = PlainTargetName(name.substr(slash + 1));
    const auto check = [&](const std::string& vmta, const std::string& pool) {
      Claim(at, kDomain, Target::kQueueSettings, *view_->ForQueue(domain, vmta, pool),
            pool.empty() ? "" : absl::StrCat(" for ", vmta), claim);
    };
    if (view_->FindVirtualMta(target) != nullptr) return check(target, "");
    const auto* const pool = view_->FindPool(target);
    if (pool == nullptr) {
      return Fail(at, absl::StrCat("there is no virtual MTA or pool \"", target, "\""));
    }
    for (const std::string& vmta : pool->virtual_mtas()) check(vmta, target);
  }

  void Claim(int at, Scope scope, Target target, const Message& effective,
             const std::string& for_whom, const ClaimText& claim) {
    const Directive* const directive = FindDirective(scope, absl::AsciiStrToLower(claim.name));
    if (directive != nullptr && directive->target != target) {
      return Fail(at, absl::StrCat("\"", claim.name, "\" cannot be asked for here"));
    }
    if (directive == nullptr) {
      const auto closest = ClosestName(claim.name, NamesIn(scope));
      return Fail(at,
                  absl::StrCat("\"", claim.name, "\" is no setting of it",
                               closest ? absl::StrCat("; did you mean \"", *closest, "\"?") : ""));
    }
    const std::unique_ptr<Message> expected(effective.New());
    if (const auto error = SetField(*directive, claim.value, expected.get())) {
      return Fail(at, error->message);
    }
    const std::unique_ptr<Message> has = WithDefault(*directive, effective);
    const bool equal =
        PrintValues(*directive, *has, true) == PrintValues(*directive, *expected, true);
    const std::optional<bool> holds = Holds(*directive, claim.op, *has, *expected, equal);
    if (!holds) {
      return Fail(at, absl::StrCat("\"", claim.op, "\" does not compare ", claim.name));
    }
    if (*holds) return;
    const auto have = PrintValues(*directive, *has);
    Fail(at, absl::StrCat(claim.name, " is ", have.empty() ? "not set" : have[0], for_whom));
  }

  // What nobody set is as the registry says.
  static std::unique_ptr<Message> WithDefault(const Directive& directive,
                                              const Message& effective) {
    std::unique_ptr<Message> copy(effective.New());
    copy->CopyFrom(effective);
    if (!PrintValues(directive, effective, true).empty()) return copy;
    Token token;
    token.text = DefaultOf(directive);
    // An error leaves it unset: some defaults are the name of another directive.
    if (!token.text.empty()) SetField(directive, {token}, copy.get());
    return copy;
  }

  static std::optional<bool> Holds(const Directive& directive, const std::string& op,
                                   const Message& have, const Message& want, bool equal) {
    const auto* const field = have.GetDescriptor()->FindFieldByName(std::string(directive.field));
    const auto a = NumberOf(have, *field);
    const auto b = NumberOf(want, *field);
    // 100/m is the same as 6000/h.
    const bool same = equal || (a && b && std::abs(*a - *b) <= 1e-9 * std::abs(*a) &&
                                have.GetReflection()->HasField(have, field));
    if (op == "==") return same;
    if (op == "!=") return !same;
    if (!a || !b) return std::nullopt;
    const double x = Limit(directive, *a);
    const double y = Limit(directive, *b);
    if (op == "<") return x < y;
    if (op == "<=") return x <= y;
    if (op == ">") return x > y;
    if (op == ">=") return x >= y;
    return std::nullopt;
  }

  const std::string test_file_;
  FileSource& files_;
  CompileOptions options_;
  std::vector<std::string> paths_;
  Compiled compiled_;
  std::shared_ptr<const PolicyView> view_;
  AssertionResult result_;
};

}  // namespace

AssertionResult RunAssertions(const std::string& test_file, std::string_view text,
                              const std::vector<std::string>& config_files, FileSource& files,
                              const std::set<std::string>& accept_unsupported) {
  return Runner(test_file, files, accept_unsupported).Run(text, config_files);
}

}  // namespace sluice::config
