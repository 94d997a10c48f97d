#include "services/config/setter.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/settings_defaults.h"
#include "services/config/text_grammar.h"
#include "services/config/value.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int kMaxKeyed = 10'000;
constexpr int kLongList = 100;

class Setter {
 public:
  Setter(const Directive& directive, const std::vector<Token>& arguments, Message* message)
      : directive_(directive),
        arguments_(arguments),
        message_(message),
        reflection_(message == nullptr ? nullptr : message->GetReflection()),
        field_(message == nullptr
                   ? nullptr
                   : message->GetDescriptor()->FindFieldByName(std::string(directive.field))) {}

  std::optional<ValueError> Set() {
    if (message_ != nullptr && field_ == nullptr) return Fail("has no field in this version", 0);
    size_t first = 0;
    if (directive_.key != Key::kNothing) {
      if (arguments_.size() < 2) return Fail(SyntaxMessage(directive_), 0);
      if (!TakeKey(arguments_[0].text)) return BadKey(arguments_[0].text);
      first = 1;
    }
    if (arguments_.size() <= first) return Fail(SyntaxMessage(directive_), 0);
    std::string text;
    for (size_t i = first; i < arguments_.size(); ++i) {
      absl::StrAppend(&text, text.empty() ? "" : " ", arguments_[i].text);
    }
    if (arguments_.size() == first + 1 && arguments_[first].quoted && text.empty()) return Clear();
    auto error = SetValue(std::move(text));
    if (error && error->argument == 0) {
      error->argument = first;
      if (IsList() && arguments_.size() > first + 1) return OfOneItem(*std::move(error), first);
    }
    return error;
  }

 private:
  // Items stand by themselves, in this line or in the next ones.
  bool IsList() const {
    switch (directive_.grammar) {
      case Grammar::kDurationList:
      case Grammar::kRateList:
      case Grammar::kIpPorts:
      case Grammar::kHostPorts:
      case Grammar::kDomains:
      case Grammar::kDomainPatterns:
      case Grammar::kIps:
      case Grammar::kNetworks:
      case Grammar::kEmails:
      case Grammar::kHeaders:
        return true;
      default:
        return false;
    }
  }
  // What is more than one word is quoted.
  bool IsOneWord() const {
    return directive_.grammar == Grammar::kFile || directive_.grammar == Grammar::kTargetName ||
           directive_.grammar == Grammar::kSectionName;
  }
  // The error of the first word that is wrong also alone.
  ValueError OfOneItem(ValueError whole, size_t first) const {
    for (size_t i = first; i < arguments_.size(); ++i) {
      std::string word = arguments_[i].text;
      while (word.ends_with(',')) word.pop_back();
      if (word.empty()) continue;
      auto error = Setter(directive_, {arguments_[i]}, nullptr).SetValue(word);
      if (!error) continue;
      error->argument = i;
      return *std::move(error);
    }
    return whole;
  }

  std::optional<ValueError> SetValue(std::string text) {
    const std::string word = absl::AsciiStrToLower(text);
    if (StandsForValue(directive_, word)) {
      if (message_ != nullptr) reflection_->SetString(message_, field_, word);
      return std::nullopt;
    }
    switch (directive_.grammar) {
      case Grammar::kBool: {
        const auto value = ParseBool(text);
        if (!value) return BadValue(text);
        if (message_ != nullptr) reflection_->SetBool(message_, field_, *value);
        return std::nullopt;
      }
      case Grammar::kBoolOrTime: {
        // As the field keeps it: 0 is no, 1 is yes.
        const auto flag = word == "never" ? std::optional(false) : ParseBool(text);
        const auto time = flag ? std::nullopt : ParseDurationUs(text);
        if (!flag && !time) return BadValue(text);
        if (message_ == nullptr) return std::nullopt;
        reflection_->SetInt64(message_, field_,
                              flag ? (*flag ? 1 : 0) : std::max<int64_t>(1, *time));
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
        if (message_ == nullptr) return std::nullopt;
        auto* const value = Sub<policy::v1::DurationList>();
        value->clear_us();
        for (const int64_t us : *list) value->add_us(us);
        return std::nullopt;
      }
      case Grammar::kRate:
      case Grammar::kVolume: {
        const auto rate =
            directive_.grammar == Grammar::kVolume ? ParseVolumeRate(text) : ParseRate(text);
        if (!rate) return BadValue(text);
        if (message_ == nullptr) return std::nullopt;
        if (field_->message_type() == policy::v1::KeyedRates::descriptor()) {
          auto* const entry = AddKeyed<policy::v1::KeyedRates, policy::v1::KeyedRate>();
          if (entry == nullptr) return TooManyKeys();
          *entry->mutable_rate() = *rate;
          return std::nullopt;
        }
        *Sub<policy::v1::Rate>() = *rate;
        return std::nullopt;
      }
      case Grammar::kRateList: {
        policy::v1::RateList list;
        for (const std::string& item : SplitList(text)) {
          const auto rate = ParseRate(item);
          if (!rate) return BadValue(item);
          *list.add_rates() = *rate;
        }
        if (list.rates().empty()) return BadValue(text);
        if (message_ != nullptr) *Sub<policy::v1::RateList>() = std::move(list);
        return std::nullopt;
      }
      case Grammar::kTlsCertificate:
        return SetCertificate();
      case Grammar::kIpPorts:
      case Grammar::kHostPorts:
      case Grammar::kDomains:
      case Grammar::kWords:
      case Grammar::kDomainPatterns:
      case Grammar::kHeaderLines:
      case Grammar::kIps:
      case Grammar::kNetworks:
      case Grammar::kEmails:
      case Grammar::kHeaders:
        return SetList(text);
      case Grammar::kArguments: {
        const size_t count = arguments_.size();
        if (count < directive_.min || count > directive_.max) {
          return Fail(SyntaxMessage(directive_), 0);
        }
        return SetText(std::move(text));
      }
      default:
        return SetText(std::move(text));
    }
  }

