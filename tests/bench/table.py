"""The rows: hubgate's number with its quartiles, the target, what the others have, and who wins."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from .measure import Measured, Pairs, Quartiles, quartiles

GATEWAYS = ("hubgate", "proxy_cache", "slice", "peer")
EVEN = 0.02                     # medians nearer than this share of each other: nobody wins


@dataclass
class Row:
    what: str
    against: str                # what the number is a multiple of, or more than; "-": the number itself
    unit: str
    q1: float
    median: float
    q3: float
    rounds: int
    target: str                 # "<= 0.75"; "": for information
    reached: bool | None
    others: dict[str, float]    # medians, in the same unit
    wins: str
    note: str
    raw: dict[str, list[Measured]]


def reached(target: str, q: Quartiles) -> bool | None:
    """By the quartile on the bad side."""
    if not target:
        return None
    sign, limit = target.split()
    return q[2] <= float(limit) if sign == "<=" else q[0] >= float(limit)


def winner(numbers: dict[str, float], less_is_better: bool) -> str:
    if len(numbers) < 2:
        return "-"
    ranked = sorted(numbers.items(), key=lambda pair: pair[1], reverse=not less_is_better)
    (first, best), (_, second) = ranked[:2]
    if "hubgate" in numbers and abs(best - numbers["hubgate"]) <= EVEN * max(abs(best), abs(numbers["hubgate"]), 1e-9):
        return "hubgate" if first == "hubgate" and abs(best - second) > EVEN * max(abs(best), abs(second)) else "even"
    return first


class Table:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, what: str, pairs: Pairs, key: str, target: str = "", *, against: str = "", more: bool = False, scale: float = 1, unit: str = "x",
            less: bool | None = None, words: str = "", note: str = "") -> None:
        """One number of hubgate and of all other gateways in `pairs`: a multiple of `against`, how much `more`, or itself.
        `less`: what is less is better; the target's sign says it if there is one.  `words`: how `against` is called."""
        def number(name: str) -> Quartiles:
            if not against:
                q = quartiles(pairs.values(name, key))
            else:
                q = (pairs.more if more else pairs.ratio)(name, against, key)
            return q[0] * scale, q[1] * scale, q[2] * scale
        ours = number("hubgate")
        numbers = {name: number(name)[1] for name in GATEWAYS if name in pairs.variants and all(key in each for each in pairs.results[name])}
        less = target.startswith("<") if less is None else less
        wins = winner(numbers, less)
        seen = ", ".join(f"{name} {pairs.median(name, key) * (scale if unit != 'x' else 1):.4g}" for name in pairs.variants
                         if against and all(key in each for each in pairs.results[name]))
        self.put(what, words or against or "-", unit, ours, pairs.done, target, {k: v for k, v in numbers.items() if k != "hubgate"}, wins,
                 "; ".join(filter(None, (note, seen))), {name: [{key: each[key]} for each in pairs.results[name] if key in each] for name in pairs.variants})

    def put(self, what: str, against: str, unit: str, ours: Quartiles, rounds: int, target: str = "", others: dict[str, float] | None = None,
            wins: str = "-", note: str = "", raw: dict[str, list[Measured]] | None = None) -> None:
        row = Row(what, against, unit, *ours, rounds, target, reached(target, ours), others or {}, wins, note, raw or {})
        self.rows.append(row)
        print(self.line(row, self.columns()), flush=True)

    def columns(self) -> list[str]:
        return ["proxy_cache", "slice", *(["peer"] if any("peer" in row.others for row in self.rows) else [])]

    @staticmethod
    def line(row: Row, columns: list[str]) -> str:
        of = f" x {row.against}" if row.unit == "x" else f" {row.unit} more than {row.against}" if row.against != "-" else f" {row.unit}"
        spread = f" ({row.q1:.3g} to {row.q3:.3g})" if row.rounds > 1 else ""
        verdict = {None: "", True: "yes", False: "**no**"}[row.reached]
        others = " | ".join(f"{row.others[name]:.3g}" if name in row.others else "-" for name in columns)
        return f"| {row.what} | {row.median:.3g}{spread}{of} | {row.rounds} | {row.target} | {verdict} | {others} | {row.wins} |"

    def markdown(self) -> str:
        columns = self.columns()
        head = ["row", "hubgate: median (quartiles)", "rounds", "target", "reached", *columns, "wins"]
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *(self.line(row, columns) for row in self.rows)]
        notes = [f"- {row.what}: {row.note}" for row in self.rows if row.note]
        return "\n".join([*lines, "", "Seen:", *notes])

    def write(self, path: Path, **more: object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "load": os.getloadavg(), **more,
                                    "rows": [asdict(row) for row in self.rows]}, indent=1) + "\n")

    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.reached is False]
