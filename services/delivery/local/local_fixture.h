// A message and a folder for the tests of local ends.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/local/local_job.h"

namespace sluice::delivery::testing {

class LocalFixture : public ::testing::Test {
 protected:
  LocalFixture() {
    lease_->mutable_message()->set_id(std::string(16, '\x01'));
    lease_->mutable_message()->set_mail_from("from@a.test");
    lease_->mutable_message()->set_time_queued_us(1'700'000'000'000'000);
    settings_->set_smtp_data_termination_timeout_us(60'000'000);
    settings_->set_connect_timeout_us(10'000'000);
  }

  void AddRcpt(const std::string& rcpt) { lease_->add_deliveries()->set_rcpt(rcpt); }
  LocalJob Job(const std::vector<std::string>& pieces = {"Subject: s\r\n\r", "\nbody\r\n"}) {
    LocalJob job{settings_, lease_, {}, "mx.test", FromUnixMicros(1'700'000'000'000'000), nullptr};
    for (const std::string& piece : pieces) job.body.emplace_back(piece);
    return job;
  }
  static std::string ReadFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<std::string> FilesIn(const std::string& folder) {
    std::vector<std::string> names;
    for (const auto& each : std::filesystem::directory_iterator(folder)) {
      if (each.is_regular_file()) names.push_back(each.path());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  const sluice::testing::TempFolder temp_{"local"};
  const std::string folder_ = temp_.path();
  std::shared_ptr<policy::v1::QueueSettings> settings_ =
      std::make_shared<policy::v1::QueueSettings>();
  std::shared_ptr<queue::v1::Lease> lease_ = std::make_shared<queue::v1::Lease>();
};

}  // namespace sluice::delivery::testing
