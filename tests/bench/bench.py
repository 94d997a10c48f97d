"""Measures mail systems side by side under the same load. `./tools/bench` builds what this needs and runs it."""
import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

from tests.bench import measure, report, systems
from tests.bench.profiles import PROFILES
from tests.harness.processes import Failure, Scenario, program

WARM_UP_MESSAGES = 400
SETTLE_S = 1.0
STALL_S = 60
RESTART_DELIVERIES = 100_000  # after which a restart has shown what it can


def say(text):
    print(text, file=sys.stderr, flush=True)


def load(profile, target, messages, test_id="load", rate=0.0, sessions=None, headers=()):
    """Runs the generator; returns (start in seconds since the epoch, its JSON)."""
    argv = [program("tests/bench/loadgen/sluice-load"), "--to", target, "--messages", messages, "--size", profile.size,
            "--sessions", min(sessions or profile.sessions, messages), "--per-connection", profile.per_connection,
            "--recipients", profile.recipients, "--domains", profile.domains, "--zipf", profile.zipf, "--test-id", test_id,
            "--rate", rate, "--domain", "bench.test"]
    if profile.pipelining:
        argv.append("--pipelining")
    if profile.tls:
        argv.append("--starttls")
    if profile.full_handshakes:
        argv.append("--no-tls-resumption")
    for header in headers:
        argv += ["--header", header]
    start = time.time()
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2):
        raise Failure(f"generator: exit code {done.returncode}: {done.stderr}")
    return start, json.loads(done.stdout)


