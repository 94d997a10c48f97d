"""The systems that are measured side by side: nothing (the generator sends to the sink), Postfix, sluiced, the four services."""
import grp
import json
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import time
import urllib.request

from tests.bench import measure
from tests.harness import processes, sluice
from tests.harness.processes import Failure, Process, loopback, program, wait_until

SINK_SMTP_PORT = 2600
SINK_DNS_PORT = 5300
SINK_HTTP_PORT = 8025
POSTFIX_PORT = 2525
# Sources of deliveries, within the block of this process.
SOURCES = (13, 14)


class Sink:
    """sluice-sink with SMTP, DNS and counters."""

    def __init__(self, scenario, rules=(), round_trip_ms=0, tls=False):
        self.address = loopback(12)
        argv = [program("tools/sink/sluice-sink"), "--listen", f"{self.address}:{SINK_SMTP_PORT}", "--dns", f"{self.address}:{SINK_DNS_PORT}",
                "--http", f"{self.address}:{SINK_HTTP_PORT}", "--round-trip", f"{round_trip_ms}ms", "--domains", "20", "--quiet",
                "--seed", "1", "--ready-file", scenario.path("sink.ready")]
        for rule in rules:
            argv += ["--rule", rule]
        if tls:
            argv += ["--tls-certificate", "self-signed"]
        self.process = scenario.add(Process("sink", argv, scenario.folder, ready_file=scenario.path("sink.ready")))

    def start(self):
        self.process.start()
        return self

    @property
    def smtp(self):
        return f"{self.address}:{SINK_SMTP_PORT}"

    @property
    def resolver(self):
        return f"{self.address}:{SINK_DNS_PORT}"

    def _http(self, path, body=None):
        with urllib.request.urlopen(f"http://{self.address}:{SINK_HTTP_PORT}{path}", data=body, timeout=30) as answer:
            return answer.read().decode()

    def counters(self):
        return json.loads(self._http("/counters"))

    def reset(self):
        self._http("/reset", b"")

    def set_rule(self, rule):
        self._http("/rules", rule.encode())


class Direct:
    """(a) No system between generator and sink."""
    name = "sink"
    title = "generator → sink"
    stores = False
    sheds_backlog = False

    def __init__(self, scenario, sink, profile):
        del scenario, profile
        self.target = sink.smtp

    def start(self):
        return self

    def roots(self):
        return []

    def spool(self):
        return "/"

    def stop(self):
        pass


