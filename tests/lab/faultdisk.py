"""A disk that fails on demand: faultdisk.c, built here and loaded into nginx by LD_PRELOAD."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path

from . import procs

SOURCE = procs.ROOT / "tests" / "lab" / "faultdisk.c"


def library() -> Path:
    out = procs.ROOT / "build" / "faultdisk.so"
    if not out.exists() or out.stat().st_mtime < SOURCE.stat().st_mtime:
        temp = out.with_suffix(f".{os.getpid()}")
        run = subprocess.run([os.environ.get("CC", "cc").split()[-1], "-std=c11", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-pthread",
                              "-o", str(temp), str(SOURCE), "-ldl"], capture_output=True, text=True)
        if run.returncode:
            raise procs.LabError(f"faultdisk.c: {run.stderr}")
        temp.rename(out)
    return out


class FaultDisk:
    """`env` is for the nginx to be started: World(nginx_env=disk.env)."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.rules, self.boot_id = self.folder / "rules", self.folder / "boot_id"
        self.env = {"LD_PRELOAD": str(library()), "FAULTDISK": str(self.rules), "FAULTDISK_BOOT": str(self.boot_id)}
        if "ASAN_OPTIONS" in os.environ:                    # it wants to be the first library
            self.env["ASAN_OPTIONS"] = os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0"
        self.heal()
        self.boot()

    def fail(self, *rules: tuple[str, str, int] | tuple[str, str, int, int] | tuple[str, str, int, int, int]) -> None:
        """(call, part of the path, errno or 0 to kill, skip=0, times=-1), in place of all rules before."""
        lines = [" ".join(str(each) for each in (*rule, *(0, -1)[len(rule) - 3:])) for rule in rules]
        temp = self.rules.with_suffix(".new")
        temp.write_text("".join(line + "\n" for line in lines))
        temp.chmod(0o644)
        temp.rename(self.rules)

    def heal(self) -> None:
        self.fail()

    def boot(self) -> None:
        """From the next start on the machine was booted anew."""
        self.boot_id.write_text(f"{uuid.uuid4()}\n")
        self.boot_id.chmod(0o644)
