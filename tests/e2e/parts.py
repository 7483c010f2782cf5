"""What is there of a file that is being fetched: parts/<digest>.map and .part, as cache/fill_internal.h lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from downloads import GRANULE, slice_of

from tests.lab.world import World

GRANULES_AT, VALID = 8192, 1


def part(world: World, facts: dict[str, Any]) -> tuple[Path, Path]:
    folder = world.nginx.cache / "parts"
    return folder / f"{facts['sha256']}.part", folder / f"{facts['sha256']}.map"


def valid(world: World, facts: dict[str, Any]) -> list[int]:
    """The granules that the map calls valid; none when there is no map."""
    try:
        return [number for number, word in enumerate(part(world, facts)[1].read_bytes()[GRANULES_AT:]) if word == VALID]
    except FileNotFoundError:
        return []


def wrong(world: World, facts: dict[str, Any]) -> list[int]:
    """Those of them whose bytes are not the file's.  Somebody may finish it meanwhile."""
    found, out = valid(world, facts), []
    try:
        file = part(world, facts)[0].open("rb")
    except FileNotFoundError:
        return []
    with file:
        for number in found:
            first, end = number * GRANULE, min((number + 1) * GRANULE, facts["size"])
            file.seek(first)
            if file.read(end - first) != slice_of(facts, first, end):
                out.append(number)
    return out
