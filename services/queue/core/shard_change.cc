// Operators' changes to queued mail: delete, retry, reroute, release. Each answers once its changes
// are durable.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {
namespace {

constexpr uint32_t kDefaultChanges = 100'000;
constexpr uint32_t kMostChanges = 1'000'000;

uint32_t LimitOf(uint32_t asked) {
  return asked == 0 ? kDefaultChanges : std::min(asked, kMostChanges);
}

template <class Response>
Journal::OnDurable AnswerWith(std::shared_ptr<Response> response, Done<Response> done) {
  return
      [response = std::move(response), done = std::move(done)](const absl::Status& status) mutable {
        if (status.ok()) {
          done(std::move(*response));
        } else {
          done(status);
        }
      };
}

absl::Status CheckFilter(const v1::MessageFilter& filter) {
  if (filter.ByteSizeLong() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "an empty filter would change all mail: name a queue, message, sender, recipient or job, or "
      "say `all`");
}

}  // namespace

void Shard::MoveRow(Queue& from, const DeliveryKey& key, Queue& to, DeliveryKey next,
                    const common::v1::Delivery& delivery, const common::v1::Message& envelope) {
  from.LaneOf(key.lane).busy.insert(key);
  if (next < key) ++moves_back_;
  if (key != next) DropRow(key);
  MoveToRow(to, next, delivery, envelope);
  if (&from == &to) {
    FreeWhenDurable(from, {key}, {next});
    return;
  }
  // First the new place, so that no count ever misses it.
  FreeWhenDurable(to, {}, {next});
  FreeWhenDurable(from, {key}, {});
}

void Shard::Remove(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                   const StoredMessage& message, const std::string& author,
                   const std::string& reason, bool bounce) {
  common::v1::Reply reply;
  reply.set_local(true);
  reply.set_stage(common::v1::STAGE_QUEUE);
  reply.set_text(absl::StrCat("removed by ", author, ": ", reason));
  Fail(queue, key, delivery, message,
       bounce ? common::v1::EVENT_KIND_FAILED : common::v1::EVENT_KIND_DELETED, reply, nullptr,
       author, reason);
}

struct Shard::Deletion {
  v1::DeleteMessagesRequest request;
  v1::DeleteMessagesResponse response;
  Done<v1::DeleteMessagesResponse> done;
  // Rows that a batch which is not durable yet just moves or ends: looked at again after it.
  std::vector<DeliveryKey> changing;
  int rounds = 0;
  size_t walks = 0;  // of `changing`, that go on
};

void Shard::DeleteMessages(v1::DeleteMessagesRequest request,
                           Done<v1::DeleteMessagesResponse> done) {
  if (absl::Status status = CheckFilter(request.filter()); !status.ok()) {
    done(status);
    return;
  }
  auto deletion = std::make_shared<Deletion>();
  deletion->request = std::move(request);
  deletion->done = std::move(done);
  auto walk = std::make_shared<Walk>();
  walk->filter = deletion->request.filter();
  walk->limit = LimitOf(deletion->request.limit());
  walk->on_row = [this, deletion](const WalkRow& row) { return DeleteRow(*deletion, row); };
  walk->on_end = [this, deletion](bool more, const std::string&) {
    deletion->response.set_more(more);
    DeleteChanging(deletion);
  };
  RunWalk(std::move(walk));
}

// True where the recipient is gone with the batch.
bool Shard::DeleteRow(Deletion& deletion, const WalkRow& row) {
  const v1::DeleteMessagesRequest& request = deletion.request;
  if (row.busy) {
    bool leased = false;
    for (auto& [id, lease] : leases_) {
      if (lease->queue != row.queue || lease->answered) continue;
      for (size_t i = 0; i < lease->keys.size(); ++i) {
        if (lease->keys[i] != row.key || lease->settled.contains(static_cast<uint32_t>(i))) {
          continue;
        }
        leased = true;
        lease->delete_asked.insert(static_cast<uint32_t>(i));
        lease->delete_author = request.author();
        lease->delete_reason = request.reason();
        lease->delete_bounce = request.bounce();
        WriteLease(*lease, false);
      }
    }
    if (leased) {
      deletion.response.set_leased(deletion.response.leased() + 1);
    } else {
      deletion.changing.push_back(row.key);
    }
    return false;
  }
  const auto message = row.damaged ? nullptr : LoadMessage(row.key.storage_key);
  if (message == nullptr) {
    RemoveDamaged(request, row);
    deletion.response.set_recipients(deletion.response.recipients() + 1);
    return true;
  }
  row.queue->LaneOf(row.key.lane, "", 0).busy.insert(row.key);
  Remove(*row.queue, row.key, row.delivery, *message, request.author(), request.reason(),
         request.bounce());
  RecipientsLess(row.key.storage_key, *message, 1);
  FreeWhenDurable(*row.queue, {row.key}, {});
  deletion.response.set_recipients(deletion.response.recipients() + 1);
  return true;
}

