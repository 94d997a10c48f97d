"""Real processes under a test: started in a folder of their own, waited for, killed, never left behind.

Every test process has a block of loopback addresses of its own, taken from its process id, so that tests that run side by side use the
same fixed ports, and a program that is started again finds its old address free.
"""
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

POLL_S = 0.01
# A sanitizer (./tools/sanitize) makes programs some ten times slower, on a machine that runs other tests beside this one.
SLOWER = 5 if os.environ.get("SLUICE_SANITIZER") else 1
START_S = 60  # a machine under load
STOP_S = 60
# What a sanitizer says before it ends the program.
REPORT = re.compile(r"ERROR: \w*Sanitizer|WARNING: ThreadSanitizer|runtime error: ")
LOG_TAIL_LINES = 60
PR_SET_PDEATHSIG = 1
# As in services/base/testing/temp_folder.h.
FOLDER_PREFIX = "sluice-test-"
FOLDER_MAKING_S = 60


class Failure(AssertionError):
    """What a scenario waited for did not come."""


def wait_until(condition, what, seconds=START_S):
    """Calls `condition` until it is true; returns its value. Failure naming `what` after `seconds`, more under a sanitizer."""
    seconds *= SLOWER
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"no {what} within {seconds} s")
        time.sleep(POLL_S)  # the step of the poll: what is awaited is another process's


def loopback(number, pid=None):
    """Address `number` (0 to 14) of this process's block of 127.0.0.0/8."""
    if not 0 <= number <= 14:
        raise ValueError(number)
    pid = os.getpid() if pid is None else pid
    return f"127.{16 + (pid >> 12) % 200}.{(pid >> 4) & 255}.{(pid & 15) * 16 + number}"


def program(target):
    """Path of a built program, from its path in the tree: below Bazel's runfiles, or in bazel-bin."""
    for root in (pathlib.Path.cwd(), pathlib.Path.cwd() / "bazel-bin"):
        path = root / target
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    raise Failure(f"{target} is not built (looked in {pathlib.Path.cwd()} and its bazel-bin)")


def answers(address, port):
    """True where somebody accepts TCP connections."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False


# The kernel means the parent thread: start processes from a thread that outlives them.
def _die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """One program that may be started, killed and started again; all its output is in one log."""

    def __init__(self, name, argv, folder, env=None, ready_file=None, is_ready=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.log = pathlib.Path(folder) / f"{name}.log"
        self.ready_file = pathlib.Path(ready_file) if ready_file else None
        self._is_ready = is_ready
        self._env = env
        self._popen = None
        self.starts = 0

    @property
    def pid(self):
        return self._popen.pid

    def alive(self):
        return self._popen is not None and self._popen.poll() is None

    def start(self, wait=True):
        if self.alive():
            raise Failure(f"{self.name} runs already")
        if self.ready_file:
            self.ready_file.unlink(missing_ok=True)
        self.starts += 1
        with open(self.log, "ab") as log:
            log.write(f"--- start {self.starts}: {' '.join(self.argv)}\n".encode())
            log.flush()
            self._popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env,
                                           preexec_fn=_die_with_parent)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, seconds=START_S):
        def ready():
            if not self.alive():
                raise Failure(f"{self.name} ended with {self._popen.returncode} before it was ready\n{self.log_tail()}")
            if self.ready_file:
                return self.ready_file.exists()
            return self._is_ready is None or self._is_ready()
        try:
            wait_until(ready, f"readiness of {self.name}", seconds)
        except Failure as failure:
            raise Failure(f"{failure}\n{self.log_tail()}") from None
        return self

    def addresses(self):
        """What the ready file says."""
        return json.loads(self.ready_file.read_text(encoding="utf-8"))

    def kill(self):
        """kill -9, and gone when this returns."""
        if self.alive():
            self._popen.kill()
        if self._popen is not None:
            self._popen.wait()

    def signal(self, number):
        self._popen.send_signal(number)

    def wait(self, seconds=STOP_S):
        """The exit code; Failure where it does not end."""
        try:
            return self._popen.wait(seconds * SLOWER)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name} did not end within {seconds} s\n{self.log_tail()}") from None

    def stop(self, seconds=STOP_S):
        """SIGTERM, and the exit code."""
        if self._popen is None:
            return None
        if self.alive():
            self._popen.terminate()
        return self.wait(seconds)

    def log_text(self):
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def log_tail(self, lines=LOG_TAIL_LINES):
        return f"--- end of {self.log}\n" + "\n".join(self.log_text().splitlines()[-lines:])


def _locked(folder):
    """A file descriptor that locks it while it is open, or None where it is gone or another's."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def remove_left_behind(parent):
    """Folders of tests that were killed: nobody locks them any more."""
    for folder in pathlib.Path(parent).glob(FOLDER_PREFIX + "*"):
        lock = _locked(folder)
        if lock is None:
            continue
        facts = os.fstat(lock)
        # Between its making and its lock a folder looks like one that was left behind.
        if facts.st_uid == os.geteuid() and facts.st_mtime < time.time() - FOLDER_MAKING_S:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


class Scenario:
    """A folder and the processes in it; a context manager that leaves neither behind. Where the test itself is killed, its processes die with it,
    and the next one removes the folder. SLUICE_KEEP in the environment keeps it."""

    def __init__(self, name):
        parent = os.environ.get("TEST_TMPDIR") or tempfile.gettempdir()
        remove_left_behind(parent)
        prefix = "sluice-kept-" if os.environ.get("SLUICE_KEEP") else FOLDER_PREFIX
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{prefix}{name}-", dir=parent))
        self._lock = _locked(self.folder)
        self.processes = []

    def add(self, process):
        self.processes.append(process)
        return process

    def path(self, name):
        return self.folder / name

    def close(self, show_logs=False):
        """Failure where a sanitizer reported anything, even if nothing else noticed."""
        for process in reversed(self.processes):
            process.kill()
        reports = [process for process in self.processes if REPORT.search(process.log_text())]
        if show_logs or reports:
            for process in self.processes:
                print(process.log_tail(), file=sys.stderr)
        if os.environ.get("SLUICE_KEEP"):
            print(f"kept {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if reports:
            raise Failure(f"a sanitizer's report from {', '.join(process.name for process in reports)}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close(show_logs=kind is not None)
