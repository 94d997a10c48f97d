#!/usr/bin/env python3
"""Builds Sluice, starts it beside a test receiver, sends mail through it and says how it went. tools/quickstart installs what this needs."""
import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

USAGE = """\
Usage: ./tools/quickstart [OPTIONS]

Installs what is missing, builds, starts sluiced (all four services, spool in a folder) and sluice-sink (a receiver that behaves as remote
providers do), sends messages in by SMTP and by gRPC, shows their delivery from two source IPs, and prints a summary.

  --messages N   messages to send, half by SMTP, half by gRPC (default 20000)
  --size BYTES   size of each (default 10240)
  --keep         leave everything running, and say how to talk to it
  --stop         stop what --keep left running
  --folder PATH  spool and logs (default ~/.cache/sluice/quickstart); made anew by each run, and deleted by --stop
  -h, --help     this text
"""

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGETS = {
    "sluiced": "services/node/sluiced",
    "sluice-sink": "tools/sink/sluice-sink",
    "sluicectl": "tools/ctl/sluicectl",
    "sluice-load": "tests/bench/loadgen/sluice-load",
}
EXAMPLE = ROOT / "deploy/examples/quickstart.conf"
SMTP = ("127.0.0.1", 2525)
RPC = ("127.0.0.1", 7100)
METRICS = ("127.0.0.1", 9100)
SINK_SMTP = ("127.0.0.1", 2526)
SINK_DNS = ("127.0.0.1", 5354)
SINK_HTTP = ("127.0.0.1", 9101)
FOLDER = pathlib.Path.home() / ".cache/sluice/quickstart"
# In each folder that this made, and so may delete.
MARK = "made-by-quickstart"
START_S = 60
DELIVERY_S = 600
# Recipients are in d1.example ... d10.example: two of them are not so easy.
DOMAINS = 10
RULES = ("d3.example defer=0.1", "d7.example reject=0.02")


class Trouble(Exception):
    """What went wrong, and what to do, in words for the user."""


class Progress:
    """One line that is drawn over on a terminal; elsewhere a line now and then."""

    STEP_S = 5

    def __init__(self):
        self._terminal = sys.stdout.isatty()
        self._last = 0.0
        self._shown = ""

    def show(self, text):
        if self._terminal:
            print(f"\r\x1b[K  {text}", end="", flush=True)
            self._shown = text
        elif time.monotonic() - self._last >= self.STEP_S:
            self._last = time.monotonic()
            print(f"  {text}", flush=True)

    def done(self, text=None):
        if self._terminal and self._shown:
            print("\r\x1b[K", end="")
            self._shown = ""
        if text:
            print(f"  {text}", flush=True)


def build(progress):
    targets = ["//" + path.rpartition("/")[0] + ":" + path.rpartition("/")[2] for path in TARGETS.values()]
    began = time.monotonic()
    print("Building (the first time takes some minutes)", flush=True)
    process = subprocess.Popen(["bazel", "build", "--curses=no", "--color=no", "--show_progress_rate_limit=1", *targets],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    lines = []
    for line in process.stdout:
        lines.append(line)
        step = re.search(r"\[([\d,]+) / ([\d,]+)\]\s*(.*)", line)
        if step:
            progress.show(f"{step.group(1)} of {step.group(2)} steps")
    if process.wait() != 0:
        progress.done()
        raise Trouble("the build failed:\n" + "".join(lines[-40:]))
    progress.done(f"built in {time.monotonic() - began:.0f} s")


def in_use(address):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return True
    return False


def binary(name):
    return str(ROOT / "bazel-bin" / TARGETS[name])


def at(address):
    return f"{address[0]}:{address[1]}"


class Daemon:
    """A program in the background; its process id is in a file, so that a later --stop finds it."""

    def __init__(self, folder, name, argv, keep):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            # A session of its own, so that Ctrl-C reaches us first and what is kept outlives the terminal.
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder)
        self._pid_file = folder / f"{name}.pid"
        self._pid_file.write_text(f"{self._process.pid}\n")
        self._keep = keep

    def wait_ready(self, condition):
        deadline = time.monotonic() + START_S
        while not condition():
            if self._process.poll() is not None:
                raise Trouble(f"{self.name} did not start (exit code {self._process.returncode}):\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Trouble(f"{self.name} was not ready after {START_S} s:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self):
        return "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-20:])

    def alive(self):
        return self._process.poll() is None

    def stop(self):
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._pid_file.unlink(missing_ok=True)