def warm_up(profile, system, sink):
    """Connections, caches and pools as a server has them that has been up for a while."""
    messages = min(WARM_UP_MESSAGES, max(profile.messages // 10, 1))
    small = dataclasses.replace(profile, size=min(profile.size, 10240), recipients=1)
    load(small, system.target, messages, "warm")
    systems.await_drained(sink, messages, STALL_S)
    if profile.tls and sink.counters()["tls_connections"] == 0:
        raise Failure("nothing came by TLS")
    time.sleep(SETTLE_S)
    sink.reset()


def rates(result, generated, sink_counters, begin):
    span = sink_counters["last_message_us"] / 1e6 - begin
    result["accept_per_s"] = generated["accepted_per_s"]
    result["accepted"] = generated["accepted"]
    result["not_accepted"] = generated["deferred"] + generated["rejected"] + generated["lost"]
    result["delivered"] = sink_counters["recipients"]
    result["end_to_end_per_s"] = sink_counters["recipients"] / span if span > 0 else None
    result["accept_latency"] = generated["latency"]
    result["delivery_latency"] = sink_counters["latency"]
    result["generator_cpu_s"] = generated["cpu_s"]


def costs(result, meter, messages):
    cost = meter.stop()
    result.update(cost)
    if messages:
        result["cpu_s_per_1000"] = cost["cpu_s"] / messages * 1000
        result["written_per_message"] = cost["written_bytes"] / messages
        result["device_written_per_message"] = cost["device_written_bytes"] / messages
        result["device_flushes_per_message"] = cost["device_flushes"] / messages
        if cost["syncs"] is not None:
            result["syncs_per_message"] = cost["syncs"] / messages


class Progress:
    """Deliveries over time, to tell the rate between the start and the last stragglers."""

    def __init__(self, expected):
        self._expected = expected
        self._seen = []

    def __call__(self, count):
        if 0.1 * self._expected <= count <= 0.9 * self._expected:
            self._seen.append((time.monotonic(), count))

    def per_s(self):
        """None where too little was seen."""
        if len(self._seen) < 2:
            return None
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end - begin)


def drained(sink, expected, result, patience_s=0, progress=None):
    stall_s = STALL_S + patience_s
    counters, complete = systems.await_drained(sink, expected, stall_s, progress)
    if not complete:
        result["notes"].append(f"only {counters['recipients']} of {expected} recipients arrived, none in the last {stall_s} s")
    return counters


def run_flow(profile, system, sink, result):
    warm_up(profile, system, sink)
    meter = measure.Meter(system.roots(), system.spool())
    meter.start()
    begin, generated = load(profile, system.target, profile.messages)
    expected = generated["accepted"] * profile.recipients
    progress = Progress(expected)
    counters = drained(sink, expected, result, progress=progress)
    time.sleep(SETTLE_S if system.stores else 0)
    costs(result, meter, generated["accepted"] * profile.recipients)
    rates(result, generated, counters, begin)
    if profile.recipients > 1:
        result["transactions"] = counters["messages"]
        result["body_bytes_per_transaction"] = counters["bytes"] / max(counters["messages"], 1)
        result["notes"].append(f"{counters['messages']:,} transactions for {counters['recipients']:,} recipients")
    if profile.round_trip_ms:
        # A message costs one round trip: the final dot leaves with the next MAIL, RCPT and DATA, whose answers come with the dot's. What is
        # refused for now costs one more. The last stragglers wait for their retry and not for the network, so the rate is that of the middle.
        limit = profile.connections_per_domain * profile.domains / (profile.round_trip_ms / 1000) * (1 - profile.deferred)
        steady = progress.per_s()
        result["of_possible_rate"] = steady / limit if steady else None
        result["notes"].append(f"{limit:,.0f} msgs/s are possible with {profile.connections_per_domain * profile.domains} connections; "
                               + (f"reached {100 * steady / limit:.0f} %" if steady else "too few messages to tell the rate"))


@contextlib.contextmanager
def idle_connections(profile, system):
    """Connections that have said EHLO and say nothing more. Each generator has few enough of them for the ports of one address pair."""
    argv = [program("tests/bench/loadgen/sluice-load"), "--to", system.target, "--idle", profile.idle, "--messages", 2, "--rate", 0.0001,
            "--sessions", 1, "--domain", "bench.test", "--timeout", "60m"] + (["--starttls"] if profile.tls else [])
    holder = subprocess.Popen([str(a) for a in argv], stdout=subprocess.DEVNULL)  # pylint: disable=consider-using-with
    try:
        yield holder
    finally:
        holder.kill()
        holder.wait()


def run_idle(profile, system, sink, result):
    """The same load twice: alone, and beside the idle connections. Their memory is what the process grew by."""
    warm_up(profile, system, sink)
    begin, generated = load(profile, system.target, profile.messages, "alone")
    counters = drained(sink, generated["accepted"], result)
    rates(result, generated, counters, begin)
    alone = result["end_to_end_per_s"]
    time.sleep(SETTLE_S)
    before = measure.resident_bytes(system.roots())
    with idle_connections(profile, system):
        # Its own first message comes behind the last idle connection.
        if not systems.await_drained(sink, counters["recipients"] + 1, STALL_S)[1]:
            raise Failure("the idle connections did not all come")
        time.sleep(SETTLE_S)
        result["bytes_per_idle_connection"] = (measure.resident_bytes(system.roots()) - before) / profile.idle
        sink.reset()
        meter = measure.Meter(system.roots(), system.spool())
        meter.start()
        begin, generated = load(profile, system.target, profile.messages, "beside")
        counters = drained(sink, generated["accepted"], result)
        costs(result, meter, generated["accepted"])
        rates(result, generated, counters, begin)
    lost = 1 - result["end_to_end_per_s"] / alone if alone else 0
    result["notes"].append(f"{alone:,.0f} msgs/s alone, {100 * max(lost, 0):.1f} % less beside {profile.idle:,} idle connections of "
                           f"{result['bytes_per_idle_connection'] / 1024:.1f} KiB each")


def run_backlog(profile, system, sink, result):
    warm_up(profile, system, sink)
    # The flowing rate of the same run, as the yardstick.
    flowing = max(profile.messages // 20, 2000)
    begin, generated = load(profile, system.target, flowing, "flow")
    counters = drained(sink, generated["accepted"], result)
    result["flowing_per_s"] = counters["recipients"] / (counters["last_message_us"] / 1e6 - begin)
    sink.reset()
    system.hold()
    meter = measure.Meter(system.roots(), system.spool())
    meter.start()
    _, generated = load(profile, system.target, profile.messages)
    begin = time.time()
    system.release()
    counters = drained(sink, generated["accepted"], result)
    time.sleep(SETTLE_S)
    costs(result, meter, generated["accepted"])
    rates(result, generated, counters, begin)
    result["of_flowing_rate"] = result["end_to_end_per_s"] / result["flowing_per_s"]
    result["notes"].append(f"drained at {100 * result['of_flowing_rate']:.0f} % of the flowing rate ({result['flowing_per_s']:,.0f}/s)")


def run_storm(profile, system, sink, result):
    """The first attempt of every recipient gets a 451. Delivery is held until all are accepted; then all are tried within one period of
    `retry_after_s`, so that as many are due within the next one, when no rate holds any more. Lateness is what the second attempt exceeds
    `retry_after_s` by."""
    system.hold()
    system.limit_rate(f"{round(profile.messages / profile.retry_after_s)}/s")
    meter = measure.Meter(system.roots(), system.spool())
    meter.start()
    _, generated = load(profile, system.target, profile.messages)
    begin = time.time()
    system.release()
    time.sleep(profile.retry_after_s - 1)
    system.limit_rate("")
    counters = drained(sink, generated["accepted"], result, patience_s=2 * profile.retry_after_s)
    time.sleep(SETTLE_S)
    costs(result, meter, generated["accepted"])
    rates(result, generated, counters, begin)
    wait = counters["greylist_wait"]
    result["lateness_p50_s"] = wait["p50_us"] / 1e6 - profile.retry_after_s
    result["lateness_p99_s"] = wait["p99_us"] / 1e6 - profile.retry_after_s
    result["notes"].append(f"lateness p50 {result['lateness_p50_s']:.2f} s, p99 {result['lateness_p99_s']:.2f} s")


def run_fairness(profile, system, sink, result):
    """The small job's latency alone, then while the big one is being delivered."""
    load(profile, system.target, profile.small_messages, "alone", rate=profile.small_rate, headers=["X-Job: alone"])
    drained(sink, profile.small_messages, result)
    alone = sink.counters()["latency_by_load"]["alone"]
    sink.reset()
    system.hold()
    meter = measure.Meter(system.roots(), system.spool())
    meter.start()
    _, generated = load(profile, system.target, profile.messages, "big", headers=["X-Job: big"])
    begin = time.time()
    system.release()
    load(profile, system.target, profile.small_messages, "small", rate=profile.small_rate, sessions=4, headers=["X-Job: small"])
    beside = sink.counters()
    counters = drained(sink, generated["accepted"] + profile.small_messages, result)
    time.sleep(SETTLE_S)
    costs(result, meter, generated["accepted"] + profile.small_messages)
    rates(result, generated, counters, begin)
    small = counters["latency_by_load"]["small"]
    result["small_alone"], result["small_beside_big"] = alone, small
    done = beside["recipients"] < generated["accepted"]
    result["notes"].append(f"small job p50/p99 ms: alone {report.pair(alone)}, beside the big one {report.pair(small)}"
                           + ("" if done else " (the big one had ended before; use a larger --scale)"))


def run_restart(profile, system, sink, result):
    """A spool of millions, left by a kill -9, is opened with a cold cache: how long until the receiver has a first message, and how much memory
    it takes. `sluice-spool` writes it, for SMTP would take minutes."""
    system.kill()
    filled = systems.fill_spool(system.spool(), profile)
    systems.drop_caches()
    begin = time.time()
    system.start()
    result["start_s"] = time.time() - begin
    meter = measure.Meter(system.roots(), system.spool())
    meter.start()
    counters = drained(sink, min(filled["accepted"], RESTART_DELIVERIES), result)
    first = counters["first_message_us"] / 1e6 - begin
    costs(result, meter, counters["recipients"])
    result["delivered"] = counters["recipients"]
    result["end_to_end_per_s"] = counters["recipients"] / (counters["last_message_us"] / 1e6 - begin)
    result["delivery_latency"] = None
    result["first_delivery_after_kill_s"] = first
    result["notes"].append(f"{filled['accepted']:,} messages spooled in {filled['seconds']:.0f} s, {filled['cpu_us_per_message']:.1f} µs each; ready "
                           f"{result['start_s']:.2f} s after its start, first delivery after {first:.2f} s; highest RSS "
                           f"{result['rss_peak_bytes'] / 2**20:,.0f} MiB")


RUNS = {"flow": run_flow, "idle": run_idle, "restart": run_restart, "backlog": run_backlog, "storm": run_storm, "fairness": run_fairness}


def run(profile, name, folder):
    """One system under one profile: its result."""
    kind = systems.ALL[name]
    result = {"profile": profile.name, "system": name, "title": kind.title, "messages": profile.messages, "notes": []}
    os.environ["TEST_TMPDIR"] = str(folder)
    with Scenario(f"bench-{name}") as scenario:
        sink = systems.Sink(scenario, profile.rules, profile.round_trip_ms, profile.tls).start()
        system = kind(scenario, sink, profile)
        try:
            system.start()
            RUNS[profile.kind](profile, system, sink, result)
        finally:
            system.stop()
        usage = measure.processes().get(sink.process.pid)
        result["sink_cpu_s"] = usage[2] / measure.TICKS if usage else None
    return result


def cross_check(profile, folder):
    """Our generator and receiver against Postfix's: lines of text. Each pair moves the same messages."""
    os.environ["TEST_TMPDIR"] = str(folder)
    lines = [f"cross-check: {profile.messages:,} messages of {profile.size:,} bytes, {profile.sessions} sessions"]
    with Scenario("bench-cross") as scenario:
        ours = systems.Sink(scenario).start()
        theirs = systems.SmtpSink(scenario).start()
        for name, target in (("sluice-sink", ours.smtp), ("smtp-sink", theirs.target)):
            _, generated = load(profile, target, profile.messages)
            lines.append(f"  sluice-load  → {name:12} {generated['accepted_per_s']:>10,.0f} msgs/s")
        for name, target in (("sluice-sink", ours.smtp), ("smtp-sink", theirs.target)):
            argv = ["smtp-source", "-d", "-s", profile.sessions, "-m", profile.messages, "-l", profile.size, "-t", "load@bench.test", target]
            ours.reset()
            start = time.monotonic()
            done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
            seconds = time.monotonic() - start
            if done.returncode != 0:
                raise Failure(f"smtp-source: exit code {done.returncode}: {done.stderr}")
            if name == "sluice-sink" and ours.counters()["messages"] != profile.messages:
                raise Failure(f"smtp-source sent {profile.messages}, sluice-sink counted {ours.counters()['messages']}")
            lines.append(f"  smtp-source  → {name:12} {profile.messages / seconds:>10,.0f} msgs/s")
    return lines


def scaled(profile, divisor):
    return dataclasses.replace(profile, messages=max(profile.messages // divisor, profile.sessions if profile.kind == "flow" else 100))


def main():
    parser = argparse.ArgumentParser(prog="./tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="profiles:\n" + "\n".join(f"  {p.name:10} {p.what}" for p in PROFILES.values()))
    parser.add_argument("--profile", action="append", choices=PROFILES, help="may be repeated (default: 10k)")
    parser.add_argument("--all", action="store_true", help="every profile; takes hours and tens of GB at full size")
    parser.add_argument("--system", action="append", choices=systems.ALL, help="may be repeated (default: all that the profile compares)")
    parser.add_argument("--quick", action="store_true", help="a fraction of the messages, to see that all works")
    parser.add_argument("--messages", type=int, help="instead of the profile's number")
    parser.add_argument("--sessions", type=int, help="instead of the profile's number")
    parser.add_argument("--pipelining", action="store_true", help="the generator pipelines")
    parser.add_argument("--cross-check", action="store_true", help="generator and receiver against Postfix's smtp-source and smtp-sink, no more")
    parser.add_argument("--dir", default="/var/tmp/sluice-bench", help="where spools go; refused on tmpfs (default: %(default)s)")
    parser.add_argument("--output", default="bench-out", help="folder for results.json and chart.svg (default: %(default)s)")
    arguments = parser.parse_args()

    folder = pathlib.Path(arguments.dir)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    measure.refuse_volatile(folder)
    names = list(PROFILES) if arguments.all else arguments.profile or ["10k"]
    probe = measure.sync_probe(folder)
    facts = {"machine": platform.platform(), "cores": len(os.sched_getaffinity(0)), "file_system": measure.file_system(folder)[0],
             "sync_p50_us": probe * 1e6, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    print(f"{facts['machine']}, {facts['cores']} cores, {facts['file_system']}, sync p50 {facts['sync_p50_us']:,.0f} µs, {facts['time']}")
    if arguments.cross_check:
        print("\n".join(cross_check(dataclasses.replace(PROFILES[names[0]], messages=arguments.messages or 50_000), folder)))
        return 0
    runs = []
    failed = False
    for name in names:
        profile = PROFILES[name]
        if arguments.quick:
            profile = scaled(profile, profile.quick_divisor)
        changes = {k: getattr(arguments, k) for k in ("messages", "sessions") if getattr(arguments, k)}
        if arguments.pipelining:
            changes["pipelining"] = True
        profile = dataclasses.replace(profile, **changes)
        results = []
        for system in arguments.system or profile.systems:
            say(f"{profile.name}: {systems.ALL[system].title}, {profile.messages:,} messages ...")
            try:
                results.append(run(profile, system, folder))
            except (Failure, OSError, subprocess.SubprocessError) as error:
                failed = True
                results.append({"profile": name, "system": system, "title": systems.ALL[system].title, "notes": [f"failed: {error}"]})
        runs.append((profile, results))
        print("\n" + "\n".join(report.table(profile, results)), flush=True)
    output = pathlib.Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    data = {"facts": facts, "profiles": [{**dataclasses.asdict(profile), "results": results} for profile, results in runs]}
    (output / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    (output / "chart.svg").write_text(report.svg(runs), encoding="utf-8")
    print(f"\n{output / 'results.json'}, {output / 'chart.svg'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
