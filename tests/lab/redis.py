"""Redis as nodes share it: the real redis-server, in a folder, on loopback, nothing on disk.

    with Redis() as redis:
        first = World(redis=redis)                        # a node of a cluster: redis.*, cluster_key_file, node_url
        second = World(node_of=first)                     # another: the same Redis, cluster key, data/, Hub, directory, people, tokens
    World(redis=[dead, redis], redis_tls=True)            # several addresses in order; by TLS

In e2e tests: the fixture `redis` (one per test) and make_world(redis=redis), make_world(node_of=first).

The user `hubgate` may do what docs/operations.md says and no more; the default user (for `command`) has a password of its own.
It listens on .port and, with a certificate of .ca, on .tls_port.  Faults: pause and resume (it hangs), kill, stop and start (it
comes back empty, on the same ports), flush, full (OOM for every write), follow (READONLY).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from . import procs
from .ca import CA
from .slapd import which

USER = "hubgate"
# The line of docs/operations.md.
ACL = "~gw:* resetchannels -@all +get +set +del +incr +watch +unwatch +multi +exec +xadd +xread +xrevrange"


class RedisError(RuntimeError):
    """An error that Redis answered."""


class Redis:
    def __init__(self, folder: Path | None = None, ca: CA | None = None) -> None:
        self.made_folder = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="hubgate-redis-")).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca = ca or CA(self.folder / "tls")
        self.port, self.tls_port = procs.free_port(), procs.free_port()
        self.url, self.tls_url = f"redis://127.0.0.1:{self.port}", f"rediss://127.0.0.1:{self.tls_port}"
        self.password, self.root_password = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        self.secrets = [self.password, self.root_password]
        self.log = self.folder / "redis.log"
        self.pid = self.began = 0

    def _write(self) -> Path:
        cert, conf = self.ca.cert("redis"), self.folder / "redis.conf"
        conf.write_text(f"""\
bind 127.0.0.1
port {self.port}
tls-port {self.tls_port}
tls-cert-file {cert.cert}
tls-key-file {cert.key}
tls-ca-cert-file {self.ca.file}
tls-auth-clients no
dir {self.folder}
save ""
appendonly no
user default on >{self.root_password} ~* &* +@all
user {USER} on >{self.password} {ACL}
""")
        conf.chmod(0o600)
        return conf

    def start(self) -> "Redis":
        program = which("redis-server")
        if not program:
            raise procs.LabError("redis-server is not installed (Debian: redis-server)")
        process = procs.spawn([program, str(self._write())], self.log, self.folder)
        self.pid, self.began = process.pid, procs.start_time(process.pid) or 0

        def answers() -> bool:
            if process.poll() is not None:
                raise procs.LabError(f"redis-server ended, see {self.log}:\n{self.log.read_text()[-2000:]}")
            try:
                return self.command("PING") == "PONG"
            except (OSError, RedisError):
                return False
        procs.wait_until("redis-server", answers)
        return self

    def __enter__(self) -> "Redis":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()

    def remove(self) -> None:
        if self.made_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # asking it

    def command(self, *words: str | bytes | int) -> Any:
        """One command as the default user: text is bytes, a status is str, an error is RedisError."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock, sock.makefile("rb") as replies:
            for command in (("AUTH", self.root_password), words):
                parts = [word if isinstance(word, bytes) else str(word).encode() for word in command]
                sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
                reply = read_reply(replies)
            return reply

    def keys(self, pattern: str = "gw:*") -> list[bytes]:
        return sorted(self.command("KEYS", pattern))

    # faults

    def pause(self) -> None:
        """It hangs: the kernel still accepts connections, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def flush(self) -> None:
        self.command("FLUSHALL")

    def full(self, full: bool = True) -> None:
        """Every write is refused: -OOM."""
        self.command("CONFIG", "SET", "maxmemory", 1 if full else 0)

    def follow(self, master: "Redis | None") -> None:
        """It is a replica: -READONLY for every write."""
        if master is None:
            self.command("REPLICAOF", "NO", "ONE")
            return
        self.command("CONFIG", "SET", "masterauth", master.root_password)
        self.command("REPLICAOF", "127.0.0.1", master.port)
        procs.wait_until("the replica", lambda: b"master_link_status:up" in self.command("INFO", "replication"))

    def stop(self) -> None:
        if self.pid:
            procs.end(self.pid, self.began)

    def kill(self) -> None:
        procs.end(self.pid, self.began, signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()


def read_reply(replies: Any) -> Any:
    line = replies.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("Redis closed the connection")
    kind, text = line[:1], line[1:-2]
    if kind == b"-":
        raise RedisError(text.decode())
    if kind == b":":
        return int(text)
    if kind == b"+":
        return text.decode()
    if int(text) < 0:
        return None
    if kind == b"*":
        return [read_reply(replies) for _ in range(int(text))]
    return replies.read(int(text) + 2)[:-2]
