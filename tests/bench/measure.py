"""What the benches measure with: clients as processes, CPU seconds of an nginx, paired rounds in reversed order."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Mapping

from tests.lab import procs

Measured = dict[str, float]
Quartiles = tuple[float, float, float]


def program(name: str) -> Path:
    """A bench that is written in C; `make build/bench/NAME` builds it."""
    path = procs.ROOT / "build" / "bench" / name
    if not path.exists():
        raise procs.LabError(f"{path} is not built: make build/bench/{name}")
    return path


def cpu_seconds(pids: list[int]) -> float:
    """Time on a CPU of these processes, all their threads, until now."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(task.read_text().split()[0])
            except OSError:
                continue
    return total / 1e9


@dataclass
class Fetch:
    wall: float                 # all clients finished
    first: list[float]          # seconds to the first byte, per client
    bytes: int


def curl_command(url: str, headers: Mapping[str, str] | None = None, ca: Path | None = None, extra: tuple[str, ...] = ()) -> list[str]:
    command = ["curl", "-sS", "-L", "-f", "-o", "/dev/null", "-w", "%{time_starttransfer} %{size_download}", *extra]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    return [*command, *(["--cacert", str(ca)] if ca else []), url]


def curl(url: str, clients: int = 1, headers: Mapping[str, str] | None = None, ca: Path | None = None, extra: tuple[str, ...] = ()) -> Fetch:
    """`clients` downloads of one URL at the same time, by curl, thrown away."""
    command = curl_command(url, headers, ca, extra)
    begin = time.monotonic()
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(clients)]
    outs = [run.communicate() for run in runs]
    wall = time.monotonic() - begin
    for run, (_, words) in zip(runs, outs):
        if run.returncode:
            raise RuntimeError(f"curl {url}: exit {run.returncode}: {words}")
    parts = [out.split() for out, _ in outs]
    return Fetch(wall, [float(first) for first, _ in parts], sum(int(float(size)) for _, size in parts))


def load(url: str, seconds: float, headers: Mapping[str, str] | None = None, *, connections: int = 32, rate: float = 0, method: str = "GET",
         ca: Path | None = None, numbers: int = 0) -> Measured:
    """tests/bench/http_load.c: requests, per_s, p50_us, p99_us, max_us.  `numbers`: ####### in the URL is one below it, in each request another."""
    command = [str(program("http_load")), "-c", str(connections), "-d", str(seconds), "-r", str(rate), "-m", method, *(["-a", str(ca)] if ca else []), "-n", str(numbers)]
    run = subprocess.run([*command, url], input="".join(f"{name}: {value}\n" for name, value in (headers or {}).items()), capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{method} {url}: {run.stderr}")
    return json.loads(run.stdout)


def quartiles(values: list[float]) -> Quartiles:
    if len(values) < 2:
        return values[0], values[0], values[0]
    q = statistics.quantiles(values, n=4, method="inclusive")
    return q[0], q[1], q[2]


@dataclass
class Pairs:
    """Rounds of two or more variants, interleaved, the order reversed every other round.  No round begins after `seconds`."""
    variants: dict[str, Callable[[], Measured]]
    rounds: int
    seconds: float
    results: dict[str, list[Measured]] = field(default_factory=dict)

    def run(self) -> "Pairs":
        self.results = {name: [] for name in self.variants}
        begin = time.monotonic()
        for turn in range(self.rounds):
            if turn > 0 and time.monotonic() - begin > self.seconds:
                break
            names = list(self.variants)
            for name in names if turn % 2 == 0 else reversed(names):
                self.results[name].append(self.variants[name]())
        return self

    @property
    def done(self) -> int:
        return min(map(len, self.results.values()))

    def values(self, name: str, key: str) -> list[float]:
        return [each[key] for each in self.results[name]]

    def median(self, name: str, key: str) -> float:
        return statistics.median(self.values(name, key))

    def ratio(self, name: str, against: str, key: str) -> Quartiles:
        """Round by round, `name` as a multiple of `against`."""
        return quartiles([a / b for a, b in zip(self.values(name, key), self.values(against, key))])

    def more(self, name: str, against: str, key: str) -> Quartiles:
        """Round by round, how much more than `against`."""
        return quartiles([a - b for a, b in zip(self.values(name, key), self.values(against, key))])