// Those that were in the middle of a change, wherever they are after it; then the answer.
void Shard::DeleteChanging(const std::shared_ptr<Deletion>& deletion) {
  constexpr int kMostRounds = 10;
  journal_.WhenDurable([this, deletion](const absl::Status& status) {
    if (!status.ok()) {
      deletion->done(status);
      return;
    }
    const auto changing = std::exchange(deletion->changing, {});
    if (changing.empty() || ++deletion->rounds > kMostRounds) {
      deletion->done(std::move(deletion->response));
      return;
    }
    ++deletion->walks;  // ours
    for (const DeliveryKey& key : changing) {
      std::string value;
      common::v1::Message envelope;
      if (!store_.Get(Family::kMessages, U64Key(key.storage_key), &value).ok() ||
          !envelope.ParseFromString(value)) {
        continue;  // it ended
      }
      ++deletion->walks;
      auto walk = std::make_shared<Walk>();
      walk->filter = deletion->request.filter();
      walk->filter.set_message_id(envelope.id());
      walk->limit = 1;
      walk->on_row = [this, deletion, key](const WalkRow& row) {
        if (row.key.storage_key != key.storage_key || row.key.recipient != key.recipient) {
          return false;
        }
        DeleteRow(*deletion, row);
        return true;
      };
      walk->on_end = [this, deletion](bool, const std::string&) {
        if (--deletion->walks == 0) DeleteChanging(deletion);
      };
      RunWalk(std::move(walk));
    }
    if (--deletion->walks == 0) DeleteChanging(deletion);
  });
}

void Shard::RetryQueues(v1::RetryQueuesRequest request, Done<v1::RetryQueuesResponse> done) {
  auto response = std::make_shared<v1::RetryQueuesResponse>();
  for (const auto& [name, queue] : queues_.all()) {
    if (!request.pattern().empty() && !IsNamed(*queue, request.pattern())) continue;
    if (queue->mode == v1::QUEUE_MODE_RETRY) {
      queue->retry_until_us = NowUs();
      TouchRow(*queue);
      response->set_queues(response->queues() + 1);
      Offer(*queue);
    }
  }
  if (!request.recipients()) {
    journal_.WhenDurable(AnswerWith(response, std::move(done)));
    return;
  }
  auto walk = std::make_shared<Walk>();
  walk->filter.set_queue_pattern(request.pattern());
  walk->limit = kMostChanges;
  walk->needs_message = true;
  auto touched = std::make_shared<absl::flat_hash_set<uint64_t>>();
  walk->on_row = [this, touched](const WalkRow& row) {
    const int64_t now_us = NowUs();
    if (row.busy || row.damaged || row.delivery.has_hold() || row.key.due_us <= now_us ||
        row.delivery.not_before_us() > now_us) {
      return false;
    }
    DeliveryKey next = row.key;
    next.due_us = now_us;
    MoveRow(*row.queue, row.key, *row.queue, next, row.delivery, *row.message);
    touched->insert(row.queue->id);
    return true;
  };
  walk->on_end = [this, response, touched, done = std::move(done)](bool,
                                                                   const std::string&) mutable {
    response->set_queues(std::max<uint64_t>(response->queues(), touched->size()));
    journal_.WhenDurable(AnswerWith(response, std::move(done)));
  };
  RunWalk(std::move(walk));
}

