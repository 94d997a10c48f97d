"""Mail servers that others wrote, each in a folder of its own: Postfix, Exim and OpenSMTPD, as a relay into Sluice or as a mailbox behind it.

Debian lets only one of them be installed, so Exim and OpenSMTPD come unpacked (tools/unpack_peers). All run in mount and process
namespaces of their own, where they find the files and users that they were compiled for; the machine's are not touched. Needs root.
"""
import functools
import os
import pathlib
import pwd
import shutil
import subprocess

from tests.harness.processes import Process, answers, program

UNPACKED = pathlib.Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache/sluice/peers"
POSTFIX = pathlib.Path("/usr/sbin/postfix")
FIRST_ID = 61990  # of users that exist only inside
SUBMISSIONS_PORT = 465
INSIDE = pathlib.Path("/mnt")  # where a server finds its folder: the way to it from outside may be closed to its users


@functools.cache
def namespaces():
    """True where a process may have mounts of its own, overlays among them."""
    script = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/a && mount -t overlay overlay -o lowerdir=/mnt/a:/usr /usr"
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script], capture_output=True,
                                                check=False).returncode == 0


def missing(kind):
    """Why a server of this kind cannot run here, or None."""
    if not namespaces():
        return "no namespaces or overlay mounts here (needs root)"
    if not kind.found():
        return f"{kind.__name__} is not there (tools/install_packages --test brings it)"
    return None


class Mta(Process):
    """`relay`: (address, port) where everything goes; without it everything is kept in mails().

    `tls`: (certificate, key) of a server that takes nothing in clear; True for a relay that sends nothing in clear. `from_first_byte`: the
    server has no STARTTLS, but TLS from the first byte, on port 465 (Exim alone).
    """

    port = 2527  # one for each kind: the kernel may still have that of another one that was killed
    PACKAGE = None
    USERS = ()
    KEY_OWNER = (0, 0)

    @classmethod
    def found(cls):
        return (UNPACKED / cls.PACKAGE).is_dir()

    def __init__(self, scenario, address, relay=None, tls=None, from_first_byte=False):
        self.address = address
        self.from_first_byte = from_first_byte
        if from_first_byte:
            self.port = SUBMISSIONS_PORT
        name = type(self).__name__.lower()
        self.home = scenario.path(name)
        self.mail = self.home / "mail"
        self.mail.mkdir(parents=True)
        os.chmod(self.home, 0o755)
        for file, line in (("passwd", "{0}:x:{1}:{1}::{2}:/usr/sbin/nologin\n"), ("group", "{0}:x:{1}:\n")):
            text = pathlib.Path("/etc", file).read_text(encoding="utf-8")
            for number, user in enumerate(self.USERS, FIRST_ID):
                text += line.format(user, number, INSIDE / "mail")
            (self.home / file).write_text(text, encoding="utf-8")
        script = ["set -e", f"mount --bind {self.home} {INSIDE}"]
        if self.USERS:
            os.chown(self.mail, FIRST_ID, FIRST_ID)
            script += [f"mount --bind {self.home}/{file} /etc/{file}" for file in ("passwd", "group")]
        if self.PACKAGE:
            script.append(f"mount -t overlay overlay -o lowerdir={UNPACKED / self.PACKAGE}/usr:/usr /usr")
        self.tls = tls
        if tls and not relay:
            for path, file in zip(tls, ("cert.pem", "key.pem")):
                shutil.copy(path, self.home / file)
            # Each of the three looks at who owns its key, in its own way.
            os.chmod(self.home / "key.pem", 0o600)
            os.chown(self.home / "key.pem", *self.KEY_OWNER)
        script += self.configure(relay)
        (self.home / "start.sh").write_text("\n".join(script) + "\n", encoding="utf-8")
        super().__init__(name, ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", self.home / "start.sh"],
                         scenario.folder, is_ready=lambda: answers(self.address, self.port))
        scenario.add(self)

    def configure(self, relay):
        """Writes its files; the shell commands that set up its namespace and become the server."""
        raise NotImplementedError

    def mails(self):
        """Contents of all that was delivered here."""
        return [path.read_bytes() for path in self.mail.glob("**/new/*")]

    def logs(self):
        return ""

    def log_tail(self, *arguments):
        return super().log_tail(*arguments) + "\n" + self.logs()


