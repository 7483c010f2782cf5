"""Processes that the lab starts: detached, known by pid and start time, ended by that and by nothing else."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]


class LabError(RuntimeError):
    """Something of the lab could not be started; the message says what to look at."""


def wait_until(what: str, ready: Callable[[], object], seconds: float = 20.0, every: float = 0.02) -> object:
    """Ask `ready` until it says something true; LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if value := ready():
            return value
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


def free_port(address: str = "127.0.0.1") -> int:
    """A port nobody listens on, below the range the kernel takes ports for outgoing connections from."""
    for _ in range(1000):
        port = random.randrange(15_000, 32_000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, port))
                return port
            except OSError:
                continue
    raise LabError("no free port")


def start_time(pid: int) -> int | None:
    """When the process began, in ticks since boot; None when there is none, or only its remains (a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def is_ours(pid: int, began: int) -> bool:
    return start_time(pid) == began


def spawn(command: Sequence[str], log: Path, cwd: Path, env: Mapping[str, str] | None = None, stdout: int | None = None) -> subprocess.Popen:
    """Start a detached process whose output goes to `log`."""
    with open(log, "ab") as out:
        return subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=out if stdout is None else stdout, stderr=out,
                                cwd=cwd, env=None if env is None else dict(env), start_new_session=True)


def end(pid: int, began: int, sig: int = signal.SIGTERM, seconds: float = 15.0) -> bool:
    """End a process of ours; SIGKILL when it does not go.  True when it went by itself."""
    if not is_ours(pid, began):
        return True
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, sig)
    try:
        wait_until(f"end of {pid}", lambda: reap(pid) or not is_ours(pid, began), seconds)
        return True
    except LabError:
        if is_ours(pid, began):
            os.kill(pid, signal.SIGKILL)
            wait_until(f"end of {pid} by SIGKILL", lambda: reap(pid) or not is_ours(pid, began))
        return False


def reap(pid: int) -> bool:
    """Collect a child that has ended (nothing happens when it is not our child)."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def dead(pid: int) -> bool:
    """Also its last thread: a zombie may have some that end a moment later, and listening sockets with them."""
    try:
        return start_time(pid) is None and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return True


def children(pid: int) -> list[int]:
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] not in "ZX":
                out.append(int(entry.name))
    return sorted(out)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def living_in(folder: Path) -> list[tuple[int, str]]:
    """Processes (except this one) that run in `folder` or name it in their command line."""
    out = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        pid = int(entry.name)
        try:
            here = os.readlink(entry / "cwd")
        except OSError:
            continue
        line = command_line(pid)
        inside = here == str(folder) or here.startswith(f"{folder}/") or f"{folder}/" in f"{line} "
        if inside and start_time(pid) is not None:
            out.append((pid, line))
    return out
