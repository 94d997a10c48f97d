"""Sluice under test: `Node` is sluiced, `Cluster` the four services as processes of their own, `ctl` is sluicectl.

All of them have fixed addresses in the test's own block (processes.loopback), so that whatever is killed is found at its place again.
"""
import json
import subprocess
import urllib.request

from tests.harness import processes
from tests.harness.processes import Failure, Process, loopback, program, wait_until

SMTP_PORT = 2525
RPC_PORT = 7100
METRICS_PORT = 9100
CTL_S = 60


def configuration(sources, sink_port, extra="", domain_extra=""):
    """Directives of a test: virtual MTAs v1, v2... with one source IP each ({name: (ip, host name)}), all in the pool `all`."""
    text = ["host-name mx.sluice.test"]
    # Loopback may relay by default; which virtual MTA and job it wants, it may say here.
    text += ["<source 127.0.0.0/8>", "  always-allow-relaying yes", "  process-x-virtual-mta yes", "  process-x-job yes",
             "  process-x-envid yes", "  default-virtual-mta all", "</source>"]
    for name, (address, host) in sources.items():
        text += [f"<virtual-mta {name}>", f"  smtp-source-host {address} {host}", "</virtual-mta>"]
    text += ["<virtual-mta-pool all>"] + [f"  virtual-mta {name}" for name in sources] + ["</virtual-mta-pool>"]
    text += ["<domain *>", f"  default-smtp-port {sink_port}", "  allow-private-destinations yes", "  retry-after 1s",
             "  retry-recipients-after 1s", domain_extra, "</domain>", extra, ""]
    return "\n".join(text)


def default_sources():
    return {"v1": (loopback(13), "out1.sluice.test"), "v2": (loopback(14), "out2.sluice.test")}


class Ctl:
    """sluicectl against one admin API."""

    def __init__(self, server, ingest=None):
        self._server = server
        self._ingest = ingest or server

    def run(self, *arguments, stdin=None, seconds=CTL_S):
        """CompletedProcess; output as text."""
        argv = [program("tools/ctl/sluicectl"), "--server", self._server, *map(str, arguments)]
        if arguments and arguments[0] == "inject":
            argv += ["--ingest", self._ingest]
        return subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=seconds * processes.SLOWER,
                              text=not isinstance(stdin, bytes))

    def json(self, *arguments, seconds=CTL_S, ok=(0,)):
        """The answer as Python values; Failure unless the exit code is one of `ok`."""
        done = self.run("-o", "json", *arguments, seconds=seconds)
        if done.returncode not in ok:
            raise Failure(f"sluicectl {' '.join(map(str, arguments))}: exit code {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def status(self):
        return self.json("status", ok=(0, 5))

    def totals(self):
        """Sums over the shards that answer."""
        shards = self.status()["shards"]
        keys = ("accepted_total", "delivered_total", "transient_total", "failed_total", "expired_total", "recipients", "leased_recipients")
        return {key: sum(shard[key] for shard in shards) for key in keys}

    def wait_empty(self, seconds=120):
        """Until no shard holds a recipient, and the counts are exact."""
        def empty():
            status = self.status()
            return (status["shards"] and not status["unreachable"]
                    and all(s["recipients"] == 0 and not s["counting"] for s in status["shards"]))
        wait_until(empty, "empty queues", seconds)

    def events(self, message_id):
        return self.json("events", "--message", message_id)["events"]


def metrics(address, port=METRICS_PORT, path="/metrics"):
    with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=10 * processes.SLOWER) as answer:
        return answer.read().decode()


class Service(Process):
    """One of our daemons. `flags` in the order given; --data-dir, --ready-file and --metrics-listen are added."""

    def __init__(self, scenario, name, target, address, flags):
        self.address = address
        self.data = scenario.path(name)
        argv = [program(target), "--data-dir", self.data, "--instance", name, "--metrics-listen", f"{address}:{METRICS_PORT}",
                "--ready-file", scenario.path(f"{name}.ready"), *flags]
        super().__init__(name, argv, scenario.folder, ready_file=scenario.path(f"{name}.ready"))
        scenario.add(self)

    def is_ready(self):
        try:
            return metrics(self.address, path="/readyz") is not None
        except OSError:
            return False


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


class Node:
    """sluiced: one process, all four services."""

    def __init__(self, scenario, config, resolver, name="sluiced", address=None, flags=()):
        self.address = address or loopback(1)
        self.config = write(scenario.path(f"{name}.conf"), config)
        self.service = Service(scenario, name, "services/node/sluiced", self.address, [
            "--config", self.config, "--smtp-listen", f"{self.address}:{SMTP_PORT}", "--rpc-listen", f"{self.address}:{RPC_PORT}",
            "--resolver", resolver, *flags])
        self.ctl = Ctl(f"{self.address}:{RPC_PORT}")

    def start(self):
        self.service.start()
        return self


class Cluster:
    """policy, shards, workers and ingest as processes. Addresses: policy 1, ingest 2, shards 3 and 4, workers 5 and 6 of the block.

    `workers`: {name: [source IPs that count as its machine's]}.
    """

    def __init__(self, scenario, config, resolver, shards=1, workers=None, flags=()):
        workers = workers or {"worker-0": [loopback(13), loopback(14)]}
        if shards > 2 or len(workers) > 2:
            raise ValueError("the block of addresses has room for two shards and two workers")
        self.config = write(scenario.path("cluster.conf"), config)
        policy = loopback(1)
        self.address = loopback(2)  # ingest
        rpc = lambda address: ["--rpc-listen", f"{address}:{RPC_PORT}"]
        policy_flag = ["--policy", f"{policy}:{RPC_PORT}"]
        shard_flags = [flag for i in range(shards) for flag in ("--shard", f"shard-{i}={loopback(3 + i)}:{RPC_PORT}")]
        worker_flags = [flag for i, name in enumerate(workers) for flag in ("--worker", f"{name}={loopback(5 + i)}:{RPC_PORT}")]
        self.policy = Service(scenario, "policy", "services/policy/sluice-policy", policy,
                              ["--config", self.config, *rpc(policy), *shard_flags, *worker_flags, *flags])
        self.shards = [Service(scenario, f"shard-{i}", "services/queue/sluice-queue", loopback(3 + i),
                               ["--name", f"shard-{i}", *rpc(loopback(3 + i)), *policy_flag, *flags]) for i in range(shards)]
        self.workers = []
        for i, (name, sources) in enumerate(workers.items()):
            source_flags = [flag for source in sources for flag in ("--source-ip", source)]
            self.workers.append(Service(scenario, name, "services/delivery/sluice-delivery", loopback(5 + i),
                                        [*rpc(loopback(5 + i)), *policy_flag, *shard_flags, *source_flags, "--resolver", resolver, *flags]))
        self.ingest = Service(scenario, "ingest", "services/ingest/sluice-ingest", self.address,
                              ["--smtp-listen", f"{self.address}:{SMTP_PORT}", *rpc(self.address), *policy_flag, *shard_flags, *flags])
        self.ctl = Ctl(f"{policy}:{RPC_PORT}", f"{self.address}:{RPC_PORT}")

    def services(self):
        return [self.policy, *self.shards, *self.workers, self.ingest]

    def start(self):
        for service in self.services():
            service.start(wait=False)
        for service in self.services():
            service.wait_ready()
        # Its file is there after some seconds also where the shards take longer.
        wait_until(self.ingest.is_ready, "shard that takes mail")
        return self


def wait_port(address, port, what, seconds=processes.START_S):
    wait_until(lambda: processes.answers(address, port), f"{what} at {address}:{port}", seconds)
