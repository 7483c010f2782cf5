#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What deploy/quickstart starts, shows and stops: nginx with the module, a sample directory, a private model, tokens.

Configuration is written once, into the folder; from then on it is the user's: starting again changes nothing in it.
quickstart.json there holds what a later call has to know: ports, passwords, tokens, and the processes by pid and start time.
The servers are those of the tests (tests/lab).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True

from tests.lab import demo, nginx, procs  # noqa: E402
from tests.lab.fetch import basic, fetch  # noqa: E402
from tests.lab.hubctl import HubProcess  # noqa: E402
from tests.lab.repos import Maker  # noqa: E402
from tests.lab.slapd import GROUPS, PEOPLE, SERVICE, Slapd  # noqa: E402

HUB = "https://huggingface.co"
PUBLIC = {True: "demo/tiny-llm", False: "hf-internal-testing/tiny-random-gpt2"}     # by: is it the demo hub?
PRIVATE = "acme/llm"
MEMBERS = {"staff": ("ann", "bo"), "research": ("ann",)}
NAMES = ("ann", "bo", "cy")
NOT_RUNNING = 3

POLICY = f"""\
# Who may do what: docs/policy.md. After a change: hubgate check, hubgate reload (see the lines of deploy/quickstart).
version: 1
private_namespaces: [acme]          # acme/... lives here and is never asked for on the public hub

groups:
  staff:    {{ldap: "cn=staff,{GROUPS}"}}       # ann, bo
  research: {{ldap: "cn=research,{GROUPS}"}}    # ann

rules:
  - {{id: public-read,    allow: [read],          to: [authenticated],      where: {{hub: public}}}}
  - {{id: acme-see,       allow: [discover],      to: ["group:staff"],      where: {{hub: private, repo: "acme/*"}}}}
  - {{id: research-write, allow: [write, create], to: ["group:research"],   where: {{hub: private, repo: "acme/*"}}}}
  - id: research-only
    deny: [read]
    unless: ["group:research"]
    where: {{repo: {PRIVATE}}}
    reason: {PRIVATE} is for the research group. Ask ann@example.org to be added.

tests:                              # hubgate check runs these
  - name: research reads and writes
    as: {{user: ann, groups: [staff, research]}}
    can: ["read model:{PRIVATE}", "write model:{PRIVATE}", "read model:google/gemma"]
  - name: staff sees that it is there, and why it stays closed
    as: {{user: bo, groups: [staff]}}
    can: ["discover model:{PRIVATE}", "read model:google/gemma"]
    cannot: ["read model:{PRIVATE}"]
    rule: research-only
  - name: somebody else does not even see it
    as: user:cy
    cannot: ["discover model:{PRIVATE}"]
"""


class Directory(Slapd):
    """slapd with three people and two groups; ports and passwords of an earlier start are used again."""

    def __init__(self, folder: Path, known: dict[str, Any]) -> None:
        super().__init__(folder, port=known.get("port"), tls_port=known.get("tls_port"))
        self.service_password = known.get("service", self.service_password)
        self.passwords = known.get("passwords") or {name: secrets.token_urlsafe(9) for name in NAMES}

    def populate(self) -> None:
        for name in NAMES:
            self.add_person(name, self.passwords[name])
        for group, members in MEMBERS.items():
            self.add_group(group, *members)