class Postfix(Mta):
    @classmethod
    def found(cls):
        return POSTFIX.exists()

    def configure(self, relay):
        for name in ("etc", "spool", "data"):
            (self.home / name).mkdir()
        lines = []
        for line in pathlib.Path("/usr/share/postfix/master.cf.dist").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            if line.startswith("smtp ") and fields[1] == "inet":
                line = f"{self.address}:{self.port} inet n - n - - smtpd"
            elif line.startswith("postlog "):
                line = "postlog unix-dgram n - n - 1 postlogd"
            elif len(fields) >= 8 and not line.startswith(("#", " ")) and fields[4] in ("y", "-"):
                fields[4] = "n"  # no chroot: it would need copies of system files
                line = " ".join(fields)
            lines.append(line)
        (self.home / "etc/master.cf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        owner = pwd.getpwnam("postfix")
        for folder in (self.home / "data", self.mail):
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        settings = {
            "compatibility_level": "3.6", "queue_directory": INSIDE / "spool", "data_directory": INSIDE / "data",
            "daemon_directory": "/usr/lib/postfix/sbin", "command_directory": "/usr/sbin", "mail_owner": "postfix", "setgid_group": "postdrop",
            "myhostname": "postfix.test", "mydestination": "", "mynetworks": "127.0.0.0/8", "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4", "maillog_file": INSIDE / "mail.log", "maillog_file_prefixes": INSIDE, "alias_maps": "",
            "alias_database": "", "smtputf8_enable": "yes",
        }
        if relay:
            settings |= {"relayhost": f"[{relay[0]}]:{relay[1]}", "smtp_bind_address": self.address,
                         "smtp_tls_security_level": "encrypt" if self.tls else "none"}
        else:
            settings |= {"virtual_mailbox_domains": "static:all", "virtual_mailbox_base": INSIDE / "mail", "virtual_mailbox_maps": "static:all/",
                         "virtual_uid_maps": f"static:{owner.pw_uid}", "virtual_gid_maps": f"static:{owner.pw_gid}",
                         "virtual_minimum_uid": "1"}
            if self.tls:
                settings |= {"smtpd_tls_security_level": "encrypt", "smtpd_tls_cert_file": INSIDE / "cert.pem",
                             "smtpd_tls_key_file": INSIDE / "key.pem"}
        (self.home / "etc/main.cf").write_text("".join(f"{k} = {v}\n" for k, v in settings.items()), encoding="utf-8")
        return [f"exec {POSTFIX} -c {INSIDE}/etc start-fg"]

    def logs(self):
        path = self.home / "mail.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


class Exim(Mta):
    port = 2528
    PACKAGE = "exim4-daemon-light"
    USERS = ("Debian-exim",)
    KEY_OWNER = (FIRST_ID, FIRST_ID)

    def configure(self, relay):
        for name in ("spool", "log"):
            (self.home / name).mkdir()
            os.chown(self.home / name, FIRST_ID, FIRST_ID)
        if relay:
            router = f"driver = manualroute\n route_list = * {relay[0]} byname\n self = send\n transport = out"
            transport = f"driver = smtp\n port = {relay[1]}\n allow_localhost\n interface = {self.address}\n "
            transport += "hosts_require_tls = *\n tls_verify_certificates =" if self.tls else "hosts_avoid_tls = *"
        else:
            router = "driver = accept\n transport = out"
            transport = (f"driver = appendfile\n directory = {INSIDE}/mail\n maildir_format\n create_directory\n"
                         " user = Debian-exim\n group = Debian-exim")
        (self.home / "exim.conf").write_text("\n".join([
            "primary_hostname = exim.test", f"spool_directory = {INSIDE}/spool", f"log_file_path = {INSIDE}/log/%slog",
            f"pid_file_path = {INSIDE}/log/pid", "acl_smtp_rcpt = everything", "acl_smtp_data = everything", "qualify_domain = exim.test",
            "never_users =", "keep_environment =",
            *([f"tls_on_connect_ports = {self.port}"] if self.from_first_byte else []),
            *(["tls_advertise_hosts = *", f"tls_certificate = {INSIDE}/cert.pem", f"tls_privatekey = {INSIDE}/key.pem"]
              if self.tls and not relay else ["tls_advertise_hosts ="]), "smtp_accept_queue_per_connection = 0", "accept_8bitmime = yes",
            "begin acl", "everything:",
            *([" deny !encrypted = *"] if self.tls and not relay else []), " accept", "begin routers", "all:", " " + router, "begin transports", "out:", " " + transport,
            "begin retry", "* * F,1h,1s", ""]), encoding="utf-8")
        # Where it looks without being told: a file named by -C costs it its privileges.
        return ["mount -t tmpfs tmpfs /var/lib", "mkdir /var/lib/exim4", f"cp {INSIDE}/exim.conf /var/lib/exim4/config.autogenerated",
                f"exec /usr/sbin/exim4 -bdf -q1m -oX {self.address}.{self.port}"]

    def logs(self):
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in (self.home / "log").glob("*"))


class OpenSmtpd(Mta):
    port = 2529
    PACKAGE = "opensmtpd"
    USERS = ("box", "opensmtpd", "opensmtpq")

    def configure(self, relay):
        start, tls, lines = f"exec /usr/sbin/smtpd -d -f {INSIDE}/smtpd.conf", "", ['table all { "@" = "box" }']
        if self.tls and not relay:
            lines += [f'pki own cert "{INSIDE}/cert.pem"', f'pki own key "{INSIDE}/key.pem"']
            tls = " tls-require pki own"
            # Debian 12's cannot be a server of TLS without it.
            shutil.copy(program("tests/harness/libopensmtpd_keys.so"), self.home / "keys.so")
            start = f"LD_PRELOAD={INSIDE}/keys.so {start}"
        lines.append(f"listen on {self.address} port {self.port}{tls} hostname opensmtpd.test")
        if relay:
            scheme, verify = ("smtp+tls", " tls no-verify") if self.tls else ("smtp", "")
            lines.append(f'action "out" relay host {scheme}://{relay[0]}:{relay[1]}{verify} src {self.address}')
        else:
            lines.append(f'action "out" maildir "{INSIDE}/mail/%{{rcpt.user}}" virtual <all>')
        lines.append('match from any for any action "out"')
        (self.home / "smtpd.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return ["mount -t tmpfs tmpfs /run", "mount -t tmpfs tmpfs /var/spool", "mount -t tmpfs tmpfs /var/lib",
                "mkdir -m 711 /var/spool/smtpd", "mkdir -p /var/lib/opensmtpd/empty", start]
