#include "tools/ctl/json.h"

#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>

#include "google/protobuf/descriptor.h"
#include "tools/ctl/message_id_text.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kMessageIdBytes = 16;
constexpr size_t kEventIdNumbersBytes = 12;

void AppendString(std::string_view text, std::string& out) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"':
        out.append("\\\"");
        break;
      case '\\':
        out.append("\\\\");
        break;
      case '\n':
        out.append("\\n");
        break;
      case '\r':
        out.append("\\r");
        break;
      case '\t':
        out.append("\\t");
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
          char escape[8];
          std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
          out.append(escape);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

// "EVENT_KIND_DELIVERED" of enum EventKind is "delivered".
std::string EnumText(const EnumValueDescriptor& value) {
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (c >= 'A' && c <= 'Z' && !prefix.empty()) prefix.push_back('_');
    prefix.push_back(static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c));
  }
  prefix.push_back('_');
  std::string text = value.name();
  if (text.starts_with(prefix)) text.erase(0, prefix.size());
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string Base64(std::string_view bytes) {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0u);
    }
    for (size_t k = 0; k < 4; ++k) {
      text.push_back(i + k > bytes.size() ? '=' : kAlphabet[group >> (18 - 6 * k) & 63]);
    }
  }
  return text;
}

// An event's id (sequence u64, position u32, shard) as SHARD/SEQUENCE/POSITION.
std::string EventIdText(std::string_view bytes) {
  const auto number = [bytes](size_t begin, size_t end) {
    uint64_t value = 0;
    for (size_t i = begin; i < end; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return std::to_string(value);
  };
  return std::string(bytes.substr(kEventIdNumbersBytes)) + "/" + number(0, 8) + "/" + number(8, 12);
}

class Writer {
 public:
  Writer(int indent, std::string& out) : indent_(indent), out_(out) {}

  void Object(const Message& message, int depth) {
    const auto* descriptor = message.GetDescriptor();
    const Reflection& reflection = *message.GetReflection();
    bool first = true;
    out_.push_back('{');
    for (int i = 0; i < descriptor->field_count(); ++i) {
      const FieldDescriptor& field = *descriptor->field(i);
      if (!field.is_repeated() && field.has_presence() && !reflection.HasField(message, &field)) {
        continue;
      }
      Comma(first, depth + 1);
      AppendString(field.name(), out_);
      out_.append(indent_ > 0 ? ": " : ":");
      if (field.is_map()) {
        Map(message, field, depth + 1);
      } else if (field.is_repeated()) {
        List(message, field, depth + 1);
      } else {
        Value(message, field, -1, depth + 1);
      }
    }
    End(first, depth, '}');
  }

 private:
  void Comma(bool& first, int depth) {
    if (!first) out_.push_back(',');
    first = false;
    NewLine(depth);
  }
  void End(bool empty, int depth, char bracket) {
    if (!empty) NewLine(depth);
    out_.push_back(bracket);
  }
  void NewLine(int depth) {
    if (indent_ == 0) return;
    out_.push_back('\n');
    out_.append(static_cast<size_t>(indent_) * depth, ' ');
  }

  void List(const Message& message, const FieldDescriptor& field, int depth) {
    const int size = message.GetReflection()->FieldSize(message, &field);
    bool first = true;
    out_.push_back('[');
    for (int i = 0; i < size; ++i) {
      Comma(first, depth + 1);
      Value(message, field, i, depth + 1);
    }
    End(first, depth, ']');
  }

  // Sorted by key, so that equal content is equal text.
  void Map(const Message& message, const FieldDescriptor& field, int depth) {
    const Reflection& reflection = *message.GetReflection();
    const FieldDescriptor& key = *field.message_type()->map_key();
    const FieldDescriptor& value = *field.message_type()->map_value();
    std::map<std::string, const Message*> entries;
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
      std::string text;
      Writer(0, text).Value(entry, key, -1, 0);
      if (!text.starts_with('"')) text = '"' + text + '"';
      entries.emplace(std::move(text), &entry);
    }
    bool first = true;
    out_.push_back('{');
    for (const auto& [text, entry] : entries) {
      Comma(first, depth + 1);
      out_.append(text);
      out_.append(indent_ > 0 ? ": " : ":");
      Value(*entry, value, -1, depth + 1);
    }
    End(first, depth, '}');
  }

  // index < 0: a singular field.
  void Value(const Message& message, const FieldDescriptor& field, int index, int depth) {
    const Reflection& r = *message.GetReflection();
    const bool one = index < 0;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        out_.append(std::to_string(one ? r.GetInt32(message, &field)
                                       : r.GetRepeatedInt32(message, &field, index)));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        out_.append(std::to_string(one ? r.GetInt64(message, &field)
                                       : r.GetRepeatedInt64(message, &field, index)));
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        out_.append(std::to_string(one ? r.GetUInt32(message, &field)
                                       : r.GetRepeatedUInt32(message, &field, index)));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        out_.append(std::to_string(one ? r.GetUInt64(message, &field)
                                       : r.GetRepeatedUInt64(message, &field, index)));
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        Double(one ? r.GetDouble(message, &field) : r.GetRepeatedDouble(message, &field, index));
        break;
      case FieldDescriptor::CPPTYPE_FLOAT:
        Double(one ? r.GetFloat(message, &field) : r.GetRepeatedFloat(message, &field, index));
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        out_.append((one ? r.GetBool(message, &field) : r.GetRepeatedBool(message, &field, index))
                        ? "true"
                        : "false");
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        Enum(message, field, index);
        break;
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string scratch;
        const std::string& text =
            one ? r.GetStringReference(message, &field, &scratch)
                : r.GetRepeatedStringReference(message, &field, index, &scratch);
        if (field.type() == FieldDescriptor::TYPE_BYTES) {
          Bytes(field, text);
        } else {
          AppendString(text, out_);
        }
        break;
      }
      case FieldDescriptor::CPPTYPE_MESSAGE:
        Object(one ? r.GetMessage(message, &field) : r.GetRepeatedMessage(message, &field, index),
               depth);
        break;
    }
  }

  void Double(double value) {
    if (!std::isfinite(value)) {
      out_.append("null");
      return;
    }
    char text[32];
    std::snprintf(text, sizeof text, "%.15g", value);
    out_.append(text);
  }

  void Enum(const Message& message, const FieldDescriptor& field, int index) {
    const Reflection& r = *message.GetReflection();
    const int number = index < 0 ? r.GetEnumValue(message, &field)
                                 : r.GetRepeatedEnumValue(message, &field, index);
    const EnumValueDescriptor* value = field.enum_type()->FindValueByNumber(number);
    if (value == nullptr) {
      out_.append(std::to_string(number));  // a newer server's
    } else {
      AppendString(EnumText(*value), out_);
    }
  }

  void Bytes(const FieldDescriptor& field, const std::string& bytes) {
    if (field.full_name() == "sluice.common.v1.Event.id" && bytes.size() > kEventIdNumbersBytes) {
      AppendString(EventIdText(bytes), out_);
      return;
    }
    const bool id =
        field.name() == "id" || field.name() == "message_id" || field.name() == "parent_id";
    if (id && bytes.size() == kMessageIdBytes) {
      AppendString(MessageIdText(bytes), out_);
    } else if (IsUtf8(bytes)) {
      AppendString(bytes, out_);
    } else {
      out_.append(indent_ > 0 ? "{\"base64\": \"" : "{\"base64\":\"");
      out_.append(Base64(bytes));
      out_.append("\"}");
    }
  }

  const int indent_;
  std::string& out_;
};

}  // namespace

std::string ToJson(const Message& message, int indent) {
  std::string out;
  Writer(indent, out).Object(message, 0);
  return out;
}

}  // namespace sluice::ctl
