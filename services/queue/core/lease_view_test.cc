// A worker gets each field that is not named here, also one that is added later.
#include "services/queue/core/lease_view.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace sluice::queue {
namespace {

using google::protobuf::FieldDescriptor;

// A value that is not the default in each field.
void FillAll(google::protobuf::Message* message) {
  const auto* reflection = message->GetReflection();
  const auto* type = message->GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      FillAll(field->is_repeated() ? reflection->AddMessage(message, field)
                                   : reflection->MutableMessage(message, field));
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      reflection->SetString(message, field, "text of " + field->name());
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
      reflection->SetBool(message, field, true);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      reflection->SetEnumValue(message, field, 1);
    } else if (field->is_repeated()) {
      reflection->AddUInt32(message, field, 7);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
      reflection->SetUInt32(message, field, 7);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
      reflection->SetUInt64(message, field, 7);
    } else {
      ASSERT_EQ(field->cpp_type(), FieldDescriptor::CPPTYPE_INT64) << field->full_name();
      reflection->SetInt64(message, field, 7);
    }
  }
}

template <class Record>
void ExpectAllBut(const std::set<std::string>& left_out) {
  Record stored;
  ASSERT_NO_FATAL_FAILURE(FillAll(&stored));
  stored.GetReflection()->MutableUnknownFields(&stored)->AddVarint(999, 1);  // of a later release
  Record sent;
  FillForWorker(stored, &sent);
  for (const std::string& name : left_out) {
    const FieldDescriptor* field = Record::descriptor()->FindFieldByName(name);
    ASSERT_NE(field, nullptr) << name;
    stored.GetReflection()->ClearField(&stored, field);
  }
  EXPECT_EQ(sent.DebugString(), stored.DebugString());
}

TEST(LeaseView, AWorkerIsToldWhatItNeedsOfAMessage) {
  ExpectAllBut<common::v1::Message>({"client_name", "client_ip", "local_ip", "listener", "user",
                                     "client_tls", "hops", "captured_headers", "metadata",
                                     "idempotency_key", "snapshot_version", "header_from",
                                     "source_group", "shard_positions"});
}

TEST(LeaseView, AWorkerIsToldWhatItNeedsOfARecipient) {
  ExpectAllBut<common::v1::Delivery>({"rcpt_given", "windows"});
}

}  // namespace
}  // namespace sluice::queue
