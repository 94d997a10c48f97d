// Runs a fuzz target over files, where libFuzzer is not linked: the corpus as an ordinary test.
// Each file is given whole and cut short at up to 4,096 places; one that a fuzzer made, named by
// the SHA-1 of what is in it, only whole: it has been cut already.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMaxCuts = 4096;

// A copy of exactly `size` bytes, so that a sanitizer sees a read past the end.
void RunOne(const std::string& input, size_t size) {
  const std::vector<uint8_t> bytes(input.begin(), input.begin() + static_cast<long>(size));
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

bool MadeByFuzzer(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  return name.size() == 40 && name.find_first_not_of("0123456789abcdef") == name.npos;
}

}  // namespace

int main(int argc, char** argv) {
  size_t inputs = 0;
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", argv[i]);
      return 1;
    }
    const std::string input((std::istreambuf_iterator<char>(file)), {});
    const size_t step = std::max<size_t>(1, input.size() / kMaxCuts);
    for (size_t size = 0; size < input.size() && !MadeByFuzzer(argv[i]); size += step, ++inputs) {
      RunOne(input, size);
    }
    RunOne(input, input.size());
    ++inputs;
  }
  RunOne("", 0);
  std::printf("replayed %zu inputs from %d files\n", inputs, argc - 1);
  // A replay of nothing proves nothing.
  return argc > 1 ? 0 : 1;
}
