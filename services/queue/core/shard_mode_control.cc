// Operators' words on backoff mode and sources: for queues that are here, and for named ones, which
// get a row so that mail to come finds it.
#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/latest_time.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr size_t kMostChangedBytes = size_t{2} << 20;
constexpr size_t kMostNames = 100'000;
constexpr size_t kMostNameBytes = 1'000;

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

// Goes over the queues some hundred a turn.
struct Shard::QueueChange {
  std::set<std::string, std::less<>> names;
  std::set<std::string, std::less<>> rollups;   // names of <mx-rollup-list>: all of their queues
  std::string pattern;                          // empty: only the names
  absl::AnyInvocable<bool(Queue&)> apply;       // true: it was news
  absl::AnyInvocable<void(QueueChange&)> done;  // all of them are in batches
  std::string position;                         // of the walk through what matches
  bool named_done = false;
  uint64_t queues = 0;
  std::vector<std::string> changed;
  size_t changed_bytes = 0;
  bool changed_cut = false;

  void Count(const std::string& name, bool news) {
    ++queues;
    if (!news) return;
    changed_cut |= changed_bytes + name.size() > kMostChangedBytes;
    if (changed_cut) return;
    changed_bytes += name.size();
    changed.push_back(name);
  }
};

absl::StatusOr<std::string> Shard::QueueNameOf(std::string_view given) {
  const size_t slash = given.find('/');
  if (slash == 0 || slash == given.npos || slash + 1 == given.size() ||
      given.size() > kMostNameBytes || given.find_first_of("*?") != given.npos ||
      std::any_of(given.begin(), given.end(),
                  [](char c) { return static_cast<unsigned char>(c) <= 0x20 || c == 0x7f; })) {
    return absl::InvalidArgumentError(
        absl::StrCat("queues are named domain/vmta, and not ", Absl(given.substr(0, 100))));
  }
  const std::string domain = absl::AsciiStrToLower(Absl(given.substr(0, slash)));
  const std::string_view vmta = given.substr(slash + 1);
  const auto* known = policy_->FindVirtualMta(vmta);
  std::string name =
      absl::StrCat(domain, "/", known == nullptr ? Absl(vmta) : absl::string_view(known->name()));
  if (known == nullptr && queues_.Find(name) == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("there is no queue ", name, ", and no virtual MTA of that name",
                     policy_->FindPool(vmta) == nullptr ? ""
                                                        : ": it is a pool, and queues are those of "
                                                          "its virtual MTAs"));
  }
  return name;
}

template <class Request, class Response>
void Shard::ChangeQueues(Request request, Done<Response> done,
                         absl::AnyInvocable<bool(Queue&, const Request&)> change) {
  if (request.pattern().empty() && request.names().empty()) {
    done(absl::InvalidArgumentError("which queues? They are named domain/vmta, with * and ?"));
    return;
  }
  if (static_cast<size_t>(request.names_size()) > kMostNames) {
    done(absl::InvalidArgumentError(absl::StrCat("more than ", kMostNames, " names")));
    return;
  }
  if (request.until_us() < 0 || request.until_us() > kLatestUnixUs) {
    done(absl::InvalidArgumentError("the end is before 1970 or after the year 9999"));
    return;
  }
  auto all = std::make_shared<QueueChange>();
  for (const std::string& given : request.names()) {
    auto name = QueueNameOf(given);
    if (!name.ok()) {
      done(name.status());
      return;
    }
    (IsRollup(name->substr(0, name->find('/'))) ? all->rollups : all->names)
        .insert(*std::move(name));
  }
  all->pattern = request.pattern();
  all->apply = [request = std::move(request), change = std::move(change)](Queue& queue) mutable {
    return change(queue, request);
  };
  all->done = [this, done = std::move(done)](QueueChange& all) mutable {
    if (all.queues == 0) {
      done(absl::NotFoundError(absl::StrCat("no queue of shard ", options_.name, " matches")));
      return;
    }
    Response response;
    response.set_queues(all.queues);
    for (std::string& name : all.changed) response.add_changed(std::move(name));
    response.set_changed_cut(all.changed_cut);
    journal_.WhenDurable([response = std::move(response),
                          done = std::move(done)](const absl::Status& status) mutable {
      if (status.ok()) {
        done(std::move(response));
      } else {
        done(status);
      }
    });
  };
  ChangeMoreQueues(std::move(all));
}

