"""Random sequences of what clients, administrators and an upstream do to one large file, against a model of what may come of it.

Each sequence has a file of its own that nobody holds yet.  Ranges and whole GETs are opened, read in steps (a reader that is not read
from is a slow one), finished or left; workers are killed, nginx is reloaded, the file is evicted; upstream is cut, refuses, crawls,
sends a wrong bit.  At every step, and at the end:

    wrong bytes     none, but a flipped bit in a range that was sent before its file was whole (design: proof), never in a whole answer
    double fetches  none, but what was on its way when somebody died, waited, or threw it away
    stuck readers   none: each answer goes on or ends

`make states N=500` draws new sequences and prints one that fails; without N the same few run each time.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

import pytest
from downloads import GRANULE, MIB, blob, forget, fresh, sha256
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

SEQUENCES = int(os.environ.get("STATES") or 0)
STUCK = 40.0                    # seconds without a byte or an end, on a machine that does other things too
HELD = 16 * MIB                 # a longer answer that reaches the end waits for the digest
RATE = 32 * MIB                 # of one connection: what is on its way when it is cut stays small


class Reader:
    """One GET whose bytes are taken when told to; `span` is what was asked for."""

    def __init__(self, world: World, target: str, span: tuple[int, int], header: str | None) -> None:
        self.span, self.whole, self.open_ended = span, header is None, bool(header and header.endswith("-"))
        self.status, self.buffer, self.body, self.length = 0, b"", bytearray(), -1
        self.ended = self.shaky = False
        parts = urlsplit(world.url)
        self.sock = socket.create_connection((str(parts.hostname), parts.port or 80), STUCK)
        lines = {"Host": parts.netloc, "Connection": "close", **world.headers("reader"), **({"Range": header} if header else {})}
        self.sock.sendall(f"GET {target} HTTP/1.1\r\n".encode() + "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode() + b"\r\n")

    @property
    def clean(self) -> bool:
        return self.ended and self.status in (200, 206) and len(self.body) == self.length

    def take(self, count: int | None) -> None:
        """So many more bytes of the body, or all; TimeoutError when it is stuck."""
        want = None if count is None else len(self.body) + count
        while not self.ended and (want is None or len(self.body) < want):
            try:
                chunk = self.sock.recv(256 << 10)
            except ConnectionError:
                chunk = b""
            if not chunk:
                self.ended = True
                self.sock.close()
            elif self.status:
                self.body += chunk
            else:
                self.buffer += chunk
                head, found, rest = self.buffer.partition(b"\r\n\r\n")
                if found:
                    first, *lines = head.decode("latin-1").split("\r\n")
                    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                    self.status, self.length = int(first.split()[1]), int(fields.get("content-length", "-1"))
                    self.body += rest

    def leave(self) -> None:
        self.ended = True
        self.sock.close()


class States(RuleBasedStateMachine):
    world: World
    hub: HubProcess
    sequences = steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.readers: list[Reader] = []
        self.held: list[Reader] = []     # those nobody has read to the end or left: what rules are chosen by must not hang on time
        self.facts: dict[str, Any] = {}
        self.fault: int | None = None
        self.shaky = False               # upstream has failed in this sequence: answers may be errors, or cut
        self.wrong = -1                  # where a bit may be flipped; -1: nowhere
        self.thrown = 0                  # bytes from upstream that are not there any more
        self.granules = 0                # how many MiB were on their way when something happened, and may come twice

    def note(self, text: str) -> None:
        self.log.append(text)
        type(self).steps += 1

    def check(self, true: object, text: str) -> None:
        if not true:
            story = "\n    ".join([f"size {self.facts['size']}, seed {self.facts['seed']}", *self.log])
            raise AssertionError(f"{text}\n    {story}")

    # --- steps

    @initialize(mebibytes=st.integers(5, 24), odd=st.sampled_from([0, 1, 4321, MIB - 1]))
    def begin(self, mebibytes: int, odd: int) -> None:
        type(self).sequences += 1
        self.hub.heal()
        self.facts = fresh(self.hub, mebibytes * MIB + odd)
        self.data = Path(self.facts["path"]).read_bytes()
        self.size = len(self.data)
        self.hub.fault(self.facts["sha256"], host="cdn", rate_bytes_per_s=RATE)
        self.world.head(self.facts["main"], "reader")
        self.hub.reset_stats()

    def open(self, first: int, end: int, header: str | None) -> None:
        self.note(f"open {len(self.readers)}: {header or 'whole'}")
        reader = Reader(self.world, self.facts["main"], (first, end), header)
        reader.shaky = self.shaky
        self.readers.append(reader)
        self.held.append(reader)
        self.granules += bool(self.on_their_way())          # who waits ends a share, which had something on its way

    def on_their_way(self) -> int:
        """Answers of upstream that are under way."""
        return sum(not record["done"] for record in self.hub.stats()["recent"] if record["route"] == "cdn")

    few = precondition(lambda self: len(self.held) < 8)
    some = precondition(lambda self: self.held)

    @few
    @rule()
    def open_whole(self) -> None:
        self.open(0, self.size, None)

    @few
    @rule(at=st.floats(0, 0.999), count=st.sampled_from([1, 1000, 64 << 10, MIB, 3 * MIB, 20 * MIB]))
    def open_range(self, at: float, count: int) -> None:
        first = int(at * self.size)
        end = min(first + count, self.size)
        self.open(first, end, f"bytes={first}-{end - 1}")

    @few
    @rule(at=st.floats(0, 0.999))
    def open_rest(self, at: float) -> None:
        self.open(int(at * self.size), self.size, f"bytes={int(at * self.size)}-")

    @few
    @rule(count=st.sampled_from([1, 1024, 2 * MIB]))
    def open_end(self, count: int) -> None:
        self.open(self.size - count, self.size, f"bytes=-{count}")

    def take(self, reader: Reader, count: int | None) -> None:
        try:
            reader.take(count)
        except TimeoutError:
            self.check(False, f"reader {self.readers.index(reader)} is stuck after {len(reader.body)} bytes, status {reader.status}")
        self.right(reader)

    @some
    @rule(which=st.integers(0, 7), count=st.sampled_from([1, 300 << 10, 2 * MIB]))
    def read_some(self, which: int, count: int) -> None:
        reader = self.held[which % len(self.held)]
        self.note(f"read {count} of {self.readers.index(reader)}")
        self.take(reader, count)

    @some
    @rule(which=st.integers(0, 7))
    def read_all(self, which: int) -> None:
        reader = self.held.pop(which % len(self.held))
        self.note(f"read all of {self.readers.index(reader)}")
        self.take(reader, None)

    @some
    @rule(which=st.integers(0, 7))
    def leave(self, which: int) -> None:
        reader = self.held.pop(which % len(self.held))
        self.note(f"leave {self.readers.index(reader)}")
        reader.leave()

    def disturb(self) -> None:
        """What is open now may be cut."""
        for reader in self.held:
            reader.shaky = True

    def interrupt(self) -> None:
        """What is on its way may have to come again; one more may begin just now."""
        self.granules += self.on_their_way() + 1

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        self.note(f"kill -9 of worker {which}")
        self.disturb()
        self.interrupt()
        self.world.nginx.kill_worker(self.world.nginx.workers()[which])

    @rule()
    def reload(self) -> None:
        self.note("reload")
        self.interrupt()
        self.world.nginx.reload()

    @rule()
    def evict(self) -> None:
        """By the command, which leaves alone what is on its way: nobody who reads is harmed."""
        done = self.world.cli("cache", "evict", f"model:{self.facts['repo']}", check=False)
        self.note(f"hubgate cache evict: {done.returncode}, {done.stdout.strip() or done.stderr.strip()}")
        self.check(done.returncode in (0, 1), "it failed")              # 1: nothing of it is held
        if done.returncode == 0:
            self.thrown = self.hub.content_bytes()

    @rule()
    def remove(self) -> None:
        """Its names are gone, as an administrator's rm would do it."""
        self.note("rm of blob, part and map")
        self.disturb()
        parts = self.world.nginx.cache / "parts"
        for path in (blob(self.world, self.facts["sha256"]), parts / f"{self.facts['sha256']}.part", parts / f"{self.facts['sha256']}.map"):
            path.unlink(missing_ok=True)
        self.interrupt()
        more = self.thrown + self.size if self.on_their_way() else 0   # who fetches finds out when it looks, about once a second
        self.thrown = max(self.hub.content_bytes(), more)

    def misbehave(self, text: str, **keys: Any) -> None:
        self.note(text)
        self.heal_upstream()
        self.fault = self.hub.fault(self.facts["sha256"], host="cdn", **keys)

    def fail(self, text: str, **keys: Any) -> None:
        self.shaky = True
        self.disturb()
        self.granules += 2               # two answers end early
        self.misbehave(text, **keys)

    def heal_upstream(self) -> None:
        if self.fault is not None:
            self.hub.heal(self.fault)
            self.fault = None

    @rule(after=st.sampled_from([0, 1, 700_000, 3 * MIB]), reset=st.booleans())
    def upstream_cuts(self, after: int, reset: bool) -> None:
        self.fail(f"upstream cuts twice after {after}{', by RST' if reset else ''}", cut_after=after, reset=reset, times=2)

    @rule(status=st.sampled_from([429, 500, 503]))
    def upstream_refuses(self, status: int) -> None:
        self.fail(f"upstream answers {status}, twice", status=status, times=2)

    @rule()
    def upstream_crawls(self) -> None:
        self.granules += 4               # connections that crawl where others ran begin anew
        self.misbehave("upstream crawls", rate_bytes_per_s=2 * MIB)

    @precondition(lambda self: self.wrong < 0)
    @rule(at=st.floats(0, 0.999))
    def upstream_lies(self, at: float) -> None:
        """Once a sequence: after the second time nobody asks again for a minute."""
        self.wrong = int(at * self.size)
        self.fail(f"upstream flips a bit of byte {self.wrong}, in one answer", wrong_bytes=[self.wrong], times=1)

    @precondition(lambda self: self.fault is not None)
    @rule()
    def upstream_is_well(self) -> None:
        self.note("upstream is well")
        self.heal_upstream()

    # --- what must hold

    def right(self, reader: Reader) -> None:
        """What this reader has got so far."""
        number, (first, end) = self.readers.index(reader), reader.span
        if reader.status in (200, 206):
            if reader.status == 200 and not reader.whole:
                first, end = 0, self.size                              # all of it is always allowed
            self.check(reader.length in (-1, end - first), f"reader {number}: Content-Length {reader.length}")
            got, want = bytes(reader.body), self.data[first:first + len(reader.body)]
            if got != want:
                bad = [at for at in range(len(got)) if got[at:at + 1] != want[at:at + 1]][:3]
                self.check([first + at for at in bad] == [self.wrong], f"reader {number}: wrong bytes at {[first + at for at in bad]}")
                proved = end == self.size and (first == 0 or end - first > HELD)
                self.check(not (reader.clean and proved), f"reader {number}: complete, and wrong")
        elif reader.status == 416:
            self.check(reader.open_ended and self.wrong >= 0, f"reader {number}: 416")
        elif reader.status:
            self.check(reader.status in (429, 500, 502, 503) and (reader.shaky or self.shaky), f"reader {number}: status {reader.status} {bytes(reader.body)[:200]!r}")
        if reader.ended and not reader.clean and reader.status != 416:
            self.check(reader.shaky or self.shaky, f"reader {number}: cut after {len(reader.body)} bytes, status {reader.status}")

    def again(self) -> bool:
        """A whole GET from now on ends well."""
        reader = Reader(self.world, self.facts["main"], (0, self.size), None)
        self.readers.append(reader)
        reader.shaky = True
        self.take(reader, None)
        return reader.clean

    def teardown(self) -> None:
        if not self.facts:
            return
        self.heal_upstream()
        try:
            for reader in self.held:
                self.take(reader, None)
            self.hub.wait_idle(STUCK)
            try:
                procs.wait_until("the file", self.again, STUCK, every=0.2)
                procs.wait_until("the blob", blob(self.world, self.facts["sha256"]).exists, STUCK)
            except procs.LabError as error:
                self.check(False, str(error))
            self.check(sha256(blob(self.world, self.facts["sha256"]).read_bytes()) == self.facts["sha256"], "the blob is wrong")
            self.hub.wait_idle(STUCK)
            most = self.thrown + (2 if self.wrong >= 0 else 1) * self.size + self.granules * GRANULE
            self.check(self.hub.content_bytes() <= most, f"{self.hub.content_bytes() / MIB:.1f} MiB from upstream, {most / MIB:.1f} at most")
        finally:
            for reader in self.readers:
                reader.leave()
            self.hub.heal()
            blob(self.world, self.facts["sha256"]).unlink(missing_ok=True)
            forget(self.facts)


@pytest.mark.timeout(0 if SEQUENCES else 300)
def test_states(make_world: Callable[..., World], hub: HubProcess, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(workers=2, private={}, settings={"upstream.stall_timeout": "2s"})
    world.expect_log(r"\[alert\].*exited on signal 9", min=0)
    machine = type("TheseStates", (States,), {"world": world, "hub": hub})
    kept = Path(__file__).resolve().parents[2] / "build" / "hypothesis"
    run_state_machine_as_test(machine, settings=settings(
        max_examples=SEQUENCES or 16, stateful_step_count=14, derandomize=not SEQUENCES, deadline=None, print_blob=False,
        database=DirectoryBasedExampleDatabase(kept) if SEQUENCES else None, suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate]))
    with capsys.disabled():
        print(f"\n{machine.sequences} sequences, {machine.steps} steps: nothing wrong, nothing twice, nobody stuck")
