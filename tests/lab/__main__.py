"""`python3 -m tests.lab up` starts a world and returns when it is ready; `down` ends one, or all."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from . import procs, state
from .fetch import fetch
from .world import ORG, World
from .yamlout import parse_value


def up(options: argparse.Namespace) -> int:
    settings = {}
    for pair in options.set:
        key, equals, value = pair.partition("=")
        if not equals:
            print(f"--set wants key=value, not {pair!r}", file=sys.stderr)
            return 2
        settings[key] = parse_value(value)
    folder = Path(options.dir) if options.dir else None
    if folder and (folder / state.STATE).exists():
        print(f"a world is already in {folder}: python3 -m tests.lab down --dir {folder}", file=sys.stderr)
        return 2
    hub_options = [word for path in options.repos for word in ("--repos", str(Path(path).resolve()))]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    world = None
    try:
        world = World(folder, workers=options.workers, people=options.people, upstream=options.upstream.rstrip("/") if options.upstream else None,
                      settings=settings, hub_options=hub_options, tls=options.tls)
        world.start(state.record)
        who = fetch(world.url, "/api/whoami-v2", headers=world.headers("reader"))
        if who.status != 200:
            raise procs.LabError(f"/api/whoami-v2 answers {who.status}: {who.text[:300]}")
    except BaseException as error:
        if world:
            world.stop()
            state.forget(world.folder)
            if isinstance(error, procs.LabError):
                print(f"the lab did not start: {error}\n(what there is stays in {world.folder})", file=sys.stderr)
                return 1
        raise
    described = world.describe()
    if world.tls_url:
        described["tls"] = {"gateway": world.tls_url, "ca_file": str(world.ca.file)}
    print(json.dumps(described) if options.json else story(world))
    return 0


def story(world: World) -> str:
    lines = [f"gateway  {world.url}", f"hub      {world.upstream or (world.hub.url if world.hub else '')}"]
    if world.slapd:
        lines.append(f"ldap     {world.slapd.url}")
    lines += [f"folder   {world.folder}", ""]
    lines += [f"{role:9}password {world.passwords[role]}   token {token}" for role, token in world.tokens.items()]
    name = "demo/tiny-llm" if world.hub else "SOME/MODEL"
    for role, repo, what in (("reader", name, "public"), ("reader", f"{ORG}/llm", "private"), ("stranger", f"{ORG}/llm", "private, refused")):
        lines += ["", f"# {what}", f"HF_ENDPOINT={world.url} HF_TOKEN={world.tokens[role]} hf download {repo}"]
    return "\n".join(lines + ["", f"python3 -m tests.lab down --dir {world.folder}"])


def down(options: argparse.Namespace) -> int:
    folders = [Path(options.dir)] if options.dir else state.worlds()
    for folder in folders:
        for line in state.end(folder):
            print(line)
    if not folders:
        print("no world of the lab is running")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("up", help="start a world")
    start.add_argument("--workers", type=int, default=1, metavar="N", help="nginx workers (default 1)")
    start.add_argument("--upstream", metavar="URL", help="another hub in place of the lab's")
    start.add_argument("--people", choices=("ldap", "file"), default="ldap", help="a directory (default), or an account file")
    start.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a dotted key of hubgate.yaml; lists and maps as JSON")
    start.add_argument("--repos", action="append", default=[], metavar="DIR", help="the Hub also has DIR/{models,datasets,spaces}/NAMESPACE/NAME")
    start.add_argument("--tls", action="store_true", help="also listen with TLS")
    start.add_argument("--json", action="store_true", help="print one object for programs")
    start.add_argument("--dir", metavar="DIR", help="where everything is put (default: a temporary folder)")
    end = verbs.add_parser("down", help="end a world, or all of them")
    end.add_argument("--dir", metavar="DIR")
    options = parser.parse_args()
    return up(options) if options.verb == "up" else down(options)


if __name__ == "__main__":
    sys.exit(main())