void Shard::RerouteMessages(v1::RerouteMessagesRequest request,
                            Done<v1::RerouteMessagesResponse> done) {
  if (absl::Status status = CheckFilter(request.filter()); !status.ok()) {
    done(status);
    return;
  }
  const bool is_pool = policy_->FindPool(request.target()) != nullptr;
  if (!is_pool && policy_->FindVirtualMta(request.target()) == nullptr) {
    done(absl::NotFoundError(absl::StrCat("there is no virtual MTA or pool named ",
                                          request.target(), ": see `sluicectl config show`")));
    return;
  }
  auto walk = std::make_shared<Walk>();
  walk->filter = request.filter();
  walk->limit = LimitOf(request.limit());
  walk->needs_message = true;
  auto response = std::make_shared<v1::RerouteMessagesResponse>();
  walk->on_row = [this, response, request, is_pool, began_us = NowUs()](const WalkRow& row) {
    if (row.busy || row.damaged) return false;
    common::v1::Delivery delivery = row.delivery;
    // Met again where it went: each goes once, though a pool has another place for it every time.
    if (delivery.reroute().target() == request.target() &&
        delivery.reroute().since_us() >= began_us) {
      return false;
    }
    if (delivery.first_vmta().empty()) {
      delivery.set_first_vmta(std::string(row.queue->vmta()));
      delivery.set_first_queue(row.queue->name);
    }
    delivery.set_vmta(is_pool ? "" : request.target());
    if (is_pool) delivery.set_pool(request.target());
    ChooseVmta(delivery);
    if (delivery.vmta() == row.queue->vmta()) return false;
    delivery.mutable_reroute()->set_target(request.target());
    delivery.mutable_reroute()->set_reason(request.reason());
    delivery.mutable_reroute()->set_author(request.author());
    delivery.mutable_reroute()->set_since_us(NowUs());
    const std::string domain(row.queue->domain());
    Queue& to = queues_.Get(domain, delivery.vmta(), delivery.pool(), journal_.batch());
    RefreshPause(to);
    const Lane& lane = row.queue->LaneOf(row.key.lane);
    LaneFor(to, lane.id, lane.job_id(), lane.priority);
    DeliveryKey next = row.key;
    next.queue_id = to.id;
    common::v1::Event& event =
        NewEvent(common::v1::EVENT_KIND_REROUTED, to, *row.message, &delivery);
    event.set_from_queue(row.queue->name);
    event.set_author(request.author());
    event.set_reason(request.reason());
    MoveRow(*row.queue, row.key, to, next, delivery, *row.message);
    response->set_recipients(response->recipients() + 1);
    return true;
  };
  walk->on_end = [this, response, done = std::move(done)](bool more, const std::string&) mutable {
    response->set_more(more);
    journal_.WhenDurable(AnswerWith(response, std::move(done)));
  };
  RunWalk(std::move(walk));
}

void Shard::ReleaseMessages(v1::ReleaseMessagesRequest request,
                            Done<v1::ReleaseMessagesResponse> done) {
  if (absl::Status status = CheckFilter(request.filter()); !status.ok()) {
    done(status);
    return;
  }
  auto walk = std::make_shared<Walk>();
  walk->filter = request.filter();
  walk->filter.set_held_only(true);
  walk->limit = LimitOf(request.limit());
  walk->needs_message = true;
  auto response = std::make_shared<v1::ReleaseMessagesResponse>();
  walk->on_row = [this, response, request](const WalkRow& row) {
    if (row.busy || row.damaged) return false;
    common::v1::Delivery delivery = row.delivery;
    delivery.clear_hold();
    delivery.set_lost_leases(0);
    DeliveryKey next = row.key;
    next.due_us = NowUs();
    NewEvent(common::v1::EVENT_KIND_RELEASED, *row.queue, *row.message, &delivery)
        .set_author(request.author());
    CountHeld(row.key, -1);
    MoveRow(*row.queue, row.key, *row.queue, next, delivery, *row.message);
    response->set_recipients(response->recipients() + 1);
    return true;
  };
  walk->on_end = [this, response, done = std::move(done)](bool more, const std::string&) mutable {
    response->set_more(more);
    journal_.WhenDurable(AnswerWith(response, std::move(done)));
  };
  RunWalk(std::move(walk));
}

}  // namespace sluice::queue