void Shard::ChangeMoreQueues(std::shared_ptr<QueueChange> change) {
  constexpr int kQueuesPerTurn = 200;
  int left = kQueuesPerTurn;
  if (!change->named_done) {
    auto name = change->names.upper_bound(change->position);
    for (; left > 0 && name != change->names.end(); ++name, --left) {
      const size_t slash = name->find('/');
      Queue& queue = queues_.Get(std::string_view(*name).substr(0, slash),
                                 std::string_view(*name).substr(slash + 1), "", journal_.batch());
      if (queue.settings == nullptr) RefreshPause(queue);
      change->Count(*name, change->apply(queue));
      change->position = *name;
    }
    change->named_done = name == change->names.end();
    if (change->named_done) change->position.clear();
  }
  const bool walks = !change->pattern.empty() || !change->rollups.empty();
  bool through = !walks && change->named_done;
  if (change->named_done && walks) {
    // Looking is cheaper than changing.
    constexpr int kLooksPerChange = 20;
    left *= kLooksPerChange;
    auto it = queues_.all().upper_bound(change->position);
    for (; left > 0 && it != queues_.all().end(); --left) {
      Queue& queue = *it->second;
      change->position = queue.name;
      ++it;  // before a change, which may add queues
      if (change->names.contains(queue.name) ||
          !(IsNamed(queue, change->pattern) ||
            (queue.rollup != nullptr && change->rollups.contains(OwnerKey(queue))))) {
        continue;
      }
      left -= kLooksPerChange;
      change->Count(queue.name, change->apply(queue));
    }
    through = it == queues_.all().end();
  }
  journal_.Seal();
  if (through) {
    change->done(*change);
  } else {
    PostTask([this, change = std::move(change)]() mutable { ChangeMoreQueues(std::move(change)); });
  }
}

void Shard::SetQueueMode(v1::SetQueueModeRequest request, Done<v1::SetQueueModeResponse> done) {
  const auto change = [this](Queue& queue, const v1::SetQueueModeRequest& request) {
    const bool was = InBackoff(queue);
    const bool named = !request.names().empty();
    // What is normal stays as it is; but where another shard has it in backoff mode, which is why
    // it is named, this one must not learn that from a worker later.
    if (!request.backoff() && !was && !named) return false;
    if (queue.backoff == nullptr) queue.backoff = std::make_unique<Queue::Backoff>();
    v1::QueueModeState mode;
    mode.set_backoff(request.backoff());
    mode.set_since_us(std::max(NowUs(), queue.backoff->mode.since_us() + 1));
    if (request.backoff()) mode.set_until_us(request.until_us());
    mode.set_author(request.author());
    mode.set_reason(request.reason());
    mode.set_by_operator(true);
    AdoptMode(queue, mode);
    TellMode(queue);
    Offer(queue);
    return was || request.backoff();
  };
  ChangeQueues<v1::SetQueueModeRequest, v1::SetQueueModeResponse>(std::move(request),
                                                                  std::move(done), change);
}

void Shard::SetQueueSource(v1::SetQueueSourceRequest request,
                           Done<v1::SetQueueSourceResponse> done) {
  if (request.ip().empty()) {
    done(absl::InvalidArgumentError("which address?"));
    return;
  }
  const auto change = [this](Queue& queue, const v1::SetQueueSourceRequest& request) {
    const bool named = !request.names().empty();
    if (queue.backoff == nullptr) {
      if (!request.disable() && !named) return false;
      queue.backoff = std::make_unique<Queue::Backoff>();
    }
    auto& sources = queue.backoff->sources;
    auto own = std::find_if(sources.begin(), sources.end(),
                            [&](const auto& each) { return each.ip() == request.ip(); });
    const bool was = own != sources.end() && own->disabled();
    if (!request.disable() && !was && !named) return false;
    if (own == sources.end()) own = sources.emplace(own);
    v1::DisabledSource source;
    source.set_ip(request.ip());
    source.set_disabled(request.disable());
    source.set_since_us(std::max(NowUs(), own->since_us() + 1));
    if (request.disable()) source.set_until_us(request.until_us());
    source.set_author(request.author());
    source.set_reason(request.reason());
    source.set_by_operator(true);
    AdoptSource(queue, *own, source);
    TellMode(queue);
    Offer(queue);
    return was || request.disable();
  };
  ChangeQueues<v1::SetQueueSourceRequest, v1::SetQueueSourceResponse>(std::move(request),
                                                                      std::move(done), change);
}

}  // namespace sluice::queue
