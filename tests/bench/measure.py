"""What a run costs: CPU, memory, bytes written and syncs of a process tree, read from /proc and, where it is there, perf."""
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_S = 0.1
SYNC_CALLS = ("fsync", "fdatasync", "sync_file_range", "sync", "syncfs")
VOLATILE = ("tmpfs", "ramfs")


def file_system(path):
    """(type, device number "major:minor") of the file system that holds `path`."""
    path = pathlib.Path(path).resolve()
    best = (-1, "", "")
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].encode().decode("unicode_escape")
        inside = point == "/" or str(path) == point or str(path).startswith(point + "/")
        if inside and len(point) >= best[0]:
            best = (len(point), right.split()[0], left.split()[2])
    return best[1], best[2]


def refuse_volatile(path):
    """Exits where `path` would not survive a power cut: a spool there proves nothing."""
    kind, _ = file_system(path)
    if kind in VOLATILE:
        raise SystemExit(f"bench: {path} is on {kind}; a spool must be on a disk (choose another --dir)")


def sync_probe(folder, count=200):
    """Median seconds of appending 4 KiB and syncing it."""
    path = pathlib.Path(folder) / "sync-probe"
    times = []
    block = os.urandom(4096)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(count):
            start = time.perf_counter()
            os.write(descriptor, block)
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(times)


def parse_stat(text):
    """(name, parent, own and reaped children's CPU ticks, resident pages) of a /proc/PID/stat line."""
    name = text[text.index("(") + 1:text.rindex(")")]
    fields = text[text.rindex(")") + 2:].split()
    return name, int(fields[1]), sum(map(int, fields[11:15])), int(fields[21])


def processes():
    """{pid: parse_stat} of everything that runs."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                found[int(entry)] = parse_stat(pathlib.Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace"))
            except (OSError, ValueError):
                pass  # it has ended
    return found


def tree(roots, table):
    """`roots` and all below them that live."""
    children = {}
    for pid, (_, parent, _, _) in table.items():
        children.setdefault(parent, []).append(pid)
    todo = [pid for pid in roots if pid in table]
    found = []
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def written(pid):
    """Bytes that the process, and its children that have ended, sent towards a disk."""
    try:
        text = pathlib.Path(f"/proc/{pid}/io").read_text(encoding="utf-8")
    except OSError:
        return 0
    values = dict(re.findall(r"^(\w+): (\d+)$", text, re.M))
    return int(values["write_bytes"]) - int(values["cancelled_write_bytes"])


def device_counters(device):
    """(bytes written, flushes) of a block device "major:minor"; zeros where it has none of its own."""
    for line in pathlib.Path("/proc/diskstats").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if f"{fields[0]}:{fields[1]}" == device:
            return int(fields[9]) * 512, int(fields[18]) if len(fields) > 18 else 0
    return 0, 0


class SyncCounter:
    """System calls that sync, of all processes, by perf; None without perf or without the right to use it."""

    def __init__(self):
        self._perf = None
        if shutil.which("perf"):
            events = ",".join(f"syscalls:sys_enter_{call}" for call in SYNC_CALLS)
            self._perf = subprocess.Popen(["perf", "stat", "-x", ",", "-a", "-e", events, "sleep", "1000000"], stdin=subprocess.DEVNULL,
                                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
            time.sleep(0.2)  # perf says nowhere that it counts
            if self._perf.poll() is not None:
                self._perf = None

    def stop(self):
        if self._perf is None:
            return None
        os.killpg(self._perf.pid, signal.SIGINT)
        _, text = self._perf.communicate(timeout=30)
        counts = [int(line.split(",")[0]) for line in text.splitlines() if "sys_enter_" in line and line.split(",")[0].isdigit()]
        return sum(counts) if counts else None


def resident_bytes(roots):
    """Memory of the trees below `roots`, now."""
    table = processes()
    return sum(table[pid][3] for pid in tree(roots, table)) * PAGE


class Meter:
    """Watches the trees below `roots` from start() to stop()."""

    def __init__(self, roots, spool):
        self._roots = list(roots)
        self._device = file_system(spool)[1]
        self._peak_by_name = {}
        self._peak_sum = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def _totals(self):
        table = processes()
        pids = tree(self._roots, table)
        return sum(table[pid][2] for pid in pids) / TICKS, sum(written(pid) for pid in pids)

    def _sample_once(self):
        table = processes()
        total = 0
        for pid in tree(self._roots, table):
            name, _, _, pages = table[pid]
            total += pages * PAGE
            self._peak_by_name[name] = max(self._peak_by_name.get(name, 0), pages * PAGE)
        self._peak_sum = max(self._peak_sum, total)

    def _sample(self):
        while not self._ended.wait(SAMPLE_S):
            self._sample_once()

    def start(self):
        self._syncs = SyncCounter()
        self._cpu, self._written = self._totals()
        self._device_written, self._flushes = device_counters(self._device)
        self._thread.start()

    def cpu_s(self):
        """CPU seconds since start()."""
        return self._totals()[0] - self._cpu

    def stop(self):
        self._ended.set()
        self._thread.join()
        self._sample_once()
        cpu, wrote = self._totals()
        device_written, flushes = device_counters(self._device)
        return {
            "cpu_s": cpu - self._cpu,
            "written_bytes": wrote - self._written,
            "device_written_bytes": device_written - self._device_written,
            "device_flushes": flushes - self._flushes,
            "syncs": self._syncs.stop(),
            "rss_peak_bytes": self._peak_sum,
            "rss_peak_by_process": self._peak_by_name,
        }
