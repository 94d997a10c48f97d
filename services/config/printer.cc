#include "services/config/printer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/config/value.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string RateText(const policy::v1::Rate& rate, bool volume) {
  if (rate.unlimited()) return "unlimited";
  const std::string count = volume ? SizeText(rate.count(), "b") : absl::StrCat(rate.count());
  if (rate.count() == 0 && rate.period_us() == 1'000'000) return "0";
  for (const auto& [unit, size] : kTimeUnits) {
    if (rate.period_us() % size != 0) continue;
    const uint64_t periods = rate.period_us() / size;
    return absl::StrCat(count, "/", periods == 1 ? "" : absl::StrCat(periods), unit);
  }
  return count;
}

std::string Number(const Directive& directive, uint64_t value) {
  if (directive.grammar == Grammar::kBoolOrTime && value <= 1) return value == 1 ? "yes" : "no";
  const bool time =
      directive.grammar == Grammar::kDuration || directive.grammar == Grammar::kBoolOrTime;
  // A number of 0 is what operators write; 0b or 0s is not.
  const bool written =
      directive.grammar != Grammar::kSize && value >= directive.min && value <= directive.max;
  if (directive.unlimited == value && (!written || time)) return time ? "never" : "unlimited";
  if (time) return DurationText(value);
  return directive.grammar == Grammar::kSize ? SizeText(value, "b") : absl::StrCat(value);
}

}  // namespace

std::string PrintClusterRate(const policy::v1::ClusterRate& said) {
  std::string text = RateText(said.rate(), false);
  for (int i = 0; i < said.codes_size(); ++i) {
    absl::StrAppend(&text, i == 0 ? " on " : ",", said.codes(i));
  }
  return text;
}

namespace {

class Printer {
 public:
  Printer(const Directive& directive, const Message& message, const FieldDescriptor& field)
      : directive_(directive),
        message_(message),
        reflection_(*message.GetReflection()),
        field_(field) {}

  std::vector<std::string> Lines() const {
    switch (field_.cpp_type()) {
      case FieldDescriptor::CPPTYPE_BOOL:
        return {reflection_.GetBool(message_, &field_) ? "yes" : "no"};
      case FieldDescriptor::CPPTYPE_UINT32:
        return {Number(directive_, reflection_.GetUInt32(message_, &field_))};
      case FieldDescriptor::CPPTYPE_UINT64:
        return {Number(directive_, reflection_.GetUInt64(message_, &field_))};
      case FieldDescriptor::CPPTYPE_INT64:
        return {Number(directive_, static_cast<uint64_t>(reflection_.GetInt64(message_, &field_)))};
      case FieldDescriptor::CPPTYPE_STRING:
        return {Text(reflection_.GetString(message_, &field_))};
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return Composite(reflection_.GetMessage(message_, &field_));
      default:
        return {};
    }
  }

 private:
  std::string Text(const std::string& text) const {
    return directive_.grammar == Grammar::kRegex ? PrintWritten(text) : PrintWord(text);
  }

  std::vector<std::string> Composite(const Message& value) const {
    const bool volume = directive_.grammar == Grammar::kVolume;
    if (const auto* rate = dynamic_cast<const policy::v1::Rate*>(&value)) {
      return {RateText(*rate, volume)};
    }
    std::vector<std::string> parts;
    if (const auto* list = dynamic_cast<const policy::v1::DurationList*>(&value)) {
      for (const int64_t us : list->us()) parts.push_back(DurationText(static_cast<uint64_t>(us)));
      return {absl::StrJoin(parts, ",")};
    }
    if (const auto* list = dynamic_cast<const policy::v1::RateList*>(&value)) {
      for (const auto& rate : list->rates()) parts.push_back(RateText(rate, false));
      return {absl::StrJoin(parts, ",")};
    }
    if (const auto* rates = dynamic_cast<const policy::v1::KeyedRates*>(&value)) {
      for (const auto& entry : rates->entries()) {
        parts.push_back(absl::StrCat(PrintWord(entry.key()), " ", RateText(entry.rate(), volume)));
      }
      return parts;
    }
    if (const auto* counts = dynamic_cast<const policy::v1::KeyedCounts*>(&value)) {
      for (const auto& entry : counts->entries()) {
        parts.push_back(
            absl::StrCat(PrintWord(entry.key()), " ", Number(directive_, entry.count())));
      }
      return parts;
    }
    const auto certificate = [](const policy::v1::TlsCertificate& of) {
      return of.password().empty()
                 ? PrintWord(of.file())
                 : absl::StrCat(PrintWord(of.file()), " ", PrintWord(of.password()));
    };
    if (const auto* one = dynamic_cast<const policy::v1::TlsCertificate*>(&value)) {
      return {certificate(*one)};
    }
    if (const auto* list = dynamic_cast<const policy::v1::TlsCertificates*>(&value)) {
      for (const auto& each : list->values()) parts.push_back(certificate(each));
      return parts;
    }
    if (const auto* list = dynamic_cast<const policy::v1::StringList*>(&value)) {
      for (const std::string& text : list->values()) parts.push_back(Text(text));
      if (parts.empty()) return {"\"\""};
      const bool one_a_line =
          directive_.grammar == Grammar::kRegex || directive_.grammar == Grammar::kHeaderLines ||
          directive_.grammar == Grammar::kText || directive_.grammar == Grammar::kArguments;
      return one_a_line ? parts : std::vector{absl::StrJoin(parts, " ")};
    }
    return {};
  }

  const Directive& directive_;
  const Message& message_;
  const google::protobuf::Reflection& reflection_;
  const FieldDescriptor& field_;
};

}  // namespace

std::string PrintWord(std::string_view text) {
  const bool plain = !text.empty() && text.front() != '<' && text.back() != ',' &&
                     text.find_first_not_of(
                         "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                         "._:/@*,=+-[]{}$%|") == text.npos;
  if (plain) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

std::string PrintWritten(std::string_view regex) {
  const bool literal = regex.size() > 1 && regex.front() == '/' && regex.find('#') == regex.npos;
  return literal ? std::string(regex) : PrintWord(regex);
}

std::string PrintRegex(std::string_view expression) {
  std::string flags = "I";
  if (expression.starts_with("(?i)")) {
    expression.remove_prefix(4);
    flags.clear();
  }
  std::string text = "/";
  for (size_t i = 0; i < expression.size(); ++i) {
    // A pair is kept as it is, whatever the second byte.
    if (expression[i] == '\\' && i + 1 < expression.size() && expression[i + 1] != '/') {
      text += expression[i++];
    } else if (expression[i] == '/') {
      text += '\\';
    }
    text += expression[i];
  }
  return absl::StrCat(text, "/", flags);
}

std::vector<std::string> PrintValues(const Directive& directive, const Message& message,
                                     bool with_secrets) {
  const auto* const field = message.GetDescriptor()->FindFieldByName(std::string(directive.field));
  if (field == nullptr || field->is_repeated()) return {};
  if (!message.GetReflection()->HasField(message, field)) return {};
  if (directive.secret && !with_secrets) return {"(secret)"};
  return Printer(directive, message, *field).Lines();
}

std::vector<std::string> PrintSettings(Scope scope, Target target, const Message& message,
                                       bool with_secrets) {
  std::vector<std::string> lines;
  for (const Directive& directive : AllDirectives()) {
    if (directive.target != target || (directive.scopes & scope) == 0) continue;
    for (const std::string& value : PrintValues(directive, message, with_secrets)) {
      lines.push_back(absl::StrCat(std::string(directive.name), " ", value));
    }
  }
  return lines;
}

}  // namespace sluice::config
