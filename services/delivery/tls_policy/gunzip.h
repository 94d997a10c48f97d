// What a receiver of a report reads: gzip undone, for tests.
#pragma once

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>

namespace sluice::delivery::testing {

// Fails the test where `text` is not one whole gzip member of at most a megabyte.
inline std::string Gunzip(const std::string& text) {
  z_stream stream = {};
  EXPECT_EQ(inflateInit2(&stream, 15 + 16), Z_OK);  // gzip alone
  std::string out(1 << 20, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(inflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  inflateEnd(&stream);
  return out;
}

}  // namespace sluice::delivery::testing
