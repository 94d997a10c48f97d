// Proves that the transport within a process keeps the contract of streams (stream_contract.h).
#include "services/base/rpc/inproc_stream.h"

#include "services/base/rpc/stream_contract.h"

namespace sluice {
namespace {

struct InprocHarness {
  explicit InprocHarness(StreamService<ContractRequest, ContractResponse>& service)
      : inproc(service) {}
  StreamClient<ContractRequest, ContractResponse>& client() { return inproc; }
  InprocStreamClient<ContractRequest, ContractResponse> inproc;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Inproc, StreamContract, InprocHarness);

}  // namespace
}  // namespace sluice