def read_pid(path):
    try:
        return int(pathlib.Path(path).read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None


class Postfix:
    """(b) Postfix as a relay: a second instance with a configuration, queue and address of its own; the machine's is not touched."""
    stores = True
    sheds_backlog = True
    tuned = False
    name = "postfix"
    title = "Postfix, stock"

    def __init__(self, scenario, sink, profile):
        if not shutil.which("postfix"):
            raise SystemExit("bench: Postfix is not installed (apt-get install postfix)")
        if os.geteuid() != 0:
            raise SystemExit("bench: Postfix is started by root")
        self.folder = scenario.path(self.name)
        self.config = self.folder / "etc"
        self.queue = self.folder / "queue"
        self.data = self.folder / "data"
        self.address = loopback(10)
        self.target = f"{self.address}:{POSTFIX_PORT}"
        # Postfix's daemons must be able to pass through.
        for folder in (scenario.folder, self.folder, self.config, self.queue, self.data):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(self.data, owner.pw_uid, grp.getgrnam("postfix").gr_gid)
        master = pathlib.Path("/usr/share/postfix/master.cf.dist").read_text(encoding="utf-8")
        lines = []
        for line in master.splitlines():
            fields = line.split()
            if line.startswith("smtp ") and fields[1] == "inet":
                line = f"{self.target} inet n - n - - smtpd"
            elif len(fields) >= 8 and not line.startswith(("#", " ")) and fields[4] == "y":
                # No chroot: the queue has no copy of /etc.
                fields[4] = "n"
                line = " ".join(fields)
            lines.append(line)
        (self.config / "master.cf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {
            "compatibility_level": "3.6", "queue_directory": self.queue, "data_directory": self.data, "myhostname": "postfix.bench.test",
            "mydestination": "", "inet_interfaces": "127.0.0.1", "inet_protocols": "ipv4", "mynetworks": "127.0.0.0/8",
            "relayhost": f"[{sink.address}]:{SINK_SMTP_PORT}", "smtpd_recipient_limit": 100000, "message_size_limit": 104857600,
            "mailbox_size_limit": 0, "alias_maps": "", "alias_database": "",
            "default_destination_recipient_limit": profile.recipients_per_message,
        }
        settings["minimal_backoff_time"] = settings["queue_run_delay"] = f"{profile.retry_after_s}s"
        settings["maximal_backoff_time"] = f"{max(profile.retry_after_s, 2)}s"
        if self.tuned:
            # What Postfix's own TUNING_README says for many messages to few destinations.
            settings.update({
                "default_process_limit": 200, "smtp_destination_concurrency_limit": 100, "initial_destination_concurrency": 50,
                "in_flow_delay": 0, "qmgr_message_active_limit": 40000, "qmgr_message_recipient_limit": 40000,
                "smtpd_client_connection_count_limit": 0, "smtp_connection_cache_on_demand": "yes", "max_use": 1000,
                "smtpd_peername_lookup": "no", "smtp_connection_reuse_count_limit": 0, "anvil_rate_time_unit": "600s",
                "disable_vrfy_command": "yes", "enable_long_queue_ids": "yes"})
        if profile.connections_per_domain:
            # To Postfix the relay host is one destination, whatever the domains.
            settings["smtp_destination_concurrency_limit"] = profile.connections_per_domain * profile.domains
            settings["default_process_limit"] = max(200, profile.connections_per_domain * profile.domains + 100)
        (self.config / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()), encoding="utf-8")

    def _run(self, *argv, check=True):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise Failure(f"{' '.join(map(str, argv))}: exit code {done.returncode}\n{done.stderr}{done.stdout}")
        return done

    def start(self):
        self._run("postfix", "-c", self.config, "start")
        sluice.wait_port(self.address, POSTFIX_PORT, "Postfix")
        return self

    def _master(self):
        return read_pid(self.queue / "pid" / "master.pid")

    def roots(self):
        return [pid for pid in [self._master()] if pid]

    def spool(self):
        return self.queue

    def hold(self):
        self._run("postconf", "-c", self.config, "defer_transports=smtp")
        self._run("postfix", "-c", self.config, "reload")

    def release(self):
        self._run("postconf", "-c", self.config, "defer_transports=")
        self._run("postfix", "-c", self.config, "reload")
        self._run("postqueue", "-c", self.config, "-f")

    def stop(self):
        master = self._master()
        self._run("postfix", "-c", self.config, "stop", check=False)
        if master:
            wait_until(lambda: not pathlib.Path(f"/proc/{master}").exists(), "end of Postfix", 60)


class PostfixTuned(Postfix):
    name = "postfix-tuned"
    title = "Postfix, tuned"
    tuned = True


def make_certificate(path):
    """A key (ECDSA P-256) and its certificate in one PEM file."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=mx.bench.test", "-keyout", f"{path}.key", "-out", f"{path}.crt"], check=True, capture_output=True)
    pathlib.Path(path).write_text(pathlib.Path(f"{path}.key").read_text(encoding="utf-8")
                                  + pathlib.Path(f"{path}.crt").read_text(encoding="utf-8"), encoding="utf-8")
    return path


def sluice_configuration(profile, rate="", certificate=None):
    """`rate`: a max-msg-rate of the queue, as the language writes it. `certificate`: PEM file of the listeners, with which TLS is offered."""
    sources = {f"v{i + 1}": (loopback(n), f"out{i + 1}.bench.test") for i, n in enumerate(SOURCES)}
    # One virtual MTA, so that a profile with one domain has one queue with all its connections.
    limit = profile.connections_per_domain or profile.outbound_connections
    return sluice.configuration(dict(list(sources.items())[:1]), SINK_SMTP_PORT, domain_extra="\n".join([
        f"  max-smtp-out {limit}", f"  max-rcpt-per-message {profile.recipients_per_message}",
        f"  max-msg-rate {rate}" if rate else "",
        f"  max-msg-per-connection {profile.messages_per_delivery_connection}" if profile.messages_per_delivery_connection else "",
        f"  use-starttls {'yes' if profile.tls else 'no'}", f"  reuse-ssl-session {'no' if profile.full_handshakes else 'yes'}"]),
        extra="\n".join([f"smtp-server-tls-certificate {certificate}\nallow-starttls yes" if certificate else "",
                         "total-max-smtp-in 20000" if profile.idle else ""])).replace(
            "retry-after 1s", f"retry-after {profile.retry_after_s}s").replace(
                "retry-recipients-after 1s", f"retry-recipients-after {profile.retry_after_s}s")


class Sluiced:
    """(c) The four services in one process."""
    name = "sluiced"
    title = "sluiced"
    stores = True
    sheds_backlog = True

    def __init__(self, scenario, sink, profile):
        self.profile = profile
        certificate = make_certificate(scenario.path("listener.pem")) if profile.tls else None
        self.node = sluice.Node(scenario, sluice_configuration(profile, certificate=certificate), sink.resolver)
        self.ctl = self.node.ctl
        self.target = f"{self.node.address}:{sluice.SMTP_PORT}"

    def start(self):
        self.node.start()
        return self

    def services(self):
        return [self.node.service]

    def roots(self):
        return [service.pid for service in self.services()]

    def spool(self):
        return self.services()[0].data

    def hold(self):
        self._ctl("pause", "*/*", "--reason", "bench")

    def release(self):
        self._ctl("resume", "*/*")

    def config(self):
        return self.node.config

    def limit_rate(self, rate):
        """Every queue's max-msg-rate from now on; empty: none."""
        self.config().write_text(sluice_configuration(self.profile, rate), encoding="utf-8")
        self._ctl("reload")

    def kill(self):
        """kill -9 of everything at once."""
        for service in self.services():
            service.kill()

    def _ctl(self, *arguments):
        done = self.ctl.run(*arguments)
        if done.returncode != 0:
            raise Failure(f"sluicectl {' '.join(arguments)}: {done.stderr}")

    def stop(self):
        for service in self.services():
            service.stop()


