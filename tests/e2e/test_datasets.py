"""The datasets library: parquet, JSON lines and CSV, loaded and streamed, from a public dataset and a private one, cold and warm."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from clients import HF, python
from downloads import GRANULE, MIB, sha256

from tests.lab.hubctl import HubProcess
from tests.lab.world import ORG, REASON, World

ROWS = 3000
KINDS = ("parquet", "json", "csv")
PUBLIC, COLUMNS = "tables", "tables/columns"         # tables/rows-parquet, acme/rows-parquet, ...

# what datasets are made of, written by the libraries that datasets itself reads with
MAKE = """
import csv, json, os, sys
import numpy, pyarrow, pyarrow.parquet
folder, rows = sys.argv[1], int(sys.argv[2])
for name in ("parquet", "json", "csv"):
    os.makedirs(os.path.join(folder, name), exist_ok=True)
table = [{"id": at, "text": f"row {at}, \\u00e9", "label": at % 3} for at in range(rows)]
half = rows // 2
for part, some in enumerate((table[:half], table[half:])):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(some), os.path.join(folder, "parquet", f"train-{part:05d}-of-00002.parquet"))
with open(os.path.join(folder, "json", "train.jsonl"), "w") as file:
    file.writelines(json.dumps(row) + "\\n" for row in table)
with open(os.path.join(folder, "csv", "train.csv"), "w", newline="") as file:
    out = csv.DictWriter(file, ["id", "text", "label"])
    out.writeheader()
    out.writerows(table)
dice = numpy.random.default_rng(5)
wide = {"id": range(1000), **{name: [dice.bytes(12 << 10) for _ in range(1000)] for name in ("image", "sound")}}
pyarrow.parquet.write_table(pyarrow.table(wide), os.path.join(folder, "wide.parquet"), compression="none")
"""

LOAD = """
import hashlib, json, sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train", streaming=sys.argv[2] == "streaming")
out = [[row["id"], row["text"], row["label"]] for row in rows]
print(json.dumps([len(out), hashlib.sha256(json.dumps(out).encode()).hexdigest()]))
"""

EXPECTED = [ROWS, sha256(json.dumps([[at, f"row {at}, \u00e9", at % 3] for at in range(ROWS)]).encode())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    subprocess.run([str(HF["datasets"] / "bin" / "python"), "-c", MAKE, str(folder), str(ROWS)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def tables(folder: Path, hub: HubProcess, request: pytest.FixtureRequest) -> Iterator[World]:
    from conftest import closing, new_world
    for kind in KINDS:
        files: dict[str, Any] = {f"data/{path.name}": {"file": str(path)} for path in (folder / kind).iterdir()}
        hub.add(f"{PUBLIC}/rows-{kind}", {"README.md": "A table.\n", **files}, type="dataset")
    hub.add(COLUMNS, {"data/train.parquet": {"file": str(folder / "wide.parquet"), "lfs": True}}, type="dataset")
    world = new_world(request, {"workers": 2, "private": {}}).start()
    for kind in KINDS:
        world.import_repo(f"dataset:{ORG}/rows-{kind}", folder / kind)
    yield world
    assert not closing(world, request.node)


def environment(world: World, role: str | None = "reader") -> dict[str, str]:
    """It asks datasets-server.<host of the gateway> too, which is no name here: that fails at once."""
    return world.env(role, HF_DATASETS_DISABLE_PROGRESS_BARS="1")


@pytest.mark.parametrize("how", ["loaded", "streaming"])
@pytest.mark.parametrize("namespace", [PUBLIC, ORG], ids=["public", "private"])
def test_load_dataset(tables: World, hub: HubProcess, namespace: str, how: str) -> None:
    for turn in ("cold", "warm"):
        for kind in KINDS:
            done = python("datasets", LOAD, environment(tables), f"{namespace}/rows-{kind}", how)
            assert done.status == 0 and done.json == EXPECTED, (turn, kind, done.text)
        hub.wait_idle()
        if namespace == ORG or turn == "warm":
            assert hub.requests() == []
        hub.reset_stats()


PROJECT = """
import json, sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], split="train", streaming=True, columns=["id"])
print(json.dumps(sum(row["id"] for row in rows)))
"""


def test_one_column_costs_one_column(tables: World, hub: HubProcess) -> None:
    """Streaming a column of a wide table reads a little of the file: the rest is not fetched either."""
    size = hub.file(COLUMNS, "data/train.parquet", type="dataset")["size"]
    done = python("datasets", PROJECT, environment(tables), COLUMNS)
    assert done.status == 0 and done.json == sum(range(1000)), done.text
    hub.wait_idle()
    assert size > 20 * MIB and hub.content_bytes() <= 10 * GRANULE


def test_what_a_person_reads_who_may_not(tables: World) -> None:
    for role, repo, text in [("stranger", f"{ORG}/rows-csv", "doesn't exist on the Hub or cannot be accessed"), ("reader", "evil/tables", REASON)]:
        done = python("datasets", LOAD, environment(tables, role), repo, "loaded")
        assert done.status != 0 and text in done.text, done.text
