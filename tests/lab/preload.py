"""Libraries that change what an nginx sees of the system: tests/lab/NAME.c, built here and loaded by LD_PRELOAD."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from . import procs


def library(name: str) -> Path:
    source, out = procs.ROOT / "tests" / "lab" / f"{name}.c", procs.ROOT / "build" / f"{name}.so"
    if not out.exists() or out.stat().st_mtime < source.stat().st_mtime:
        temp = out.with_suffix(f".{os.getpid()}")
        run = subprocess.run([os.environ.get("CC", "cc").split()[-1], "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-shared", "-fPIC", "-O1", "-pthread",
                              "-o", str(temp), str(source), "-ldl"], capture_output=True, text=True, timeout=60)
        if run.returncode:
            raise procs.LabError(f"{name}.c: {run.stderr}")
        temp.rename(out)
    return out


def preload(name: str, more: dict[str, str]) -> dict[str, str]:
    """The environment of such an nginx, with what the library reads there."""
    env = {"LD_PRELOAD": str(library(name)), **more}
    if "ASAN_OPTIONS" in os.environ:                    # it wants to be the first library
        env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
    return env
