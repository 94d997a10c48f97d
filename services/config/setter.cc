#include "services/config/setter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/config/value.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

class Setter {
 public:
  Setter(const Directive& directive, const std::vector<Token>& arguments, Message* message)
      : directive_(directive),
        arguments_(arguments),
        message_(message),
        reflection_(message->GetReflection()),
        field_(message->GetDescriptor()->FindFieldByName(std::string(directive.field))) {}

  std::optional<ValueError> Set() {
    if (field_ == nullptr) return Fail("has no field in this version", 0);
    if (arguments_.empty()) return Fail(SyntaxMessage(directive_), 0);
    std::string text;
    for (const Token& token : arguments_) {
      absl::StrAppend(&text, text.empty() ? "" : " ", token.text);
    }
    if (arguments_.size() == 1 && arguments_[0].quoted && text.empty()) return Clear();
    switch (directive_.grammar) {
      case Grammar::kBool: {
        const auto value = ParseBool(text);
        if (!value) return BadValue(text);
        reflection_->SetBool(message_, field_, *value);
        return std::nullopt;
      }
      case Grammar::kCount:
      case Grammar::kSize:
      case Grammar::kDuration:
        return SetNumber(text);
      case Grammar::kDurationList: {
        const auto list = ParseDurationListUs(text);
        if (!list) return BadValue(text);
        for (const int64_t us : *list) {
          if (!InRange(static_cast<uint64_t>(us))) return BadRange();
        }
        auto* const value = Sub<policy::v1::DurationList>();
        value->clear_us();
        for (const int64_t us : *list) value->add_us(us);
        return std::nullopt;
      }
      case Grammar::kRate: {
        const auto rate = ParseRate(text);
        if (!rate) return BadValue(text);
        *Sub<policy::v1::Rate>() = *rate;
        return std::nullopt;
      }
      case Grammar::kIpPorts:
      case Grammar::kHostPorts:
      case Grammar::kDomains:
      case Grammar::kWords:
      case Grammar::kTexts:
        return SetList(text);
      default:
        return SetText(std::move(text));
    }
  }

 private:
  std::optional<ValueError> Fail(std::string message, size_t argument) const {
    return ValueError{std::move(message), argument};
  }
  std::optional<ValueError> BadValue(std::string_view text) const {
    return Fail(
        absl::StrCat("\"", std::string(text.substr(0, 80)), "\" is no value of ",
                     std::string(directive_.name), "; it is written ", SyntaxOf(directive_)),
        0);
  }
  std::optional<ValueError> BadRange() const {
    const bool time = directive_.grammar != Grammar::kCount && directive_.grammar != Grammar::kSize;
    const char* const unit = time ? "ms" : directive_.grammar == Grammar::kSize ? " bytes" : "";
    const uint64_t scale = time ? 1000 : 1;
    return Fail(absl::StrCat(std::string(directive_.name), " is from ", directive_.min / scale,
                             unit, " to ", directive_.max / scale, unit),
                0);
  }
  bool InRange(uint64_t value) const { return value >= directive_.min && value <= directive_.max; }
  template <class T>
  T* Sub() {
    return static_cast<T*>(reflection_->MutableMessage(message_, field_));
  }

  // `name ""`: as if no more general place had said anything.
  std::optional<ValueError> Clear() {
    if (field_->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      reflection_->SetString(message_, field_, "");
      return std::nullopt;
    }
    if (directive_.grammar == Grammar::kHostPorts || directive_.grammar == Grammar::kDomains ||
        directive_.grammar == Grammar::kWords || directive_.grammar == Grammar::kIpPorts ||
        directive_.grammar == Grammar::kTexts) {
      Sub<policy::v1::StringList>()->clear_values();
      return std::nullopt;
    }
    return Fail(SyntaxMessage(directive_), 0);
  }