  bool TakeKey(const std::string& text) {
    switch (directive_.key) {
      case Key::kNetwork: {
        const auto network = ParseNetwork(text);
        key_ = network.value_or("");
        return network.has_value();
      }
      case Key::kHost: {
        const auto host = ParseDomainPattern(text);
        key_ = host.value_or("");
        return host.has_value();
      }
      default:
        key_ = text;
        return !text.empty();
    }
  }
  std::optional<ValueError> BadKey(std::string_view text) const {
    return Fail(absl::StrCat("\"", std::string(text.substr(0, 80)), "\" is no ",
                             directive_.key == Key::kNetwork ? "network" : "host", "; ",
                             SyntaxMessage(directive_)),
                0);
  }
  // The entry of this key, which a further line replaces; nullptr: there are too many.
  template <class T, class Entry>
  Entry* AddKeyed() {
    auto* const entries = Sub<T>()->mutable_entries();
    for (auto& entry : *entries) {
      if (entry.key() == key_) return &entry;
    }
    if (entries->size() >= kMaxKeyed) return nullptr;
    Entry* const entry = entries->Add();
    entry->set_key(key_);
    return entry;
  }

  std::optional<ValueError> TooManyKeys() const {
    return Fail(absl::StrCat("more than ", kMaxKeyed, " lines of ", std::string(directive_.name)),
                0);
  }

  std::optional<ValueError> Fail(std::string message, size_t argument) const {
    return ValueError{std::move(message), argument};
  }
  std::optional<ValueError> BadValue(std::string_view text) const {
    if (directive_.secret) return Fail(SyntaxMessage(directive_), 0);
    return Fail(
        absl::StrCat("\"", std::string(text.substr(0, 80)), "\" is no value of ",
                     std::string(directive_.name), "; it is written ", SyntaxOf(directive_)),
        0);
  }
  std::optional<ValueError> BadRange() const {
    const bool time = directive_.grammar != Grammar::kCount && directive_.grammar != Grammar::kSize;
    const char* const unit = directive_.grammar == Grammar::kSize ? " bytes" : "";
    const auto text = [&](uint64_t value) {
      return time ? DurationText(value) : absl::StrCat(value, unit);
    };
    return Fail(absl::StrCat(std::string(directive_.name), " is from ", text(directive_.min),
                             " to ", text(directive_.max)),
                0);
  }
  bool InRange(uint64_t value) const { return value >= directive_.min && value <= directive_.max; }
  template <class T>
  T* Sub() {
    return static_cast<T*>(reflection_->MutableMessage(message_, field_));
  }

