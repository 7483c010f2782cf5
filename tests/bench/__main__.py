"""make bench: the numbers of hubgate beside static nginx, proxy_cache, slice and the Hub itself; docs/benchmarks.md says how to read them.

    python3 -m tests.bench [--quick] [--only TEXT]... [--peer URL [--peer-token-file FILE]] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

from tests.lab import procs

from . import cold, lists, others, warm, writes
from .scene import Scene
from .table import Table

PEER_HUB = (18180, 18181)       # where the Hub is when a peer has to know it beforehand


def steps(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    """What is long comes last: it is what a slow machine leaves out."""
    return [step for rows in (warm.rows, cold.rows, others.rows, writes.rows, cold.long_rows, others.long_rows) for step in rows(scene, table)]


def asked_steps(scene: Scene, table: Table) -> list[tuple[str, Callable[[], None]]]:
    return others.asked_rows(scene, table) + lists.rows(scene, table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: at most 5 minutes")
    parser.add_argument("--only", action="append", default=[], help="only steps whose name contains this; several times: any of them")
    parser.add_argument("--peer", default="", help="another gateway to be measured too; its upstream must be http://127.0.0.1:%d" % PEER_HUB[0])
    parser.add_argument("--peer-token-file", type=Path, help="what it wants as a Bearer token")
    parser.add_argument("--json", type=Path, default=procs.ROOT / "build" / "bench.json")
    options = parser.parse_args()
    if options.peer and not options.peer.startswith("http://"):
        parser.error("a peer is asked without TLS: http://...")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))                 # servers are ended then as well
    token = options.peer_token_file.read_text().strip() if options.peer_token_file else ""
    begin, table, failed, late = time.monotonic(), Table(), [], []
    scene = Scene(options.quick, options.peer, token, PEER_HUB if options.peer else None)
    load = os.getloadavg()[0]
    print(f"load before: {load:.2f}" + (" (more than 1: the numbers will be spread)" if load > 1 else ""), flush=True)
    try:
        scene.start()
        for name, step in steps(scene, table) + (asked_steps(scene, table) if options.only else []):
            if options.only and not any(text in name for text in options.only):
                continue
            if time.monotonic() - begin > scene.seconds(2200, 250):       # a loaded machine: what was promised holds
                late.append(name)
                continue
            started = time.monotonic()
            try:
                step()
            except (RuntimeError, OSError, ValueError, subprocess.SubprocessError) as error:          # the other rows are worth having
                failed.append(name)
                print(f"{name} failed: {error}", flush=True)
            print(f"# {name}: {time.monotonic() - started:.0f} s", flush=True)
    finally:
        scene.stop()
    table.write(options.json, quick=options.quick, load_before=load, failed=failed, late=late)
    missed = table.missed()
    print(f"\n{table.markdown()}\n\n{len(table.rows)} rows in {time.monotonic() - begin:.0f} s, {len(missed)} missed"
          + "".join(f"\n  missed: {row.what}, {row.target}" for row in missed) + f"\nalso in {options.json}")
    if late:
        print(f"not begun, because the time was up: {', '.join(late)}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
