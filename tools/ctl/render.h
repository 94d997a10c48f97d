// Answers of the admin API as tables. Pure: what is shown depends on the arguments alone.
#pragma once

#include <cstdint>
#include <string>

#include "sluice/admin/v1/admin_service.pb.h"

namespace sluice::ctl {

// Every function takes the wall clock of the reader where it shows ages or waits. Lines that need
// attention (parts that did not answer, counts that are lower bounds) come after the table.
std::string RenderStatus(const admin::v1::GetStatusResponse& status, int64_t now_us);
std::string RenderQueues(const admin::v1::ListQueuesResponse& queues, int64_t now_us);
std::string RenderQueue(const admin::v1::GetQueueResponse& queue, int64_t now_us);
std::string RenderMessages(const admin::v1::ListMessagesResponse& messages, int64_t now_us);
std::string RenderMessage(const admin::v1::GetMessageResponse& message, int64_t now_us);
std::string RenderEvents(const admin::v1::ListEventsResponse& events);
std::string RenderPauses(const admin::v1::ListPausesResponse& pauses, int64_t now_us);
std::string RenderConnections(const admin::v1::GetStatusResponse& status);
std::string RenderClocks(const admin::v1::GetStatusResponse& status, int64_t now_us);
std::string RenderOwners(const admin::v1::ListOwnersResponse& owners);
// True where that service has what a reload brought.
bool Acknowledged(const admin::v1::WatcherStatus& watcher, uint64_t version);
std::string RenderReload(const admin::v1::ReloadConfigResponse& reload);
std::string RenderCheck(const admin::v1::CheckConfigResponse& check);

// One screen of `top`: rates are taken between `before` and `status`, `elapsed_us` apart.
std::string RenderTop(const admin::v1::GetStatusResponse& before,
                      const admin::v1::GetStatusResponse& status, int64_t elapsed_us,
                      const admin::v1::ListQueuesResponse& queues, int64_t now_us);

}  // namespace sluice::ctl