class Sample:
    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "quickstart.json"
        self.state: dict[str, Any] = {}
        if self.file.exists():
            self.state = json.loads(self.file.read_text())
            if self.state.get("version") != 1:
                raise procs.LabError(f"{self.file} is of another version of quickstart: use another --dir")
        elif folder.exists() and any(folder.iterdir()):
            raise procs.LabError(f"{folder} is there, and was not made by quickstart: use another --dir")

    def save(self) -> None:
        new = self.file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text(json.dumps(self.state, indent=1) + "\n")
        new.replace(self.file)

    # what runs

    def running(self) -> list[dict[str, Any]]:
        return [each for each in self.state.get("running", []) if procs.is_ours(each["pid"], each["began"])]

    def whole(self) -> bool:
        """Everything that was started still runs."""
        return bool(self.state.get("running")) and len(self.running()) == len(self.state["running"])

    def note(self, name: str, server: Any) -> None:
        self.state["running"].append({"name": name, "pid": server.pid, "began": server.began})
        self.save()

    def stop(self) -> list[str]:
        """End our processes, the last one started first."""
        ended = []
        for each in reversed(self.running()):
            children = [(pid, procs.start_time(pid) or 0) for pid in procs.children(each["pid"])]
            procs.end(each["pid"], each["began"])
            for pid, began in children:
                procs.end(pid, began)
            ended.append(each["name"])
        self.state["running"] = []
        if self.file.exists():
            self.save()
        return ended

    # starting

    def start(self, demo_hub: bool, why: str) -> None:
        if not self.state.get("ready"):
            self.clear()
            self.state = {"version": 1, "demo": demo_hub, "why": why, "user": workers_user(self.folder)}
        self.state["running"] = []
        self.save()
        if self.state["user"]:
            os.environ["HUBGATE_USER"] = self.state["user"]
        os.environ["HUBGATE_LAB_CACHE"] = str(self.folder / "hub" / "files")
        try:
            self.servers()
        except BaseException:
            self.stop()
            raise

    def clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def servers(self) -> None:
        fresh, state = not self.state.get("ready"), self.state
        for port in state.get("ports", {}).values():
            if listening(port):
                raise procs.LabError(f"port {port}, which {self.folder} was set up with, is in use by something else now: "
                                     "end that, or use another --dir")
        if state["demo"]:
            hub = HubProcess(self.folder / "hub", state.get("hub", []))
            hub.start()
            self.note("the demo hub", hub)
            state["hub"] = ["--port", hub.url.rpartition(":")[2], "--cdn-port", hub.cdn_url.rpartition(":")[2]]
        directory = Directory(self.folder / "slapd", state.get("slapd", {}))
        directory.start()
        self.note("slapd", directory)
        state["slapd"] = {"port": directory.port, "tls_port": directory.tls_port, "service": directory.service_password,
                          "passwords": directory.passwords}
        web = nginx.Nginx(self.folder, workers=2)
        if fresh:
            web.write_conf()
            self.write(web, directory, hub if state["demo"] else None)
            web.cli("check")
            web.cli("repo", "import", PRIVATE, str(self.model()), "--message", "First version")
        else:
            web.port, web.url = state["ports"]["nginx"], state["url"]
        web.start()
        self.note("nginx", web)
        if fresh:
            state["url"], state["ports"] = web.url, {"nginx": web.port, "ldap": directory.port, "ldaps": directory.tls_port}
            state["tokens"] = {name: mint(web.url, name, directory.passwords[name]) for name in NAMES}
            state["ready"] = True
        self.save()

    def write(self, web: nginx.Nginx, directory: Slapd, hub: HubProcess | None) -> None:
        secret = self.folder / "secrets"
        secret.mkdir(mode=0o700)
        password = secret / "ldap-service"
        password.touch(mode=0o600)
        password.write_text(directory.service_password)
        if hub:
            upstream = f"  url: {hub.url}\n  redirect_hosts: [\"{urlsplit(hub.cdn_url).netloc}\"]   # where its large files are\n"
        else:
            upstream = f"  url: {HUB}\n"
            if proxy := urllib.request.getproxies().get("https"):
                upstream += f"  proxy: {json.dumps(proxy)}\n"
        web.config_file.write_text(f"""\
# Written by deploy/quickstart. Every key: docs/config.md. Relative paths start at this folder.
public_urls: [{web.url}]
data: data                      # the truth: private repositories, tokens. Back it up.
cache: {{dir: cache}}             # what can be fetched again
upstream:
{upstream}ldap:
  - name: sample
    urls: [{directory.url}]
    bind_dn: {json.dumps(SERVICE)}
    bind_password_file: secrets/ldap-service
    user_base: {json.dumps(PEOPLE)}
    user_filter: "(&(uid=${{user}})(employeeType=active))"
git: {{command: {json.dumps(str(nginx.command_file()))}}}     # git clone and push
policy_dir: policy.d
audit_file: logs/audit.jsonl
""")
        (web.policy_dir / "acme.yaml").write_text(POLICY)

    def model(self) -> Path:
        """A folder with the files of the private model."""
        folder = self.folder / "llm"
        maker = Maker(self.folder / "hub" / "files")
        for path, spec in demo.tiny("The company's model", 21).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(maker.blob(path, spec).read())
        return folder

    # what a newcomer reads

    def lines(self) -> str:
        state, url = self.state, self.state["url"]
        config = f"-c {shown(self.folder / 'hubgate.yaml')}"
        hubgate = f"{shown(ROOT / 'build' / 'hubgate')} {config}"
        refused = fetch(url, f"/{PRIVATE}/resolve/main/config.json", headers={"Authorization": f"Bearer {state['tokens']['bo']}"})

        def download(name: str, repo: str, more: str = "") -> str:
            return f"HF_ENDPOINT={url} HF_TOKEN={state['tokens'][name]} {more}hf download {repo}"
        groups = {name: ", ".join(group for group, members in MEMBERS.items() if name in members) or "no group" for name in NAMES}
        out = [f"hubgate answers at {url}. Everything is in {shown(self.folder)}/.",
               f"Public models come from {'the demo hub on this machine' if state['demo'] else HUB}{state['why']}."]
        if state["user"] == "root":
            out.append(f"(www-data may not enter {self.folder}, so nginx's workers run as root. Elsewhere they would not.)")
        out += ["", "People, as the sample directory knows them:"]
        out += [f"  {name:4} password {state['slapd']['passwords'][name]}   {groups[name]}" for name in NAMES]
        if not shutil.which("hf"):
            out += ["", "# the hf command, in a virtual environment of its own",
                    "python3 -m venv ~/hf && ~/hf/bin/pip install huggingface_hub && PATH=~/hf/bin:$PATH"]
        out += ["", "# ann loads a public model: the first time from the hub, then from here", download("ann", PUBLIC[state["demo"]]),
                "", f"# ann loads the company's own model, which only her group may read ({shown(self.folder / 'policy.d' / 'acme.yaml')})",
                download("ann", PRIVATE),
                "", "# bo may know of it, but not read it, and is told why (in a cache of his own: hf would show him ann's copy)",
                f"#   {refused['X-Error-Message'] or 'as the rules are now, he may: ' + str(refused.status)}",
                download("bo", PRIVATE, "HF_HOME=$(mktemp -d) "),
                "", "# a token of one's own, with name and password of the directory",
                f"curl -sS -u cy:{state['slapd']['passwords']['cy']} -d name=laptop {url}/api/gateway/tokens",
                "", "# which rule says so; what happened; the end",
                f"{hubgate} explain user:bo read model:{PRIVATE}", f"tail -n 3 {shown(self.folder / 'logs' / 'audit.jsonl')}",
                f"{shown(ROOT / 'deploy' / 'quickstart')} --stop" + ("" if self.folder == Path.cwd() / "quickstart.d" else f" --dir {self.folder}")]
        return "\n".join(out)


