"""A stock nginx with the module, in a folder, on free loopback ports.

HUBGATE_NGINX names another nginx, HUBGATE_MODULE another module, HUBGATE_COMMAND another command than the built ones.
Started as root, the workers are an unprivileged user's (HUBGATE_USER, else www-data) and the folders they write to are given to him.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterable

from . import procs
from .ca import Cert
from .fetch import fetch
from .slapd import which
from .yamlout import dump

TEMP = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def module_file() -> Path:
    return Path(os.environ.get("HUBGATE_MODULE") or procs.ROOT / "build" / "ngx_http_hubgate_module.so")


def command_file() -> Path:
    return Path(os.environ.get("HUBGATE_COMMAND") or procs.ROOT / "build" / "hubgate")


def worker_user() -> tuple[str, int, str, int] | None:
    """(user, uid, group, gid) for the workers when this is root."""
    if os.getuid() != 0:
        return None
    named = os.environ.get("HUBGATE_USER")
    for name in (named,) if named else ("www-data", "nginx", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, user.pw_uid, grp.getgrgid(user.pw_gid).gr_name, user.pw_gid
    raise procs.LabError("no unprivileged user for the workers of nginx")


def give(path: Path) -> None:
    """Make the workers' user the owner of a folder or file, and of everything in it."""
    user = worker_user()
    if user:
        for each in [path, *(path.rglob("*") if path.is_dir() else ())]:
            os.chown(each, user[1], user[3], follow_symlinks=False)


