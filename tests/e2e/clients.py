"""The real clients: huggingface_hub in its environments (see tests/venv), the hf command, curl."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

BUILD = Path(os.environ.get("BUILD") or Path(__file__).resolve().parents[2] / "build").absolute()
HF = {name: BUILD / f"venv-{name}" for name in ("hf0203", "hf0302", "hf0362", "hf101", "hf133", "hf240", "hf240-noxet", "datasets")}
OLDEST = "hf0203"                            # has no `expand` and no revision_exists
WITH_COMMAND = [name for name in HF if name not in ("hf0203", "hf0302", "hf101")]     # no `hf` yet, or (1.0.1) not what it needs in its environment


@dataclass
class Run:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of the output, as JSON."""
        return json.loads(self.out.strip().splitlines()[-1])

    @property
    def text(self) -> str:
        return self.out + self.err


def run(command: list[str], env: Mapping[str, str] | None = None, timeout: float = 120, cwd: Path | None = None) -> Run:
    """Run to the end; subprocess.TimeoutExpired (and the process is gone) when it takes longer."""
    done = subprocess.run(command, env=None if env is None else dict(env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, cwd=cwd)
    return Run(done.returncode, done.stdout, done.stderr)


def python(client: str, code: str, env: Mapping[str, str], *arguments: str, timeout: float = 120) -> Run:
    """Run Python code with a version of huggingface_hub (HF), or with the datasets library."""
    return run([str(HF[client] / "bin" / "python"), "-c", code, *arguments], env, timeout)


def hf(client: str, env: Mapping[str, str], *arguments: str, timeout: float = 120) -> Run:
    """The hf command of that version."""
    return run([str(HF[client] / "bin" / "hf"), *arguments], env, timeout)


def terminal(client: str, env: Mapping[str, str], *arguments: str, timeout: float = 120) -> Run:
    """The hf command as it is used by hand: on a terminal of 200 columns."""
    ours, its = pty.openpty()
    process = subprocess.Popen([str(HF[client] / "bin" / "hf"), *arguments], stdin=its, stdout=its, stderr=its, start_new_session=True,
                               env={**env, "TERM": "xterm", "COLUMNS": "200"})
    os.close(its)
    out, deadline = b"", time.monotonic() + timeout
    try:
        while select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            try:
                chunk = os.read(ours, 64 << 10)
            except OSError:              # the other side is closed
                break
            if not chunk:
                break
            out += chunk
        return Run(process.wait(max(0.1, deadline - time.monotonic())), out.decode(errors="replace"), "")
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()


def curl(*arguments: str, timeout: float = 120) -> Run:
    return run(["curl", "-q", "-sS", "--noproxy", "*", *arguments], None, timeout)


def aria2c(env: Mapping[str, str], url: str, out: Path, *arguments: str, timeout: float = 120) -> Run:
    """aria2c as people's scripts call it, with their token; errors of single connections are tried again once a second."""
    token = ["--header", f"Authorization: Bearer {env['HF_TOKEN']}"] if "HF_TOKEN" in env else []
    return run(["aria2c", "--no-conf", "--no-netrc", "--all-proxy=", "--retry-wait=1", "-d", str(out.parent), "-o", out.name, *token, *arguments, url],
               env, timeout)