def shown(path: Path) -> str:
    """As one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def workers_user(folder: Path) -> str | None:
    """None: this user (not root), or the usual one. root: the usual one may not enter the folder (a checkout below /root, say)."""
    usual = nginx.worker_user()
    if usual is None:
        return None
    may = subprocess.run(["test", "-x", folder], user=usual[1], group=usual[3], extra_groups=[])
    return None if may.returncode == 0 else "root"


def mint(url: str, name: str, password: str) -> str:
    answer = fetch(url, "/api/gateway/tokens", "POST", {"Authorization": basic(name, password),
                   "Content-Type": "application/x-www-form-urlencoded"}, urlencode({"name": "quickstart", "role": "write"}).encode())
    if answer.status not in (200, 201):
        raise procs.LabError(f"no token for {name}: {answer.status} {answer.text[:300]}")
    return answer.json()["token"]


def unreachable() -> str | None:
    """Why the public hub does not answer, or None when it does."""
    said = ["no answer within 6 s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{HUB}/api/models/{PUBLIC[False]}", timeout=5) as answer:
                json.load(answer)
            said.clear()
        except (OSError, ValueError) as error:
            said[:] = [str(getattr(error, "reason", error))]
    thread = threading.Thread(target=ask, daemon=True)      # a name server may take longer than any timeout of ours
    thread.start()
    thread.join(6)
    return said[0] if said else None


def run(options: argparse.Namespace) -> int:
    folder = Path(options.dir).absolute()
    if options.verb != "start" and not (folder / "quickstart.json").exists():
        print(f"nothing was started in {shown(folder)}")
        return 0 if options.verb == "stop" else NOT_RUNNING
    sample = Sample(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    sample = Sample(folder) if sample.file.exists() else sample          # as it is now that nobody else is at it
    if options.verb == "stop":
        ended = sample.stop()
        print(f"ended: {', '.join(ended)}" if ended else "nothing of it was running")
        print(f"{shown(folder)}/ stays: deploy/quickstart starts it again, rm -r removes it")
        return 0
    if options.demo_hub and sample.state.get("ready") and not sample.state["demo"]:
        raise procs.LabError(f"{shown(folder)} was set up with {HUB}: use another --dir for the demo hub")
    if sample.whole() and sample.state.get("ready"):
        print("It runs already.\n" + sample.lines())
        return 0
    if options.verb == "show":
        return NOT_RUNNING
    sample.stop()
    why = ""
    if not options.demo_hub and not sample.state.get("ready") and (reason := unreachable()):
        why = f" ({urlsplit(HUB).hostname} cannot be reached from here: {reason})"
    sample.start(options.demo_hub or bool(why), why)
    print(sample.lines())
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=("start", "show", "stop"))
    parser.add_argument("--dir", required=True)
    parser.add_argument("--demo-hub", action="store_true")
    os.umask(0o022)
    try:
        return run(parser.parse_args())
    except BrokenPipeError:
        return 0
    except (procs.LabError, OSError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