  // `name ""`: as if no more general place had said anything, so the default holds.
  std::optional<ValueError> Clear() {
    if (message_ == nullptr) return std::nullopt;
    const Message* const defaults = DefaultsOf(*message_->GetDescriptor());
    const bool known = defaults != nullptr && reflection_->HasField(*defaults, field_);
    switch (field_->cpp_type()) {
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection_->SetBool(message_, field_, known && reflection_->GetBool(*defaults, field_));
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        if (!known) return Nothing();
        reflection_->SetUInt32(message_, field_, reflection_->GetUInt32(*defaults, field_));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        if (!known) return Nothing();
        reflection_->SetUInt64(message_, field_, reflection_->GetUInt64(*defaults, field_));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        if (!known) return Nothing();
        reflection_->SetInt64(message_, field_, reflection_->GetInt64(*defaults, field_));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        reflection_->SetString(message_, field_,
                               known ? reflection_->GetString(*defaults, field_) : "");
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        if (known) {
          reflection_->MutableMessage(message_, field_)
              ->CopyFrom(reflection_->GetMessage(*defaults, field_));
        } else if (field_->message_type() == policy::v1::Rate::descriptor()) {
          Sub<policy::v1::Rate>()->Clear();
          Sub<policy::v1::Rate>()->set_unlimited(true);
        } else {
          reflection_->MutableMessage(message_, field_)->Clear();
        }
        break;
      }
      default:
        return Nothing();
    }
    return std::nullopt;
  }
  // There is no more general place, and no value that stands for the default.
  std::optional<ValueError> Nothing() {
    reflection_->ClearField(message_, field_);
    return std::nullopt;
  }
  static const Message* DefaultsOf(const google::protobuf::Descriptor& type) {
    const Message* const all[] = {&DefaultQueueSettings(), &DefaultClientSettings(),
                                  &DefaultGlobalSettings()};
    for (const Message* const each : all) {
      if (each->GetDescriptor() == &type) return each;
    }
    return nullptr;
  }

  std::optional<ValueError> SetCertificate() {
    if (arguments_.size() > 2 || arguments_[0].text.empty()) {
      return Fail(SyntaxMessage(directive_), 0);
    }
    policy::v1::TlsCertificate certificate;
    certificate.set_file(arguments_[0].text);
    if (arguments_.size() == 2) certificate.set_password(arguments_[1].text);
    if (HasControls(certificate.file()) || HasControls(certificate.password())) {
      return Fail("control characters are not allowed here", 0);
    }
    if (message_ == nullptr) return std::nullopt;
    if (!directive_.appends) {
      *Sub<policy::v1::TlsCertificate>() = std::move(certificate);
    } else {
      *Sub<policy::v1::TlsCertificates>()->add_values() = std::move(certificate);
    }
    return std::nullopt;
  }

  std::optional<ValueError> SetNumber(std::string_view text) {
    std::optional<uint64_t> value;
    const std::string word = absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
    const bool unlimited = word == "unlimited" || word == "never" ||
                           (directive_.zero_is_unlimited && ParseCount(text) == uint64_t{0});
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
    if (message_ == nullptr) return std::nullopt;
    if (field_->message_type() == policy::v1::KeyedCounts::descriptor()) {
      auto* const entry = AddKeyed<policy::v1::KeyedCounts, policy::v1::KeyedCount>();
      if (entry == nullptr) return TooManyKeys();
      entry->set_count(*value);
      return std::nullopt;
    }
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

  std::optional<ValueError> SetList(std::string_view text) {
    std::vector<std::string> items;
    std::string separated(text);
    if (directive_.grammar == Grammar::kHeaders) {
      std::replace(separated.begin(), separated.end(), ':', ',');
    }
    const bool whole = directive_.grammar == Grammar::kHeaderLines;
    for (const std::string& item : whole ? std::vector{separated} : SplitList(separated)) {
      if (HasControls(item)) return Fail("control characters are not allowed here", 0);
      auto parsed = ReadTextValue(directive_, item);
      if (!parsed) return BadValue(item);
      items.push_back(*std::move(parsed));
    }
    if (items.empty()) return BadValue(text);
    if (message_ == nullptr) return std::nullopt;
    auto* const values = Sub<policy::v1::StringList>()->mutable_values();
    if (!directive_.appends) values->Clear();
    for (std::string& item : items) {
      // To look through a long list for each of its items would take too long: see DropRepeats.
      if (values->size() >= kLongList ||
          std::find(values->begin(), values->end(), item) == values->end()) {
        values->Add(std::move(item));
      }
    }
    return std::nullopt;
  }

  std::optional<ValueError> SetText(std::string text) {
    if (HasControls(text)) return Fail("control characters are not allowed here", 0);
    if (IsOneWord() && arguments_.size() != 1) return BadValue(text);
    auto value = ReadTextValue(directive_, text);
    if (!value) return BadValue(text);
    if (message_ == nullptr) return std::nullopt;
    if (field_->message_type() != nullptr) {
      auto* const values = Sub<policy::v1::StringList>()->mutable_values();
      if (!directive_.appends) values->Clear();
      values->Add(*std::move(value));
      return std::nullopt;
    }
    reflection_->SetString(message_, field_, *std::move(value));
    return std::nullopt;
  }

  const Directive& directive_;
  const std::vector<Token>& arguments_;
  Message* const message_;  // nullptr: the value is only checked
  const google::protobuf::Reflection* const reflection_;
  const FieldDescriptor* const field_;
  std::string key_;
};

}  // namespace

std::optional<ValueError> SetField(const Directive& directive, const std::vector<Token>& arguments,
                                   Message* message) {
  return Setter(directive, arguments, message).Set();
}

bool IsLongList(const Directive& directive, const Message& message) {
  const auto* const field = message.GetDescriptor()->FindFieldByName(std::string(directive.field));
  if (field == nullptr || field->message_type() != policy::v1::StringList::descriptor()) {
    return false;
  }
  const Message& list = message.GetReflection()->GetMessage(message, field);
  return dynamic_cast<const policy::v1::StringList&>(list).values_size() > kLongList;
}

void DropRepeats(const Directive& directive, Message* message) {
  const auto* const field = message->GetDescriptor()->FindFieldByName(std::string(directive.field));
  auto& list = dynamic_cast<policy::v1::StringList&>(
      *message->GetReflection()->MutableMessage(message, field));
  policy::v1::StringList once;
  absl::flat_hash_set<std::string> seen;
  for (std::string& value : *list.mutable_values()) {
    if (seen.insert(value).second) once.add_values(std::move(value));
  }
  list = std::move(once);
}

std::string SyntaxMessage(const Directive& directive) {
  return absl::StrCat("it is written ", std::string(directive.name), " ", SyntaxOf(directive));
}

}  // namespace sluice::config