def kept(folder):
    """{name: pid} of what an earlier --keep left running."""
    found = {}
    for path in folder.glob("*.pid"):
        pid = int(path.read_text().strip() or 0)
        try:
            program = pathlib.Path(os.readlink(f"/proc/{pid}/exe")).name
        except OSError:
            continue
        # The id may belong to another program by now.
        if program.replace(" (deleted)", "") == path.stem:
            found[path.stem] = pid
    return found


def clear(folder):
    """Takes away what an earlier run left. A folder that no run of this made is never touched."""
    if not folder.exists():
        return
    if folder != FOLDER and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARK).exists())):
        raise Trouble(f"{folder} has other things in it, which this would delete: give an empty or a new folder by --folder")
    shutil.rmtree(folder, ignore_errors=True)


def make(folder):
    clear(folder)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("Made by tools/quickstart, which deletes this folder when it is run or stopped again.\n")


def stop_kept(folder):
    running = kept(folder)
    for name, pid in running.items():
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 40
        while pathlib.Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        print(f"  stopped {name}")
    clear(folder)
    return bool(running)


def overrides(folder):
    """Directives beside the example: where the test receiver is, and retries that a demonstration can wait for."""
    path = folder / "quickstart-overrides.conf"
    path.write_text(f"""# Written by tools/quickstart: the receiver is on this machine.
<domain *>
  default-smtp-port {SINK_SMTP[1]}
  allow-private-destinations yes
  retry-after 2s
  retry-recipients-after 2s
</domain>
""")
    return path


