"""What the benches measure with: clients as processes, CPU seconds of an nginx, paired rounds in reversed order."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes, all their threads, until now."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


@dataclass
class Fetch:
    wall: float                 # all clients finished
    first: list[float]          # seconds to the first byte, per client
    bytes: int


def curl(url: str, clients: int = 1, headers: Mapping[str, str] | None = None, ca: Path | None = None, extra: tuple[str, ...] = ()) -> Fetch:
    """`clients` downloads of one URL at the same time, by curl, thrown away."""
    command = ["curl", "-sS", "-L", "-f", "-o", "/dev/null", "-w", "%{time_starttransfer} %{size_download}", *extra]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    if ca:
        command += ["--cacert", str(ca)]
    begin = time.monotonic()
    runs = [subprocess.Popen([*command, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(clients)]
    outs = [run.communicate() for run in runs]
    wall = time.monotonic() - begin
    for run, (_, words) in zip(runs, outs):
        if run.returncode:
            raise RuntimeError(f"curl {url}: exit {run.returncode}: {words}")
    parts = [out.split() for out, _ in outs]
    return Fetch(wall, [float(first) for first, _ in parts], sum(int(float(size)) for _, size in parts))


def wrk(url: str, seconds: float, headers: Mapping[str, str] | None = None, connections: int = 32) -> float:
    """Requests per second of one wrk thread."""
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in (headers or {}).items()]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("\n".join(lines))
        script.flush()
        out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"wrk {url}:\n{out}")
    return float(out.split("Requests/sec:")[1].split()[0])


@dataclass
class Pairs:
    """Rounds of two or more variants, interleaved, the order reversed every other round."""
    variants: dict[str, Callable[[], float]]
    rounds: int
    results: dict[str, list[float]] = field(default_factory=dict)

    def run(self) -> "Pairs":
        self.results = {name: [] for name in self.variants}
        for turn in range(self.rounds):
            names = list(self.variants)
            for name in names if turn % 2 == 0 else reversed(names):
                self.results[name].append(self.variants[name]())
        return self

    def median(self, name: str) -> float:
        return statistics.median(self.results[name])

    def ratios(self, name: str, against: str) -> list[float]:
        return sorted(a / b for a, b in zip(self.results[name], self.results[against]))

    def quartiles(self, name: str, against: str) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the ratio, round by round."""
        r = self.ratios(name, against)
        if len(r) < 2:
            return r[0], r[0], r[0]
        q = statistics.quantiles(r, n=4, method="inclusive")
        return q[0], q[1], q[2]
