// sluicectl: see app.h.
#include <pwd.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <iostream>
#include <thread>

#include "tools/ctl/app.h"

namespace {

std::string UserName() {
  const passwd* entry = getpwuid(getuid());
  return entry == nullptr ? "uid " + std::to_string(getuid()) : entry->pw_name;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  sluice::ctl::Environment env{
      std::cin,
      std::cout,
      std::cerr,
      isatty(STDOUT_FILENO) == 1,
      UserName(),
      [] {
        return std::chrono::duration_cast<std::chrono::microseconds>(
                   std::chrono::system_clock::now().time_since_epoch())
            .count();
      },
      [](int64_t us) { std::this_thread::sleep_for(std::chrono::microseconds(us)); },
  };
  return sluice::ctl::Run({argv + 1, argv + argc}, env);
}
