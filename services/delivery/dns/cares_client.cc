#include "services/delivery/dns/cares_client.h"

#include <ares.h>
#include <netinet/in.h>
#include <sys/time.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <mutex>
#include <random>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice::delivery {
namespace {

// One socket carries all questions: what a burst of answers needs while the loop is elsewhere. A
// dropped one costs the whole timeout.
constexpr int kSocketBytes = 1 << 20;

absl::Status InitLibrary() {
  static std::once_flag once;
  static int status = ARES_SUCCESS;
  std::call_once(once, [] { status = ares_library_init(ARES_LIB_INIT_ALL); });
  if (status == ARES_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("c-ares: ", ares_strerror(status)));
}

struct Question {
  std::string name;
  DnsType type;
  DnsClient::Done done;
  bool trusted;  // the answer's AD bit means what it says
};

constexpr size_t kFlagsByte = 3;
constexpr unsigned char kAuthenticData = 0x20;

// c-ares gives the bytes of the answer also where its own status is "no such name".
void OnAnswer(void* argument, int status, int /*timeouts*/, unsigned char* bytes, int length) {
  std::unique_ptr<Question> question(static_cast<Question*>(argument));
  if (status == ARES_EDESTRUCTION || status == ARES_ECANCELLED) return;
  DnsAnswer answer;
  if (bytes != nullptr && length > 0) {
    answer = ParseDnsAnswer(
        std::string_view(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length)),
        question->name, question->type);
    answer.authenticated &= question->trusted;
  } else if (status == ARES_EBADNAME) {
    answer.status = DnsStatus::kNxDomain;  // no such name can exist
    answer.ttl_s = kDefaultNegativeTtlSeconds;
  } else {
    // c-ares passes over servers that fail or refuse, and then says that it reached none.
    answer.detail = status == ARES_ECONNREFUSED
                        ? "DNS: each server failed (SERVFAIL), refused, or was not reached"
                        : absl::StrCat("DNS: ", ares_strerror(status));
  }
  question->done(std::move(answer));
}

}  // namespace

// Shared with the handlers that wait on its sockets, so that none outlives it.
class CaresClient::Channel : public std::enable_shared_from_this<Channel> {
 public:
  Channel(Executor& executor, boost::asio::io_context& io) : executor_(executor), io_(io) {}

  absl::Status Init(const CaresOptions& options) {
    ares_options settings = {};
    settings.flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS | ARES_FLAG_STAYOPEN;
    settings.timeout = static_cast<int>(
        std::chrono::duration_cast<std::chrono::milliseconds>(options.timeout).count());
    settings.tries = options.tries;
    settings.ednspsz = edns_bytes_ = options.edns_bytes;
    settings.socket_receive_buffer_size = kSocketBytes;
    settings.socket_send_buffer_size = kSocketBytes;
    settings.sock_state_cb = [](void* self, ares_socket_t fd, int readable, int writable) {
      static_cast<Channel*>(self)->OnSocketState(fd, readable != 0, writable != 0);
    };
    settings.sock_state_cb_data = this;
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_STATE_CB | ARES_OPT_SOCK_RCVBUF | ARES_OPT_SOCK_SNDBUF;
    mask |= options.rotate ? ARES_OPT_ROTATE : ARES_OPT_NOROTATE;
    int status = ares_init_options(&channel_, &settings, mask);
    if (status != ARES_SUCCESS) {
      return absl::InternalError(absl::StrCat("c-ares: ", ares_strerror(status)));
    }
    if (!options.servers.empty()) {
      const std::string servers = absl::StrJoin(options.servers, ",");
      status = ares_set_servers_ports_csv(channel_, servers.c_str());
      if (status != ARES_SUCCESS) {
        Close();
        return absl::InvalidArgumentError(
            absl::StrCat("name server list \"", servers,
                         "\" is not understood: give IP addresses, each with an optional :port (",
                         ares_strerror(status), ")"));
      }
    }
    trusted_ = OnlyLoopbackServers();
    return absl::OkStatus();
  }

  void Query(const std::string& name, DnsType type, Done done) {
    auto question = std::make_unique<Question>(Question{name, type, std::move(done), trusted_});
    unsigned char* query = nullptr;
    int length = 0;
    const uint16_t id = static_cast<uint16_t>(random_());
    const int status = ares_create_query(name.c_str(), 1, static_cast<int>(type), id, 1, &query,
                                         &length, edns_bytes_);
    if (status != ARES_SUCCESS) {
      OnAnswer(question.release(), status, 0, nullptr, 0);
      return;
    }
    // Asks a resolver to say whether the answer is authentic (RFC 6840 section 5.7).
    query[kFlagsByte] |= kAuthenticData;
    ares_send(channel_, query, length, OnAnswer, question.release());
    ares_free_string(query);
    ArmTimer();
  }

  bool trusted() const { return trusted_; }