  std::optional<ValueError> SetNumber(std::string_view text) {
    std::optional<uint64_t> value;
    const std::string word = absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
    const bool unlimited = word == "unlimited" || word == "never";
    if (unlimited) {
      value = directive_.unlimited;
    } else if (directive_.grammar == Grammar::kCount) {
      value = ParseCount(text);
    } else if (directive_.grammar == Grammar::kSize) {
      value = ParseSizeBytes(text);
    } else if (const auto us = ParseDurationUs(text)) {
      value = static_cast<uint64_t>(*us);
    }
    if (!value) return BadValue(text);
    if (!unlimited && !InRange(*value)) return BadRange();
    switch (field_->cpp_type()) {
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection_->SetUInt32(message_, field_, static_cast<uint32_t>(*value));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection_->SetUInt64(message_, field_, *value);
        break;
      default:
        reflection_->SetInt64(message_, field_, static_cast<int64_t>(*value));
    }
    return std::nullopt;
  }

  std::optional<std::string> ParseItem(std::string_view item) const {
    switch (directive_.grammar) {
      case Grammar::kIpPorts:
        return ParseIpPort(item, directive_.default_port);
      case Grammar::kHostPorts:
        return ParseHostPort(item);
      case Grammar::kDomains:
        return ParseHostName(item);
      default:
        return std::string(item);
    }
  }

  // What is put into SMTP replies and headers stays on its line.
  static bool HasControls(std::string_view text) {
    return std::any_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  }

  std::optional<ValueError> SetList(std::string_view text) {
    if (directive_.grammar == Grammar::kTexts && HasControls(text)) {
      return Fail("control characters are not allowed here", 0);
    }
    std::vector<std::string> items;
    const bool whole = directive_.grammar == Grammar::kTexts;
    for (const std::string& item : whole ? std::vector{std::string(text)} : SplitList(text)) {
      auto parsed = ParseItem(item);
      if (!parsed) return BadValue(item);
      items.push_back(*std::move(parsed));
    }
    if (items.empty()) return BadValue(text);
    auto* const values = Sub<policy::v1::StringList>()->mutable_values();
    if (!directive_.appends) values->Clear();
    for (std::string& item : items) {
      if (std::find(values->begin(), values->end(), item) == values->end()) {
        values->Add(std::move(item));
      }
    }
    return std::nullopt;
  }

  std::optional<ValueError> SetText(std::string text) {
    if (HasControls(text)) return Fail("control characters are not allowed here", 0);
    std::optional<std::string> value = text;
    switch (directive_.grammar) {
      case Grammar::kHostName:
        value = ParseHostName(text);
        break;
      case Grammar::kIp: {
        const auto ip = IpAddress::Parse(text);
        value = ip ? std::optional(ip->ToString()) : std::nullopt;
        break;
      }
      case Grammar::kChoice: {
        const std::string word = absl::AsciiStrToLower(text);
        const auto choices = SplitList(directive_.choices);
        value = std::find(choices.begin(), choices.end(), word) != choices.end()
                    ? std::optional(word)
                    : std::nullopt;
        break;
      }
      case Grammar::kEmail: {
        const size_t at = text.rfind('@');
        const bool good = at != text.npos && at > 0 && at <= 64 &&
                          text.find_first_of(" \t<>\"") == text.npos &&
                          ParseHostName(std::string_view(text).substr(at + 1));
        if (!good) value.reset();
        break;
      }
      case Grammar::kQueueName: {
        const std::string_view all = text;
        const size_t slash = all.find('/');
        const auto domain = ParseHostName(all.substr(0, slash));
        if (!domain || (slash != all.npos &&
                        (slash + 1 == all.size() || all.find('/', slash + 1) != all.npos))) {
          value.reset();
        } else {
          value = absl::StrCat(*domain, slash == all.npos ? "" : text.substr(slash));
        }
        break;
      }
      case Grammar::kTargetName:
      case Grammar::kSectionName:
        if (arguments_.size() != 1) value.reset();
        break;
      default:
        break;
    }
    if (!value) return BadValue(text);
    reflection_->SetString(message_, field_, *std::move(value));
    return std::nullopt;
  }

  const Directive& directive_;
  const std::vector<Token>& arguments_;
  Message* const message_;
  const google::protobuf::Reflection* const reflection_;
  const FieldDescriptor* const field_;
};

}  // namespace

std::optional<ValueError> SetField(const Directive& directive, const std::vector<Token>& arguments,
                                   Message* message) {
  return Setter(directive, arguments, message).Set();
}

std::string SyntaxMessage(const Directive& directive) {
  return absl::StrCat("it is written ", std::string(directive.name), " ", SyntaxOf(directive));
}

}  // namespace sluice::config
