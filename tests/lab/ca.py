"""A certificate authority of the lab's own, and certificates signed by it, made by the openssl command."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cert:
    cert: Path
    key: Path


class CA:
    """`CA(folder)` makes one (or finds the one that is there); `.file` is what clients are to trust."""

    def __init__(self, folder: Path, name: str = "lab") -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file, self.key = self.folder / f"{name}-ca.pem", self.folder / f"{name}-ca.key"
        self.name = name
        if not self.file.exists():
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN=hubgate {name} CA",
                    "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                    "-keyout", str(self.key), "-out", str(self.file))
            os.chmod(self.file, 0o644)

    def cert(self, name: str, *hosts: str, expired: bool = False) -> Cert:
        """A certificate for these host names and addresses (default: 127.0.0.1, 127.0.0.2, localhost)."""
        out = Cert(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        if out.cert.exists():
            return out
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        kinds = ",".join(f"{'IP' if host[0].isdigit() or ':' in host else 'DNS'}:{host}" for host in hosts or ("127.0.0.1", "127.0.0.2", "localhost"))
        extensions.write_text(f"subjectAltName={kinds}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", str(out.key), "-out", str(request))
        openssl("x509", "-req", "-in", str(request), "-CA", str(self.file), "-CAkey", str(self.key), "-CAcreateserial",
                "-days", "-1" if expired else "30", "-extfile", str(extensions), "-out", str(out.cert))
        return out


def openssl(*arguments: str) -> None:
    run = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"openssl {' '.join(arguments[:2])}: {run.stderr.strip()}")