  void Close() {
    if (channel_ == nullptr) return;
    ares_destroy(channel_);
    channel_ = nullptr;
    if (timer_ != 0) executor_.Cancel(timer_);
    timer_ = 0;
    // c-ares has closed the sockets: asio must not close them again.
    for (auto& [fd, socket] : sockets_) socket->descriptor.release();
    sockets_.clear();
  }

 private:
  struct Socket {
    explicit Socket(boost::asio::io_context& io, ares_socket_t fd) : descriptor(io, fd) {}
    boost::asio::posix::stream_descriptor descriptor;
    bool want_read = false;
    bool want_write = false;
    bool reading = false;
    bool writing = false;
  };

  bool OnlyLoopbackServers() const {
    ares_addr_port_node* servers = nullptr;
    if (ares_get_servers_ports(channel_, &servers) != ARES_SUCCESS) return false;
    bool only = servers != nullptr;
    for (const auto* each = servers; each != nullptr; each = each->next) {
      only &= each->family == AF_INET
                  ? (ntohl(each->addr.addr4.s_addr) >> 24) == IN_LOOPBACKNET
                  : IN6_IS_ADDR_LOOPBACK(reinterpret_cast<const in6_addr*>(&each->addr.addr6));
    }
    ares_free_data(servers);
    return only;
  }

  void OnSocketState(ares_socket_t fd, bool readable, bool writable) {
    auto it = sockets_.find(fd);
    if (!readable && !writable) {
      if (it == sockets_.end()) return;
      it->second->want_read = it->second->want_write = false;
      it->second->descriptor.release();
      sockets_.erase(it);
      return;
    }
    if (it == sockets_.end()) {
      it = sockets_.emplace(fd, std::make_shared<Socket>(io_, fd)).first;
    }
    it->second->want_read = readable;
    it->second->want_write = writable;
    Watch(fd, it->second);
  }

  void Watch(ares_socket_t fd, const std::shared_ptr<Socket>& socket) {
    using Wait = boost::asio::posix::stream_descriptor;
    if (socket->want_read && !socket->reading) {
      socket->reading = true;
      socket->descriptor.async_wait(Wait::wait_read, [self = shared_from_this(), fd,
                                                      socket](boost::system::error_code error) {
        socket->reading = false;
        if (!error) self->OnReady(fd, ARES_SOCKET_BAD, socket);
      });
    }
    if (socket->want_write && !socket->writing) {
      socket->writing = true;
      socket->descriptor.async_wait(Wait::wait_write, [self = shared_from_this(), fd,
                                                       socket](boost::system::error_code error) {
        socket->writing = false;
        if (!error) self->OnReady(ARES_SOCKET_BAD, fd, socket);
      });
    }
  }

  void OnReady(ares_socket_t read_fd, ares_socket_t write_fd,
               const std::shared_ptr<Socket>& socket) {
    if (channel_ == nullptr) return;
    ares_process_fd(channel_, read_fd, write_fd);
    if (channel_ == nullptr) return;  // a callback closed us
    ArmTimer();
    const ares_socket_t fd = read_fd == ARES_SOCKET_BAD ? write_fd : read_fd;
    const auto it = sockets_.find(fd);
    if (it != sockets_.end() && it->second == socket) Watch(fd, socket);
  }

  // One timer for the whole channel, at the next time that c-ares wants to look at its questions.
  void ArmTimer() {
    if (channel_ == nullptr || timer_ != 0) return;
    timeval wait = {};
    if (ares_timeout(channel_, nullptr, &wait) == nullptr) return;  // nothing under way
    const Duration delay = std::chrono::seconds(wait.tv_sec) + Duration(wait.tv_usec);
    timer_ = executor_.After(delay + std::chrono::milliseconds(1), [self = shared_from_this()] {
      self->timer_ = 0;
      if (self->channel_ == nullptr) return;
      ares_process_fd(self->channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
      self->ArmTimer();
    });
  }

  Executor& executor_;
  boost::asio::io_context& io_;
  ares_channel channel_ = nullptr;
  bool trusted_ = false;  // all servers are on loopback
  int edns_bytes_ = 0;
  std::random_device random_;
  TimerId timer_ = 0;
  absl::flat_hash_map<ares_socket_t, std::shared_ptr<Socket>> sockets_;
};

absl::StatusOr<std::unique_ptr<CaresClient>> CaresClient::Create(Executor& executor,
                                                                 boost::asio::io_context& io,
                                                                 const CaresOptions& options) {
  if (absl::Status status = InitLibrary(); !status.ok()) return status;
  auto channel = std::make_shared<Channel>(executor, io);
  if (absl::Status status = channel->Init(options); !status.ok()) return status;
  return std::unique_ptr<CaresClient>(new CaresClient(std::move(channel)));
}

CaresClient::CaresClient(std::shared_ptr<Channel> channel) : channel_(std::move(channel)) {}

CaresClient::~CaresClient() { channel_->Close(); }

bool CaresClient::trusted() const { return channel_->trusted(); }

void CaresClient::Query(const std::string& name, DnsType type, Done done) {
  channel_->Query(name, type, std::move(done));
}

}  // namespace sluice::delivery
