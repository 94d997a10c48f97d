// What one recipient of a mail merge gets: their parts of the stored text, with their values.
#pragma once

#include <string>
#include <string_view>

#include "sluice/common/v1/message.pb.h"

namespace sluice::mail {

// `stored` is the message's text, `message.parts` says where its parts lie; part 0 is what we have
// put in front, goes to everybody and has no variables. What comes behind it and is no header
// section is parted from it by an empty line. Predefined are *to, *from, *vmta, *jobid and *envid.
// A range that does not lie in `stored` is left out.
std::string MergedBody(std::string_view stored, const common::v1::Message& message,
                       const common::v1::Delivery& delivery, bool expands_undefined);

// The sender of one recipient with VERP: "local-user=domain@bounce-domain". The same sender where
// there is none, or where an address has no such form.
std::string VerpSender(std::string_view mail_from, std::string_view rcpt);

}  // namespace sluice::mail