class Nginx:
    """Write with `write`, then `start`.  `config` is hubgate.yaml as data, `policy` a text (or {file name: text})."""

    def __init__(self, folder: Path, workers: int = 1, tls: Cert | None = None, main_extra: str = "", http_extra: str = "", server_extra: str = "",
                 hubgate: bool = True, daemon: bool = False) -> None:
        """`daemon`: nobody's child, as a service is; an upgrade wants that."""
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.workers_wanted, self.tls, self.hubgate, self.daemon = workers, tls, hubgate, daemon
        self.main_extra, self.http_extra, self.server_extra = main_extra, http_extra, server_extra
        self.port, self.tls_port = procs.free_port(), procs.free_port() if tls else 0
        self.url = f"http://127.0.0.1:{self.port}"
        self.tls_url = f"https://127.0.0.1:{self.tls_port}" if tls else None
        self.conf, self.config_file, self.policy_dir = self.folder / "nginx.conf", self.folder / "hubgate.yaml", self.folder / "policy.d"
        self.data, self.cache, self.logs = self.folder / "data", self.folder / "cache", self.folder / "logs"
        self.error_log, self.access_log, self.audit_log = self.logs / "error.log", self.logs / "access.log", self.logs / "audit.jsonl"
        self.env: dict[str, str] = {}              # of the master, besides ours
        self.pid = self.began = 0
        self.process: subprocess.Popen | None = None
        for path in (self.data, self.cache, self.logs, self.folder / "temp", self.policy_dir):
            path.mkdir(exist_ok=True)
        self.data.chmod(0o700)
        for path in (self.data, self.cache, self.logs, self.folder / "temp"):
            give(path)

    def write(self, config: dict[str, Any], policy: str | dict[str, str]) -> None:
        self.write_config(config)
        self.write_policy(policy)
        self.write_conf()

    def write_config(self, config: dict[str, Any]) -> None:
        self.config_file.write_text("# Written by the lab.\n" + dump(config))

    def write_policy(self, policy: str | dict[str, str]) -> None:
        files = {"lab.yaml": policy} if isinstance(policy, str) else policy
        for old in self.policy_dir.glob("*.yaml"):
            if old.name not in files:
                old.unlink()
        for name, text in files.items():
            (self.policy_dir / name).write_text(text)

    def write_conf(self) -> None:
        user, f = worker_user(), self.folder
        listen_tls = f"listen 127.0.0.1:{self.tls_port} ssl reuseport;\n        ssl_certificate {self.tls.cert};\n" \
                     f"        ssl_certificate_key {self.tls.key};" if self.tls else ""
        paths = "\n".join(f"    {name}_temp_path {f}/temp/{name};" for name in TEMP)
        self.conf.write_text(f"""\
{f"load_module {module_file()};" if self.hubgate else ""}
{f"user {user[0]} {user[2]};" if user else ""}
daemon {"on" if self.daemon else "off"};
worker_processes {self.workers_wanted};
pid {f}/nginx.pid;
error_log {self.error_log} info;
thread_pool hubgate threads=16 max_queue=1024;
{self.main_extra}
events {{
    worker_connections 2048;
}}
http {{
    access_log {self.access_log};
{paths}
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    {f"hubgate_config {self.config_file};" if self.hubgate else ""}
    {self.http_extra}
    server {{
        listen 127.0.0.1:{self.port} reuseport;
        {listen_tls}
        {self.server_extra}
        {"location / { hubgate on; }" if self.hubgate else ""}
    }}
}}
""")

    # running it

    @property
    def command(self) -> list[str]:
        program = os.environ.get("HUBGATE_NGINX") or which("nginx")
        if not program:
            raise procs.LabError("nginx is not installed")
        return [program, "-e", str(self.error_log), "-p", str(self.folder), "-c", str(self.conf)]

    def test(self) -> subprocess.CompletedProcess[str]:
        """`nginx -t`."""
        return subprocess.run([*self.command, "-t"], capture_output=True, text=True, cwd=self.folder, timeout=60)

    def start(self) -> "Nginx":
        if self.hubgate and not module_file().exists():
            raise procs.LabError(f"{module_file()} is not built: run make")
        self.process = procs.spawn(self.command, self.logs / "stderr.log", self.folder, {**os.environ, **self.env})
        if self.daemon:
            if self.process.wait(30) != 0:
                raise procs.LabError(f"nginx ended with {self.process.returncode}:\n{self.tail()}")
            self.process = None
            procs.wait_until("its pid", lambda: (self.folder / "nginx.pid").exists() and (self.folder / "nginx.pid").read_text().strip())
        self.pid = self.process.pid if self.process else int((self.folder / "nginx.pid").read_text())
        self.began = procs.start_time(self.pid) or 0
        procs.wait_until(f"nginx (see {self.logs})", self._answers, 30)
        return self

    def _answers(self) -> bool:
        if self.process and self.process.poll() is not None:
            raise procs.LabError(f"nginx ended with {self.process.returncode}:\n{self.tail()}")
        try:
            fetch(self.url, "/api/whoami-v2" if self.hubgate else "/", timeout=10)
            return len(self.workers()) >= self.workers_wanted
        except OSError:
            return False

    def tail(self) -> str:
        parts = []
        for log in (self.logs / "stderr.log", self.error_log):
            if log.exists():
                parts.append(f"--- {log}\n" + log.read_text(errors="replace")[-3000:])
        return "\n".join(parts)

    def workers(self, leaving: bool = False) -> list[int]:
        """Pids of the workers; `leaving`: of those that are shutting down."""
        out = []
        for pid in procs.children(self.pid):
            line = procs.command_line(pid)
            if "worker process" in line and ("shutting down" in line) == leaving:
                out.append(pid)
        return out

    def reload(self, seconds: float = 20) -> None:
        """HUP, and wait for the new workers.  A configuration that nginx refuses is a LabError with its words."""
        old, known = set(self.workers()), len(self.emergencies())
        os.kill(self.pid, signal.SIGHUP)

        def changed() -> bool:
            if news := self.emergencies()[known:]:
                raise procs.LabError("reload refused: " + news[0])
            now = set(self.workers())
            return len(now) >= self.workers_wanted and not now & old
        procs.wait_until("reload", changed, seconds)

    def upgrade(self, seconds: float = 20) -> tuple[int, int]:
        """USR2: a second master with workers of its own, beside the first, on the same sockets; from now on it is "the" nginx.
        Returns pid and start time of the old one, whose workers go on until it is told WINCH or QUIT."""
        old, began = self.pid, self.began
        os.kill(old, signal.SIGUSR2)

        def started() -> bool:
            text = (self.folder / "nginx.pid").read_text() if (self.folder / "nginx.pid").exists() else ""
            self.pid = int(text) if text.strip().isdigit() and int(text) != old else old
            return self.pid != old and len(self.workers()) >= self.workers_wanted
        try:
            procs.wait_until("a second master", started, seconds)
        except procs.LabError:
            self.pid = old
            raise
        self.began = procs.start_time(self.pid) or 0
        return old, began

    def emergencies(self) -> list[str]:
        text = self.error_log.read_text(errors="replace") if self.error_log.exists() else ""
        return re.findall(r".*\[emerg\].*", text)

    def quit(self, seconds: float = 30) -> bool:
        """The graceful end: requests under way are finished.  True when it came to an end by itself."""
        return procs.end(self.pid, self.began, signal.SIGQUIT, seconds)

    def stop(self, seconds: float = 15) -> bool:
        """The quick end (SIGTERM).  True when it came to an end by itself; also True when it was not running."""
        if not self.pid:
            return True
        workers = [(pid, procs.start_time(pid) or 0) for pid in procs.children(self.pid)]
        ended = procs.end(self.pid, self.began, signal.SIGTERM, seconds)
        for pid, began in workers:           # orphans, when the master had to be killed
            ended = procs.end(pid, began, signal.SIGKILL) and ended if procs.is_ours(pid, began) else ended
        return ended

    def kill(self) -> None:
        """kill -9 of everything: what a power cut is to processes."""
        pids = [(pid, procs.start_time(pid) or 0) for pid in [self.pid, *procs.children(self.pid)]]
        for pid, began in pids:
            if procs.is_ours(pid, began):
                os.kill(pid, signal.SIGKILL)
        for pid, began in pids:
            procs.end(pid, began, signal.SIGKILL)
        procs.wait_until("the end of their last threads", lambda: all(procs.dead(pid) for pid, _ in pids))

    def kill_worker(self, pid: int | None = None, sig: int = signal.SIGKILL) -> int:
        """End one worker at once and wait for the one that replaces it; returns the pid that is gone.
        nginx writes an [alert] about it: declare it, `world.expect_log(r"exited on signal 9")`."""
        before = self.workers()
        victim = before[0] if pid is None else pid
        os.kill(victim, sig)
        procs.wait_until("a new worker", lambda: victim not in self.workers() and len(self.workers()) >= len(before))
        return victim

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait_log(self, pattern: str, seconds: float = 20) -> str:
        """Wait until a line of the error log matches."""
        return str(procs.wait_until(f"a log line /{pattern}/", lambda: next(
            (line for line in self.error_log.read_text(errors="replace").splitlines() if re.search(pattern, line)), None), seconds))

    # its command

    def cli(self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 120,
            env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """`hubgate -c hubgate.yaml ...`; LabError with what it said when it fails and `check` is set."""
        if not command_file().exists():
            raise procs.LabError(f"{command_file()} is not built: run make")
        run = subprocess.run([str(command_file()), "-c", str(self.config_file), *arguments], capture_output=True, text=True, input=stdin,
                             stdin=subprocess.DEVNULL if stdin is None else None, cwd=self.folder, timeout=timeout,
                             env=None if env is None else {**os.environ, **env})
        if check and run.returncode:
            raise procs.LabError(f"hubgate {' '.join(arguments)}: exit {run.returncode}\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
        return run

    def drop_cache(self) -> None:
        """rm -rf cache/ (when stopped)."""
        shutil.rmtree(self.cache)
        self.cache.mkdir()
        give(self.cache)


def log_files(*folders: Path) -> Iterable[Path]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (path.suffix in (".log", ".jsonl") or ".log." in path.name or path.name.startswith(("asan", "ubsan", "tsan"))):
                yield path