def metrics():
    """{name: value} of sluiced."""
    with urllib.request.urlopen(f"http://{at(METRICS)}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: int(value) if value.isdigit() else float(value) for name, _, value in samples}


def counters():
    """What the receiver counted."""
    with urllib.request.urlopen(f"http://{at(SINK_HTTP)}/counters", timeout=10) as answer:
        return json.load(answer)


def is_ready():
    try:
        with urllib.request.urlopen(f"http://{at(METRICS)}/readyz", timeout=10):
            return True
    except OSError:
        return False


def send(folder, options):
    """Both loads; each writes its result to a file."""
    half = options.messages // 2
    common = ["--size", options.size, "--domain", "example", "--domains", DOMAINS, "--from", "news@sender.example"]
    loads = {"smtp": [half, "--to", at(SMTP), "--sessions", 20, "--test-id", "smtp"],
             "grpc": [options.messages - half, "--grpc", at(RPC), "--streams", 2, "--test-id", "grpc"]}
    senders = []
    for name, (messages, *flags) in loads.items():
        argv = [binary("sluice-load"), "--messages", messages, *common, *flags, "--output", folder / f"{name}.json"]
        with open(folder / f"{name}.log", "wb") as log:
            senders.append(subprocess.Popen(list(map(str, argv)), stdout=log, stderr=log))
    return senders


def watch(progress, daemons, senders):
    """Shows the counts until everything that was sent has an end; returns them and the seconds that it took."""
    began = time.monotonic()
    deadline = began + DELIVERY_S
    while True:
        for daemon in daemons:
            if not daemon.alive():
                raise Trouble(f"{daemon.name} ended:\n{daemon.tail()}")
        sent = all(sender.poll() is not None for sender in senders)
        now = metrics()
        seconds = max(time.monotonic() - began, 0.001)
        progress.show(f"accepted {now['sluice_queue_accepted_messages_total']:,}   delivered {now['sluice_queue_delivered_recipients_total']:,}   "
                      f"deferrals {now['sluice_queue_transient_total']:,}   bounced {now['sluice_queue_failed_recipients_total']:,}   "
                      f"waiting {now['sluice_queue_recipients']:,}")
        if sent and now["sluice_queue_recipients"] == 0:
            progress.done()
            return now, seconds
        if time.monotonic() > deadline:
            progress.done()
            raise Trouble(f"after {DELIVERY_S} s {now['sluice_queue_recipients']:,} recipients still wait; logs are in {daemons[0].log.parent}")
        time.sleep(0.1)


def milliseconds(value):
    return f"{value / 1000:,.1f} ms"


def summary(now, seconds, received, flow_seconds):
    """Lines of the summary: (what, how much)."""
    bounced = now["sluice_queue_failed_recipients_total"] + now["sluice_queue_expired_recipients_total"]
    lines = [
        ("accepted", f"{now['sluice_ingest_messages_accepted_total']:,} messages, each synced to disk before its 250"),
        ("delivered", f"{now['sluice_queue_delivered_recipients_total']:,} (bounces to the sender among them)"),
        # The receiver puts off some twice; it refuses none of these, and none are left.
        ("deferred, then delivered", f"{now['sluice_queue_transient_total']:,} deferrals (who is put off twice counts twice)"),
        ("bounced", f"{bounced:,}"),
        ("rate", f"{now['sluice_ingest_messages_accepted_total'] / flow_seconds:,.0f} messages/s in and out; all ends after {seconds:.1f} s"),
    ]
    latency = received["latency"]
    if latency["count"]:
        lines.append(("injection to delivery", f"p50 {milliseconds(latency['p50_us'])}, p99 {milliseconds(latency['p99_us'])} (deferred mail included)"))
    for ip, source in sorted(received["sources"].items()):
        lines.append((f"from {ip}", f"{source['messages']:,} messages, as {source['ehlo']}"))
    return lines


def own_folder(folder):
    """The flag that a later --stop needs."""
    return "" if folder == FOLDER else f" --folder {shlex.quote(str(folder))}"


def run(options, folder):
    progress = Progress()
    build(progress)
    if kept(folder):
        print("Stopping what an earlier run left")
        stop_kept(folder)
    make(folder)
    for name, address in (("SMTP", SMTP), ("gRPC", RPC), ("metrics", METRICS), ("the receiver's SMTP", SINK_SMTP), ("the receiver's HTTP", SINK_HTTP)):
        if in_use(address):
            raise Trouble(f"{at(address)} ({name}) is in use by another program: stop it first")
    daemons = []
    try:
        print("Starting the receiver and sluiced")
        sink_ready = folder / "sink.json"
        rules = [flag for rule in RULES for flag in ("--rule", rule)]
        sink = Daemon(folder, "sluice-sink", [binary("sluice-sink"), "--listen", at(SINK_SMTP), "--dns", at(SINK_DNS), "--http", at(SINK_HTTP),
                                              "--ready-file", str(sink_ready), "--quiet", *rules], options.keep)
        daemons.append(sink)
        sink.wait_ready(sink_ready.exists)
        sluiced = Daemon(folder, "sluiced", [binary("sluiced"), "--data-dir", str(folder / "data"), "--config", str(EXAMPLE), str(overrides(folder)),
                                             "--smtp-listen", at(SMTP), "--rpc-listen", at(RPC), "--metrics-listen", at(METRICS),
                                             "--resolver", at(SINK_DNS)], options.keep)
        daemons.append(sluiced)
        sluiced.wait_ready(is_ready)
        print(f"Sending {options.messages:,} messages of {options.size:,} bytes, half by SMTP, half by gRPC")
        senders = send(folder, options)
        now, seconds = watch(progress, daemons, senders)
        flow = max((json.loads((folder / f"{name}.json").read_text())["elapsed_s"] for name in ("smtp", "grpc")))
        print()
        for name, value in summary(now, seconds, counters(), flow):
            print(f"  {name:26}{value}")
        print()
        if options.keep:
            print(f"Running: SMTP {at(SMTP)}, gRPC {at(RPC)}, http://{at(METRICS)}/metrics; receiver SMTP {at(SINK_SMTP)}, http://{at(SINK_HTTP)}/counters\n"
                  f"  {os.path.relpath(binary('sluicectl'))} inject --from me@sender.example --to you@d1.example\n"
                  f"  {os.path.relpath(binary('sluicectl'))} status\n"
                  f"  spool and logs: {folder}\n  stop it: ./tools/quickstart --stop{own_folder(folder)}")
            daemons = []
        return 0
    finally:
        for daemon in reversed(daemons):
            daemon.stop()


def main():
    parser = argparse.ArgumentParser(usage=USAGE, add_help=False)
    parser.add_argument("--messages", type=int, default=20000)
    parser.add_argument("--size", type=int, default=10240)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--stop", action="store_true")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER)
    options = parser.parse_args()
    folder = options.folder.absolute()
    try:
        if options.stop:
            if not stop_kept(folder):
                print(f"Nothing was running in {folder}.")
            return 0
        return run(options, folder)
    except Trouble as trouble:
        print(f"quickstart: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
