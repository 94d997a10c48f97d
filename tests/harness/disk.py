"""A small file system of its own, on a loop device: to be filled, made to fail, and mended. Needs root."""
import ctypes
import functools
import os
import shutil
import subprocess

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def missing():
    """Why no file system can be mounted here, or None."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        return "no loop mounts here (needs root and loop devices)"
    return None if shutil.which("mkfs.ext4", path=PATH) else "mkfs.ext4 is not installed (e2fsprogs)"


def _run(*argv, check=True):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False,
                          env=os.environ | {"PATH": PATH})
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")
    return done


CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


@functools.cache
def _own_mounts():
    """Mounts of this thread, and of processes that it starts, are theirs alone and go with them, however the test ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "no mounts of its own")


class Disk:
    """ext4 of `size_mib` at `.path`; a context manager, or close() by the caller."""

    def __init__(self, scenario, size_mib, name="disk"):
        _own_mounts()
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
