#include "services/node/run.h"

int main(int argc, char** argv) {
  return sluice::node::Run(sluice::node::Role::kQueue, argc, argv);
}
