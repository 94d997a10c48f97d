#include "services/delivery/local/local_job.h"

namespace sluice::delivery {

std::vector<LocalVerdict> RunLocalJob(const LocalJob& job) {
  const std::string& type = job.settings->type();
  if (type == "file") return DeliverToFile(job);
  if (type == "pipe") return DeliverToPipe(job);
  if (type == "http-delivery") return DeliverByHttp(job);
  const LocalVerdict verdict =
      type != "discard" ? Transient("4.3.5", "type " + type + " is not known here")
      : job.settings->discard_as_bounce() ? Permanent("5.7.1", "discarded as a bounce")
                                          : Delivered("discarded");
  return std::vector<LocalVerdict>(static_cast<size_t>(job.lease->deliveries_size()), verdict);
}

}  // namespace sluice::delivery
