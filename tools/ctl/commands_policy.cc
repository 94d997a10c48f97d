// What the policy service says of the configuration, and loading it anew.
#include "nlohmann/json.hpp"
#include "tools/ctl/command_parts.h"
#include "tools/ctl/render.h"

namespace sluice::ctl {

int CheckConfig(Context& context, const std::vector<std::string>& files, bool strict) {
  admin::v1::CheckConfigRequest request;
  request.mutable_files()->Assign(files.begin(), files.end());
  admin::v1::CheckConfigResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "config check");
  Print(context, response, RenderCheck(response));
  if (!response.loads() || (strict && response.diagnostics_size() > 0)) return 2;
  return response.diagnostics_size() > 0 ? 1 : 0;
}

int ExplainRunning(Context& context, const ConfigOptions& options) {
  admin::v1::ExplainConfigRequest request;
  request.set_domain(options.domain);
  request.set_vmta(options.vmta);
  request.set_pool(options.pool);
  request.set_source(options.source);
  request.set_client(options.client);
  request.set_mx(options.mx);
  admin::v1::ExplainConfigResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) return Failed(context, status, "config explain --running");
  config::Explanation answer;
  for (const auto& subject : response.subjects()) {
    auto& settings = answer.subjects.emplace_back(subject.subject(), 0).second;
    for (const auto& setting : subject.settings()) {
      settings.push_back({setting.directive(), setting.value(), setting.section(), setting.where(),
                          setting.is_default()});
    }
  }
  answer.notes = {response.notes().begin(), response.notes().end()};
  PrintExplanation(context.env, answer, options.all, context.json);
  return kExitOk;
}

bool OwnedAddresses(Context& context, std::set<std::string>* addresses) {
  admin::v1::GetStatusResponse response;
  const grpc::Status status = context.client.Call(admin::v1::GetStatusRequest(), &response);
  if (!status.ok()) {
    Failed(context, status, "config check --live");
    return false;
  }
  for (const auto& worker : response.workers()) {
    for (const auto& source : worker.sources()) {
      if (source.owned()) addresses->insert(source.ip());
    }
    // Also what no virtual MTA of the running configuration names.
    addresses->insert(worker.addresses().begin(), worker.addresses().end());
  }
  return true;
}

int Reload(Context& context, uint32_t wait_ms) {
  admin::v1::ReloadConfigRequest request;
  request.set_wait_ms(wait_ms);
  admin::v1::ReloadConfigResponse response;
  const grpc::Status status = context.client.Call(request, &response);
  if (!status.ok()) {
    if (context.json) {
      const nlohmann::ordered_json error = {{"loaded", false}, {"error", status.error_message()}};
      context.env.out << error.dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                      << "\n";
    }
    return Failed(context, status, "reload");
  }
  Print(context, response, RenderReload(response));
  const bool all =
      std::all_of(response.watchers().begin(), response.watchers().end(),
                  [&](const auto& each) { return Acknowledged(each, response.version()); });
  return all ? kExitOk : kExitPartly;
}

}  // namespace sluice::ctl
