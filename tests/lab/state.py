"""What `up` leaves for `down`: a state file in the folder, and a registry of folders for this user."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from . import procs
from .world import World

STATE = "lab.json"


def registry() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    path = Path(base) / f"hubgate-lab-{os.getuid()}" / "worlds"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def entry(folder: Path) -> Path:
    return registry() / hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def record(world: World) -> None:
    """Write down what runs; called as soon as something does, and again when all does."""
    running = []
    for name, pid in (("nginx", world.nginx.pid), ("slapd", world.slapd.pid if world.own_slapd and world.slapd else 0),
                      ("hub", getattr(world.hub, "pid", 0) if world.own_hub else 0)):
        if pid:
            running.append({"name": name, "pid": pid, "began": procs.start_time(pid) or 0})
    state = {"version": 1, "temporary": world.made_folder, "running": running}
    path = world.folder / STATE
    path.write_text(json.dumps(state, indent=1) + "\n")
    path.chmod(0o600)
    entry(world.folder).write_text(str(world.folder))


def worlds() -> list[Path]:
    return [Path(path.read_text()) for path in sorted(registry().iterdir())]


def forget(folder: Path) -> None:
    (folder / STATE).unlink(missing_ok=True)
    entry(folder).unlink(missing_ok=True)


def end(folder: Path) -> list[str]:
    """End the servers of one folder; returns a line about each.  A folder that `up` made is removed."""
    folder, out = folder.resolve(), []
    path = folder / STATE
    if path.exists():
        state = json.loads(path.read_text())
        for each in state["running"]:
            if not procs.is_ours(each["pid"], each["began"]):
                out.append(f"{each['name']} ({each['pid']}) was not running any more")
                continue
            workers = [(pid, procs.start_time(pid) or 0) for pid in procs.children(each["pid"])]
            clean = procs.end(each["pid"], each["began"])
            for pid, began in workers:
                if procs.is_ours(pid, began):
                    procs.end(pid, began)
            out.append(f"{each['name']} ({each['pid']}) ended" + ("" if clean else " by SIGKILL"))
        if state["temporary"]:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        out.append(f"nothing of the lab runs in {folder}")
    forget(folder)
    return out