def fill_spool(data_dir, profile):
    """The profile's messages, one recipient each, into the spool of a queue service that does not run; it ends as by kill -9."""
    argv = [program("tests/bench/spool/sluice-spool"), "--data-dir", data_dir, "--messages", profile.messages, "--queues", profile.domains,
            "--size", profile.size, "--kill"]
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    if done.returncode != -signal.SIGKILL:
        raise Failure(f"sluice-spool: exit code {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def drop_caches():
    """What the kernel has of files in memory is forgotten; needs root."""
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="utf-8")


class Services(Sluiced):
    """(d) The four services as processes."""
    name = "services"
    title = "four services"

    def __init__(self, scenario, sink, profile):  # pylint: disable=super-init-not-called
        self.profile = profile
        certificate = make_certificate(scenario.path("listener.pem")) if profile.tls else None
        self.cluster = sluice.Cluster(scenario, sluice_configuration(profile, certificate=certificate), sink.resolver, workers={"worker-0": [loopback(SOURCES[0])]})
        self.ctl = self.cluster.ctl
        self.target = f"{self.cluster.address}:{sluice.SMTP_PORT}"

    def start(self):
        self.cluster.start()
        return self

    def services(self):
        return self.cluster.services()

    def spool(self):
        return self.cluster.shards[0].data

    def config(self):
        return self.cluster.config


class SmtpSink:
    """Postfix's smtp-sink as the receiver, to check ours against it."""

    def __init__(self, scenario):
        self.address = loopback(11)
        self.target = f"{self.address}:{SINK_SMTP_PORT}"
        argv = [shutil.which("smtp-sink") or "/usr/sbin/smtp-sink", "-u", "nobody", self.target, "1024"]
        self.process = scenario.add(Process("smtp-sink", argv, scenario.folder,
                                            is_ready=lambda: processes.answers(self.address, SINK_SMTP_PORT)))

    def start(self):
        self.process.start()
        return self


ALL = {system.name: system for system in (Direct, Postfix, PostfixTuned, Sluiced, Services)}


def await_drained(sink, expected, deadline_s, on_progress=None):
    """Until `expected` recipients have an end at the sink (taken or refused for good), or nothing has come for `deadline_s`."""
    last_count, last_change = -1, time.monotonic()
    while True:
        counters = sink.counters()
        count = counters["recipients"] + counters["rejected"]
        if count != last_count:
            last_count, last_change = count, time.monotonic()
            if on_progress:
                on_progress(count)
        if count >= expected:
            return counters, True
        if time.monotonic() - last_change > deadline_s:
            return counters, False
        time.sleep(0.05 if expected - count < 20000 else 0.5)


__all__ = ["ALL", "Sink", "await_drained", "measure", "processes"]
