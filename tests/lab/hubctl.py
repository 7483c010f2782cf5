"""Speaking to a running lab Hub, and starting one in a process of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Iterable

from . import procs
from .hub import HubServer


class HubControl:
    """Everything a test can tell or ask a lab Hub; `url` is its address."""

    url: str
    cdn_url: str

    def _call(self, method: str, verb: str, body: object = None) -> Any:
        request = urllib.request.Request(f"{self.url}/-/lab/{verb}", method=method, data=None if body is None else json.dumps(body).encode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *self._handlers())
        try:
            with opener.open(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None

    def _handlers(self) -> list[urllib.request.BaseHandler]:
        return []

    def fault(self, match: str = ".*", **keys: Any) -> int:
        """Misbehave where `match` is found in the request target; the keys are those of httpd.Fault.  Returns its id."""
        return self._call("POST", "fault", {"match": match, **keys})["id"]

    def heal(self, fault_id: int | None = None) -> None:
        """Take one fault away, or all; whoever hangs by it is let go."""
        self._call("DELETE", "fault" if fault_id is None else f"fault/{fault_id}")

    def faults(self) -> list[dict]:
        """The faults with the counts `seen` and `applied`."""
        return self._call("GET", "fault")

    def add(self, id: str, files: dict[str, Any] | None = None, type: str = "model", **spec: Any) -> str:
        """Add (or replace) a repository, see repos.py; returns the commit of main."""
        if files is not None:
            spec["commits"] = [{"files": files}]
        return self._call("POST", "repo", {"id": id, "type": type, **spec})["sha"]

    def commit(self, repo: str, files: dict[str, Any], delete: Iterable[str] = (), branch: str = "main", type: str = "model",
               message: str = "Update") -> str:
        return self._call("POST", "commit", {"repo": repo, "type": type, "files": files, "delete": list(delete), "branch": branch,
                                             "message": message})["sha"]

    def move(self, repo: str, ref: str, sha: str, type: str = "model") -> None:
        self._call("POST", "move", {"repo": repo, "ref": ref, "sha": sha, "type": type})

    def repo(self, id: str, type: str = "model") -> dict:
        """Refs and commits, and of each file size, oid, sha256, etag."""
        return self._call("GET", f"repo?type={type}&id={id}")

    def file(self, id: str, path: str, revision: str = "main", type: str = "model") -> dict:
        """What is true of one file: size, oid, sha256, lfs, etag, and `commit`."""
        repo = self.repo(id, type)
        sha = repo["branches"].get(revision) or repo["tags"].get(revision) or revision
        return {**repo["commits"][sha]["files"][path], "commit": sha}

    def stats(self, recent: bool = True) -> dict:
        return self._call("GET", f"stats?recent={int(recent)}")

    def reset_stats(self) -> None:
        self._call("DELETE", "stats")

    def requests(self, route: str | None = None, contains: str = "") -> list[dict]:
        """The requests since the last reset, each with method, target, headers, status, bytes, route."""
        return [record for record in self.stats()["recent"] if route in (None, record["route"]) and contains in record["target"]]

    def content_bytes(self) -> int:
        """Bytes of files sent since the last reset, by both hosts (redirects and JSON not counted)."""
        return self.stats(recent=False)["content"]

    def wait_idle(self, seconds: float = 20.0) -> None:
        """Wait until no answer is under way."""
        procs.wait_until("the hub's answers", lambda: all(record["done"] for record in self.stats()["recent"]), seconds)


class Hub(HubControl):
    """A lab Hub in threads of this process.  The arguments are those of HubServer."""

    def __init__(self, *args: Any, **keys: Any) -> None:
        self.server = HubServer(*args, **keys)
        self.url, self.cdn_url = self.server.url, self.server.cdn_url

    def start(self) -> "Hub":
        self.server.start()
        return self

    def stop(self) -> None:
        self.server.stop()

    def __enter__(self) -> "Hub":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class HubProcess(HubControl):
    """A lab Hub in a process of its own: what benches and most tests want.  `options` are those of `python3 -m tests.lab.hub`.
    With `token` it knows that one only; without, any is good."""

    def __init__(self, folder: Path, options: Iterable[str] = (), token: str | None = None, ca_file: Path | None = None) -> None:
        self.folder, self.options, self.token, self.ca_file = Path(folder), list(options), token, ca_file
        self.process: subprocess.Popen | None = None
        self.pid = self.began = 0

    def _handlers(self) -> list[urllib.request.BaseHandler]:
        if self.ca_file is None:
            return []
        import ssl
        return [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self.ca_file)))]

    def start(self) -> "HubProcess":
        self.folder.mkdir(parents=True, exist_ok=True)
        log, more = self.folder / "hub.log", []
        if self.token:
            tokens = self.folder / "tokens"
            tokens.write_text(self.token + "\n")
            tokens.chmod(0o600)
            more = ["--tokens-file", str(tokens)]
        env = {**os.environ, "PYTHONPATH": str(procs.ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = procs.spawn([sys.executable, "-m", "tests.lab.hub", *more, *self.options], log, self.folder, env, stdout=subprocess.PIPE)
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], 60)[0] or not (line := self.process.stdout.readline()):
            self.process.kill()
            raise procs.LabError(f"the lab's Hub did not start, see {log}:\n{log.read_text()[-2000:]}")
        ready = json.loads(line)
        self.process.stdout.close()
        self.url, self.cdn_url, self.pid = ready["url"], ready["cdn"], self.process.pid
        self.began = procs.start_time(self.pid) or 0
        return self

    def stop(self) -> None:
        if self.pid:
            procs.end(self.pid, self.began)

    def kill(self) -> None:
        """The upstream is gone: nothing listens there any more."""
        procs.end(self.pid, self.began, signal.SIGKILL)

    def pause(self) -> None:
        """The upstream hangs (the kernel still accepts connections)."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """The same addresses again (what was added since is lost)."""
        self.stop()
        self.options += ["--port", self.url.rpartition(":")[2], "--cdn-port", self.cdn_url.rpartition(":")[2]]
        self.start()

    def __enter__(self) -> "HubProcess":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
