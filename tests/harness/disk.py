"""A small file system of its own, on a loop device: to be filled, made to fail, and mended. Needs root."""
import os
import subprocess


def possible():
    return os.geteuid() == 0 and os.path.exists("/dev/loop-control")


def _run(*argv, check=True):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done


class Disk:
    """ext4 of `size_mib` at `.path`; a context manager, or close() by the caller."""

    def __init__(self, scenario, size_mib, name="disk"):
        self._image = scenario.path(f"{name}.img")
        self.path = scenario.path(name)
        self.path.mkdir()
        with open(self._image, "wb") as image:
            image.truncate(size_mib << 20)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image)
        self._mounted = False
        self.mount()

    def mount(self):
        _run("mount", "-o", "loop", self._image, self.path)
        self._mounted = True

    def fail(self):
        """From now on every write is an error, as when the device behind it went away; what was synced stays."""
        _run("mount", "-o", "remount,abort", self.path)

    def mend(self):
        """As after a restart of the machine with a good device. Nobody may have files open here."""
        self.close()
        _run("e2fsck", "-p", "-f", self._image, check=False)  # 1: mended, as it must be after fail()
        self.mount()

    def free_mib(self):
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize >> 20

    def close(self):
        if self._mounted:
            _run("umount", self.path)
            self._mounted = False

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()
