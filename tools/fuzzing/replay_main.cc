// Runs a fuzz target over files, where libFuzzer is not linked: the corpus as an ordinary test.
// Each file is given whole and cut short at up to 4,096 places. A found.pack holds inputs that a
// fuzzer made, which has cut them itself: the size in decimal, a line feed, the bytes, and so on.
#include <algorithm>
#include <charconv>
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

// The inputs in it; nothing where it is damaged.
std::vector<std::string> Unpack(std::string_view pack) {
  std::vector<std::string> inputs;
  while (!pack.empty()) {
    size_t size = 0;
    const auto end = std::from_chars(pack.data(), pack.data() + pack.size(), size).ptr;
    pack.remove_prefix(static_cast<size_t>(end - pack.data()));
    if (pack.empty() || pack[0] != '\n' || pack.size() - 1 < size) return {};
    inputs.emplace_back(pack.substr(1, size));
    pack.remove_prefix(1 + size);
  }
  return inputs;
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
    if (std::string_view(argv[i]).ends_with("found.pack")) {
      const std::vector<std::string> packed = Unpack(input);
      if (packed.empty() && !input.empty()) {
        std::fprintf(stderr, "%s is damaged\n", argv[i]);
        return 1;
      }
      for (const std::string& each : packed) RunOne(each, each.size());
      inputs += packed.size();
      continue;
    }
    const size_t step = std::max<size_t>(1, input.size() / kMaxCuts);
    for (size_t size = 0; size < input.size(); size += step, ++inputs) RunOne(input, size);
    RunOne(input, input.size());
    ++inputs;
  }
  RunOne("", 0);
  std::printf("replayed %zu inputs from %d files\n", inputs, argc - 1);
  // A replay of nothing proves nothing.
  return argc > 1 ? 0 : 1;
}
