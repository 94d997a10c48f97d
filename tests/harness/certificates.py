"""Certificates for a test, by the openssl program: one authority, and what it signs."""
import subprocess

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def _openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(map(str, arguments))}: {done.stderr}")


class Authority:
    """`.ca` is its certificate; all files are in `folder`."""

    def __init__(self, folder):
        self._folder = folder
        folder.mkdir()
        self.ca = folder / "ca.pem"
        _openssl("req", "-x509", "-days", 2, "-subj", "/CN=authority of the test", *KEY, "-keyout", folder / "ca.key", "-out", self.ca)

    def issue(self, name, *addresses):
        """(certificate, key, both in one file) for the host name and IP addresses."""
        cert, key, both, request = (self._folder / f"{name}.{end}" for end in ("cert.pem", "key.pem", "pem", "csr"))
        names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
        _openssl("req", "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", *KEY, "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-days", 2, "-CAcreateserial", "-copy_extensions", "copy", "-in", request, "-CA", self.ca, "-CAkey",
                 self._folder / "ca.key", "-out", cert)
        both.write_bytes(key.read_bytes() + cert.read_bytes())
        return cert, key, both
