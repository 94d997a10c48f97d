#include "services/queue/core/lease_view.h"

#include <string>

#include "google/protobuf/message.h"
#include "google/protobuf/unknown_field_set.h"

namespace sluice::queue {
namespace {

using common::v1::Delivery;
using common::v1::Message;

// An empty string costs an allocation where it is set.
template <class Record>
void CopyText(const std::string& text, Record* sent, std::string* (Record::*field)()) {
  if (!text.empty()) (sent->*field)()->assign(text);
}

// Fields of a later release, which ingest and the worker may both know.
template <class Record>
void CopyUnknown(const Record& stored, Record* sent) {
  const auto& unknown = stored.GetReflection()->GetUnknownFields(stored);
  if (!unknown.empty()) sent->GetReflection()->MutableUnknownFields(sent)->MergeFrom(unknown);
}

}  // namespace

void FillForWorker(const common::v1::Message& stored, common::v1::Message* sent) {
  CopyText(stored.id(), sent, &Message::mutable_id);
  CopyText(stored.parent_id(), sent, &Message::mutable_parent_id);
  CopyText(stored.mail_from(), sent, &Message::mutable_mail_from);
  CopyText(stored.mail_from_rewritten(), sent, &Message::mutable_mail_from_rewritten);
  CopyText(stored.auth_param(), sent, &Message::mutable_auth_param);
  sent->set_body_type(stored.body_type());
  sent->set_smtputf8(stored.smtputf8());
  sent->set_require_tls(stored.require_tls());
  sent->set_dsn_return(stored.dsn_return());
  CopyText(stored.envid(), sent, &Message::mutable_envid);
  sent->set_priority(stored.priority());
  sent->set_time_queued_us(stored.time_queued_us());
  sent->set_not_before_us(stored.not_before_us());
  sent->set_deliver_by_us(stored.deliver_by_us());
  sent->set_source_type(stored.source_type());
  CopyText(stored.tenant(), sent, &Message::mutable_tenant);
  CopyText(stored.dkim_options(), sent, &Message::mutable_dkim_options);
  CopyText(stored.dkim_key_ref(), sent, &Message::mutable_dkim_key_ref);
  sent->set_verp(stored.verp());
  if (stored.header_edits_size() > 0) *sent->mutable_header_edits() = stored.header_edits();
  sent->set_is_template(stored.is_template());
  if (stored.parts_size() > 0) *sent->mutable_parts() = stored.parts();
  CopyText(stored.traceparent(), sent, &Message::mutable_traceparent);
  sent->set_body_size(stored.body_size());
  sent->set_header_size(stored.header_size());
  CopyUnknown(stored, sent);
}

void FillForWorker(const common::v1::Delivery& stored, common::v1::Delivery* sent) {
  CopyText(stored.rcpt(), sent, &Delivery::mutable_rcpt);
  CopyText(stored.orcpt(), sent, &Delivery::mutable_orcpt);
  sent->set_notify(stored.notify());
  CopyText(stored.vmta(), sent, &Delivery::mutable_vmta);
  CopyText(stored.pool(), sent, &Delivery::mutable_pool);
  CopyText(stored.first_vmta(), sent, &Delivery::mutable_first_vmta);
  CopyText(stored.first_queue(), sent, &Delivery::mutable_first_queue);
  CopyText(stored.job_id(), sent, &Delivery::mutable_job_id);
  CopyText(stored.envelope_id(), sent, &Delivery::mutable_envelope_id);
  if (stored.merge_variables_size() > 0)
    *sent->mutable_merge_variables() = stored.merge_variables();
  if (stored.parts_size() > 0) *sent->mutable_parts() = stored.parts();
  CopyText(stored.verp_token(), sent, &Delivery::mutable_verp_token);
  sent->set_not_before_us(stored.not_before_us());
  sent->set_expires_us(stored.expires_us());
  sent->set_attempts(stored.attempts());
  sent->set_lost_leases(stored.lost_leases());
  sent->set_first_attempt_us(stored.first_attempt_us());
  sent->set_last_attempt_us(stored.last_attempt_us());
  if (stored.has_last_reply()) *sent->mutable_last_reply() = stored.last_reply();
  sent->set_next_delay_notice_us(stored.next_delay_notice_us());
  if (stored.has_hold()) *sent->mutable_hold() = stored.hold();
  if (stored.has_reroute()) *sent->mutable_reroute() = stored.reroute();
  CopyText(stored.queue_domain(), sent, &Delivery::mutable_queue_domain);
  sent->set_priority(stored.priority());
  CopyUnknown(stored, sent);
}

}  // namespace sluice::queue
