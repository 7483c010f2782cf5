"""The lab's Hub: answers like huggingface.co, misbehaves when told to, and counts.

Two listeners: the Hub (127.0.0.1) and the host its large files are on (127.0.0.2, "cdn").  What huggingface.co answers
is in docs and threads; the points imitated here on purpose:
  regular file   307 to a relative /api/resolve-cache/..., then 200 with ETag "git blob id"
  LFS file       302 to an absolute, signed URL at the cdn, with X-Linked-Size, X-Linked-ETag "sha256", X-Xet-Hash, Link
  names          gpt2, old names and other letter case: 307 to the name of today, for files and API alike
  refusals       401 without a code for what an anonymous caller may not see, 404 RepoNotFound with a token, GatedRepo,
                 RevisionNotFound, EntryNotFound with X-Repo-Commit, "Invalid credentials in Authorization header"

In a process of its own: `python3 -m tests.lab.hub`, see --help; it prints one line of JSON when it is ready.
Under /-/lab/ it is controlled (and HubControl in hubctl.py is the Python face of that):
  GET|DELETE stats    POST|GET|DELETE fault[/ID]    POST move {type, repo, ref, sha}    POST commit {type, repo, files, delete, branch, message}
  POST repo (a description as in repos.py)          GET repo?type=&id=
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import itertools
import json
import os
import re
import secrets
import signal
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from .demo import demo_repos
from .httpd import Answer, Faults, Listener, Request, Stats, json_answer, ranged
from .repos import BadSpec, Blob, Commit, Maker, Repo, hub_date, specs_of_dir

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
EXPOSE = ("X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,X-Total-Count,ETag,Link,Accept-Ranges,Content-Range,"
          "X-Linked-Size,X-Linked-ETag,X-Xet-Hash")
SUBROUTES = ("revision tree paths-info refs commits commit compare discussions auth-check treesize resolve raw blob settings preupload "
             "branch tag super-squash xet-read-token xet-write-token parquet croissant jwt lfs-files scan safetensors-metadata").split()
BAD_TOKEN = "Invalid credentials in Authorization header"
TEXT_SUFFIXES = (".json", ".md", ".txt", ".py", ".csv", ".jinja", ".yaml", ".gitattributes")


class Refused(Exception):
    def __init__(self, status: int, code: str | None, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.commit = status, code, message, commit


class Moved(Exception):
    """The same request under the repository's name of today."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


def default_cache() -> Path:
    """Where large made-up files are kept between runs."""
    return Path(os.environ.get("HUBGATE_LAB_CACHE") or Path(tempfile.gettempdir()) / f"hubgate-lab-{os.getuid()}" / "files")


class HubServer:
    def __init__(self, repos: list[dict] | None = None, tokens: list[str] | None = None, address: str = "127.0.0.1",
                 cdn_address: str = "127.0.0.2", port: int = 0, cdn_port: int = 0, xet: bool = True, direct_small: bool = False,
                 require_token: bool = False, tls: ssl.SSLContext | None = None, public_host: str | None = None,
                 cache: Path | None = None) -> None:
        """`tokens`: the ones it knows; without any, every token is good.  `xet`: advertise Xet as the Hub does.
        `direct_small`: small files at once, without the 307.  `public_host`: the name to use in URLs in place of the address."""
        self.maker = Maker(cache or default_cache())
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repo] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.handed_out: dict[str, Blob] = {}                   # path at the cdn -> blob
        self.tokens, self.xet, self.direct_small, self.require_token = set(tokens or []), xet, direct_small, require_token
        self.secret = secrets.token_bytes(16)
        self.serial = itertools.count(1)
        self.faults, self.stats = Faults(), Stats()
        for spec in demo_repos() if repos is None else repos:
            self.add(spec)
        self.cdn = Listener("cdn", cdn_address, cdn_port, self.cdn_app, self.faults, self.stats, tls)
        self.hub = Listener("hub", address, port, self.hub_app, self.faults, self.stats, tls, control=self.control)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://{public_host or address}:{self.hub.port}"
        self.cdn_url = self.cdn.url

    def start(self) -> "HubServer":
        self.cdn.start()
        self.hub.start()
        return self

    def stop(self) -> None:
        self.faults.clear()
        self.hub.stop()
        self.cdn.stop()

    def add(self, spec: dict) -> Repo:
        repo = Repo(spec, self.maker)
        with self.lock:
            self.repos[repo.type, repo.id] = repo
            for name in [repo.id, *repo.aliases]:
                self.names[repo.type, name.lower()] = repo.id
        return repo

    def repo(self, kind: str, name: str) -> Repo:
        """By exact name; for tests and control."""
        with self.lock:
            if (kind, name) not in self.repos:
                raise BadSpec(f"no {kind} {name}")
            return self.repos[kind, name].built()

    # --- the Hub

    def hub_app(self, request: Request) -> Answer:
        common = [("X-Powered-By", "huggingface-moon"), ("X-Request-Id", f"Root=1-{int(time.time()):08x}-{next(self.serial):024x}"),
                  ("Vary", "Origin, Accept"), ("Access-Control-Expose-Headers", EXPOSE),
                  ("Set-Cookie", "lab-session=never-pass-this-on; Path=/; HttpOnly")]
        try:
            answer = self.route(request)
        except Refused as refused:
            answer = json_answer({"error": refused.message}, refused.status, route=request.route)
            answer.set("X-Error-Code", refused.code)
            answer.set("X-Error-Message", refused.message)
            answer.set("X-Repo-Commit", refused.commit)
            if refused.status == 401:
                answer.set("WWW-Authenticate", 'Bearer realm="Authentication required", charset="UTF-8"')
        except Moved as moved:
            answer = redirect(307, moved.location, "moved")
        answer.headers = common + answer.headers
        bucket = "resolvers" if answer.route in ("resolve", "raw", "resolve-cache") else "api"
        answer.headers += [("RateLimit", f'"{bucket}";r=2999;t=172'), ("RateLimit-Policy", f'"fixed window";"{bucket}";q=3000;w=300')]
        if request.header("Authorization") is None:
            answer.headers.append(("X-HF-Warning", "unauthenticated; You are sending unauthenticated requests to the lab's Hub."))
        return answer

    def route(self, request: Request) -> Answer:
        segments = [unquote(segment) for segment in request.path.split("/")[1:]]
        user = self.who(request)
        if self.require_token and user is None and segments[:2] != ["api", "agent-harnesses"]:
            raise Refused(401, None, "Invalid username or password.")
        if segments[0] == "api":
            return self.api(request, segments[1:], user)
        kind = TYPES.get(segments[0], "model")
        rest = segments[1:] if segments[0] in TYPES else segments
        for at in (1, 2):
            if len(rest) > at and rest[at] in ("resolve", "raw"):
                request.route = rest[at]
                repo = self.find(request, kind, "/".join(rest[:at]), user)
                revision, path = split_revision(rest[at + 1:])
                return self.file(request, repo, revision, path, user, rest[at])
        raise Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def who(self, request: Request) -> str | None:
        """None: anonymous.  A token that is not known is refused, even for what is public."""
        given = request.header("Authorization")
        if given is None:
            return None
        scheme, _, token = given.partition(" ")
        if scheme.lower() == "basic":
            token = base64.b64decode(token).decode().partition(":")[2]
        if self.tokens and token not in self.tokens:
            raise Refused(401, None, BAD_TOKEN)
        return "lab"

    def find(self, request: Request, kind: str, name: str, user: str | None) -> Repo:
        with self.lock:
            today = self.names.get((kind, name.lower()))
            repo = self.repos.get((kind, today)) if today else None
        if repo is None:
            if user is None:
                raise Refused(401, None, "Invalid username or password.")
            raise Refused(404, "RepoNotFound", "Repository not found")
        if today != name:
            old, new = "/" + quote(name), "/" + quote(str(today))
            if old not in request.target:
                old = "/" + name
            raise Moved(request.target.replace(old, new, 1))
        if repo.disabled:
            raise Refused(403, None, "Access to this resource is disabled.")
        return repo.built()

    def allowed(self, repo: Repo, user: str | None) -> bool:
        return not repo.gated or (repo.granted and user is not None)

    def check_gate(self, repo: Repo, user: str | None) -> None:
        if self.allowed(repo, user):
            return
        text = f"Access to {repo.type} {repo.id} is restricted"
        if user is None:
            raise Refused(401, "GatedRepo", f"{text}. You must have access to it and be authenticated to access it. Please log in.")
        raise Refused(403, "GatedRepo", f"{text} and you are not in the authorized list. Visit {self.url}/{repo.id} to ask for access.")

    def commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.resolve(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {ascii(revision)[1:-1]}")
        return commit

    def file(self, request: Request, repo: Repo, revision: str, path: str, user: str | None, verb: str) -> Answer:
        self.check_gate(repo, user)
        commit = self.commit_of(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            raise Refused(404, "EntryNotFound", "Entry not found", commit.sha)
        name = path.rpartition("/")[2]
        headers = [("X-Repo-Commit", commit.sha), ("Accept-Ranges", "bytes"), ("Access-Control-Allow-Origin", "*"),
                   ("Content-Disposition", f"inline; filename*=UTF-8''{quote(name)}; filename=\"{ascii_name(name)}\";")]
        if verb == "raw":
            data = blob.pointer if blob.lfs else blob.read()
            whole = Blob(len(data), blob.oid, "", False, data=data)
            return ranged(request, Answer(200, headers + [("Content-Type", "text/plain; charset=utf-8"), ("ETag", f'"{blob.oid}"')],
                                          blob=whole, route="raw"))
        if not blob.lfs:
            if self.direct_small:
                return self.bytes_of(request, blob, name, headers, "resolve")
            kind = f"{repo.type}s"
            where = f"/api/resolve-cache/{kind}/{repo.id}/{commit.sha}/{quote(path)}"
            asked = quote(request.path, safe="")
            return redirect(307, f"{where}?{asked}=&etag=%22{blob.oid}%22", "resolve", headers)
        headers += [("X-Linked-Size", str(blob.size)), ("X-Linked-ETag", f'"{blob.sha256}"')]
        if self.xet:
            token = f"{self.url}/api/{repo.type}s/{repo.id}/xet-read-token/{commit.sha}"
            rebuild = f"{self.cdn_url}/v1/reconstructions/{blob.xet_hash}"
            if "application/vnd.xet-fileinfo+json" in (request.header("Accept") or ""):
                info = json_answer({"hash": blob.xet_hash, "refreshUrl": token, "reconstructionUrl": rebuild, "etag": f'"{blob.sha256}"',
                                    "size": blob.size, "fileType": "binary"}, headers=headers, route="resolve")
                info.set("Content-Type", "application/vnd.xet-fileinfo+json; charset=utf-8")
                return info
            headers += [("X-Xet-Hash", blob.xet_hash), ("Link", f'<{token}>; rel="xet-auth", <{rebuild}>; rel="xet-reconstruction-info"')]
        return redirect(302, self.signed(repo, blob, name), "resolve", headers)

    def bytes_of(self, request: Request, blob: Blob, name: str, headers: list[tuple[str, str]], route: str) -> Answer:
        kind = "text/plain; charset=utf-8" if name.endswith(TEXT_SUFFIXES) else "application/octet-stream"
        return ranged(request, Answer(200, headers + [("Content-Type", kind), ("ETag", f'"{blob.etag}"')], blob=blob, route=route))

    # --- the other host

    def signed(self, repo: Repo, blob: Blob, name: str) -> str:
        path = f"/xet-bridge-us/{hashlib.sha1(repo.id.encode()).hexdigest()[:24]}/{blob.sha256}"
        until = int(time.time()) + 3600
        with self.lock:
            self.handed_out[path] = blob
        sign = self.sign(path, until)
        shown = quote(f'inline; filename*=UTF-8\'\'{quote(name)}; filename="{ascii_name(name)}";')
        return f"{self.cdn_url}{path}?X-Lab-Expires={until}&response-content-disposition={shown}&Key-Pair-Id=LAB&X-Amz-Signature={sign}"

    def sign(self, path: str, until: int) -> str:
        return hmac.new(self.secret, f"{path}|{until}".encode(), hashlib.sha256).hexdigest()

    def cdn_app(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return xml(405, "MethodNotAllowed")
        if request.header("Authorization") is not None:          # as S3 does when a client passes its token on
            return xml(400, "InvalidArgument")
        query = dict(parse_qsl(request.query))
        until = int(query.get("X-Lab-Expires", 0))
        if not hmac.compare_digest(query.get("X-Amz-Signature", ""), self.sign(request.path, until)) or until < time.time():
            return xml(403, "AccessDenied")
        with self.lock:
            blob = self.handed_out[request.path]                # it is there: the signature is ours
        headers = [("Accept-Ranges", "bytes"), ("Content-Type", "binary/octet-stream"), ("ETag", f'"{blob.sha256}"'),
                   ("Content-Disposition", query.get("response-content-disposition", "inline")), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
                   ("Cache-Control", "public, max-age=31536000"), ("X-Cache", "Hit from cloudfront")]
        return ranged(request, Answer(200, headers, blob=blob, route="cdn"))

    # --- the API

    def api(self, request: Request, segments: list[str], user: str | None) -> Answer:
        first = segments[0] if segments else ""
        request.route = first
        if first == "resolve-cache" and len(segments) > 4 and segments[1] in TYPES:
            repo = self.find(request, TYPES[segments[1]], "/".join(segments[2:4]), user)
            self.check_gate(repo, user)
            commit = self.commit_of(repo, segments[4])
            path = "/".join(segments[5:])
            blob = commit.files.get(path)
            if blob is None or blob.lfs:
                raise Refused(404, "EntryNotFound", "Entry not found", commit.sha)
            name = path.rpartition("/")[2]
            return self.bytes_of(request, blob, name, [
                ("X-Repo-Commit", commit.sha), ("Accept-Ranges", "bytes"), ("Access-Control-Allow-Origin", "*"),
                ("Content-Disposition", f"inline; filename*=UTF-8''{quote(name)}; filename=\"{ascii_name(name)}\";")], "resolve-cache")
        if first == "whoami-v2":
            if user is None:
                raise Refused(401, None, "Invalid username or password.")
            return json_answer({"type": "user", "id": "0" * 24, "name": user, "fullname": "The lab", "email": "lab@example.org",
                                "emailVerified": True, "canPay": False, "isPro": False, "avatarUrl": "", "periodEnd": None, "orgs": [],
                                "auth": {"type": "access_token", "accessToken": {"displayName": "lab", "role": "read",
                                                                                "createdAt": "2026-01-01T00:00:00.000Z"}}}, route="whoami")
        if first == "agent-harnesses":
            return json_answer({"standardEnvVars": [], "harnesses": {}}, route="agent-harnesses")
        if first == "telemetry":
            return Answer(200, route="telemetry")
        if first in ("models-tags-by-type", "datasets-tags-by-type"):
            return json_answer({"library": [{"id": "transformers", "label": "Transformers", "type": "library"}], "license": []}, route="tags")
        if first in TYPES:
            rest = [segment for segment in segments[1:] if segment != ""] if segments[-1] == "" else segments[1:]
            if not rest:
                return self.listing(request, TYPES[first], user)
            width = 1 if len(rest) == 1 or rest[1] in SUBROUTES else 2
            sub = rest[width] if len(rest) > width else ""
            request.route = sub or "info"
            repo = self.find(request, TYPES[first], "/".join(rest[:width]), user)
            return self.repo_api(request, repo, sub, rest[width + 1:], user)
        raise Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def repo_api(self, request: Request, repo: Repo, sub: str, rest: list[str], user: str | None) -> Answer:
        query = parse_qsl(request.query, keep_blank_values=True)
        if sub in ("", "revision"):
            revision = split_revision(rest)[0] if sub else "main"
            return json_answer(self.info(repo, self.commit_of(repo, revision), query), route="revision" if sub else "info")
        if sub == "tree":
            revision, folder = split_revision(rest)
            return self.tree(request, repo, self.commit_of(repo, revision), folder.strip("/"), query, user)
        if sub == "paths-info" and request.method == "POST":
            commit = self.commit_of(repo, split_revision(rest)[0])
            if (request.header("Content-Type") or "").startswith("application/json"):
                body = json.loads(request.body or b"{}")
                paths, expand = body.get("paths", []), truth(body.get("expand", False))
            else:
                form = parse_qsl(request.body.decode())
                paths, expand = [value for key, value in form if key in ("paths", "paths[]")], truth(dict(form).get("expand", ""))
            found = [self.entry(repo, commit, path, "file" if path in commit.files else "directory", expand, user)
                     for path in paths if path in commit.files or (path in commit.dirs and path)]
            return json_answer(found, route="paths-info")
        if sub == "refs":
            def rows(kind: str, refs: dict) -> list[dict]:
                return [{"name": str(name), "ref": f"{kind}/{name}", "targetCommit": sha} for name, sha in refs.items()]
            out = {"tags": rows("refs/tags", repo.tags), "branches": rows("refs/heads", repo.branches), "converts": rows("refs/convert", repo.converts)}
            if truth(dict(query).get("include_prs", "")):
                out["pullRequests"] = rows("refs/pr", repo.prs)
            return json_answer(out, route="refs")
        if sub == "commits":
            return self.commits(request, repo, self.commit_of(repo, split_revision(rest)[0]), query)
        if sub == "discussions":
            found = [{"title": "A pull request", "num": number, "createdAt": hub_date(repo.commits[sha].date), "status": "open", "isPullRequest": True,
                      "repo": {"name": repo.id, "type": repo.type}, "author": {"name": "lab"}} for number, sha in repo.prs.items()]
            return json_answer({"discussions": found, "count": len(found), "start": 0}, route="discussions")
        if sub == "auth-check":
            self.check_gate(repo, user)
            return json_answer({}, route="auth-check")
        if sub == "treesize":
            revision, folder = split_revision(rest)
            commit, folder = self.commit_of(repo, revision), folder.strip("/")
            size = sum(blob.size for path, blob in commit.files.items() if not folder or path.startswith(folder + "/"))
            return json_answer({"path": "/" + folder, "size": size}, route="treesize")
        if sub == "xet-read-token" and self.xet:
            self.check_gate(repo, user)
            until = int(time.time()) + 900
            return json_answer({"casUrl": self.cdn_url, "exp": until, "accessToken": "lab-xet-token"}, route="xet-read-token", headers=[
                ("X-Xet-Cas-Url", self.cdn_url), ("X-Xet-Access-Token", "lab-xet-token"), ("X-Xet-Token-Expiration", str(until))])
        raise Refused(404, None, "Sorry, we can't find the page you are looking for.")

    def info(self, repo: Repo, commit: Commit, query: list[tuple[str, str]]) -> dict:
        wanted = [value for key, value in query if key in ("expand", "expand[]")]
        base = {"_id": hashlib.sha1(f"{repo.type}/{repo.id}".encode()).hexdigest()[:24], "id": repo.id}
        full: dict[str, Any] = {
            "author": repo.id.partition("/")[0], "sha": commit.sha, "lastModified": hub_date(commit.date), "private": False, "gated": repo.gated,
            "disabled": repo.disabled, "downloads": repo.downloads, "likes": 3, "cardData": repo.card, "createdAt": hub_date(repo.history(commit)[-1].date),
            "tags": repo.tags_of_card + ([f"license:{repo.card['license']}"] if "license" in repo.card else []) + ["region:us"],
            "usedStorage": sum(blob.size for blob in commit.files.values()), **repo.extra}
        if repo.type == "model":
            base["modelId"] = repo.id
            full["config"] = {}
            full.update({key: repo.card[key] for key in ("library_name", "pipeline_tag") if key in repo.card})
            full["spaces"] = []
        if repo.type == "space":
            full["sdk"] = "gradio"
        if wanted:
            full.update({"xetEnabled": True, "downloadsAllTime": repo.downloads, "trendingScore": 0})
            if "siblings" in wanted:
                full["siblings"] = [{"rfilename": path} for path in sorted(commit.files)]
            return {"_id": base["_id"], "id": repo.id, **{key: full[key] for key in wanted if key in full}}
        siblings: list[dict] = []
        detailed = truth(dict(query).get("blobs", ""))
        for path in sorted(commit.files):
            item: dict[str, Any] = {"rfilename": path}
            if detailed:
                blob = commit.files[path]
                item.update(size=blob.size, blobId=blob.oid)
                if blob.lfs:
                    item["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
                    if self.xet:
                        item["xetHash"] = blob.xet_hash
            siblings.append(item)
        return {**base, **full, "siblings": siblings}

    def entry(self, repo: Repo, commit: Commit, path: str, kind: str, expand: bool, user: str | None) -> dict:
        if kind == "directory":
            out: dict[str, Any] = {"type": "directory", "oid": commit.dirs[path], "size": 0, "path": path}
        else:
            blob = commit.files[path]
            out = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
            if blob.lfs:
                out["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
                if self.xet:
                    out["xetHash"] = blob.xet_hash if self.allowed(repo, user) else "*" * 64
            if expand:
                out["securityFileStatus"] = {"status": "safe", "jFrogScan": {"status": "unscanned"}, "avScan": {"status": "safe"},
                                             "pickleImportScan": None, "virusTotalScan": None}
        if expand:
            out["lastCommit"] = {"id": commit.sha, "title": commit.message, "date": hub_date(commit.date)}
        return out

    def tree(self, request: Request, repo: Repo, commit: Commit, folder: str, query: list[tuple[str, str]], user: str | None) -> Answer:
        ask = dict(query)
        if folder and folder not in commit.dirs:
            raise Refused(404, "EntryNotFound", f"{ascii(folder)[1:-1]} does not exist on \"{commit.sha}\"", commit.sha)
        expand = truth(ask.get("expand", ""))
        if truth(ask.get("recursive", "")):
            rows = [row for row in commit.listing() if not folder or row[0].startswith(folder + "/")]
        else:
            rows = commit.children(folder)
        limit = min(int(ask.get("limit") or (50 if expand else 1000)), 1000)
        start = 0
        if "cursor" in ask:
            start = int(base64.urlsafe_b64decode(ask["cursor"].partition(":")[0]).decode().rpartition("@")[2])
        page = [self.entry(repo, commit, path, kind, expand, user) for path, kind in rows[start:start + limit]]
        headers = []
        if start + limit < len(rows):
            cursor = base64.urlsafe_b64encode(f"{page[-1]['path'][:40]}@{start + limit}".encode()).decode() + f":{limit}"
            kept = [(key, value) for key, value in query if key not in ("cursor", "limit")]
            again = "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in [*kept, ("limit", str(limit)), ("cursor", cursor)])
            headers.append(("Link", f'<{self.url}{request.path}?{again}>; rel="next"'))
        return json_answer(page, headers=headers, route="tree")

    def commits(self, request: Request, repo: Repo, commit: Commit, query: list[tuple[str, str]]) -> Answer:
        ask, history = dict(query), repo.history(commit)
        limit, page = min(int(ask.get("limit") or 50), 1000), int(ask.get("p") or 0)
        rows = [{"id": each.sha, "title": each.message, "message": "", "authors": [{"user": "lab", "avatar": ""}], "date": hub_date(each.date)}
                for each in history[page * limit:(page + 1) * limit]]
        headers = [("X-Total-Count", str(len(history)))]
        if (page + 1) * limit < len(history):
            headers.append(("Link", f'<{self.url}{request.path}?limit={limit}&p={page + 1}>; rel="next"'))
        return json_answer(rows, headers=headers, route="commits")

    def listing(self, request: Request, kind: str, user: str | None) -> Answer:
        query = parse_qsl(request.query, keep_blank_values=True)
        ask = dict(query)
        with self.lock:
            found = [repo for (type_, _), repo in self.repos.items() if type_ == kind]
        for key, value in query:
            if key == "search":
                found = [repo for repo in found if value.lower() in repo.id.lower()]
            elif key == "author":
                found = [repo for repo in found if repo.id.partition("/")[0].lower() == value.lower()]
            elif key in ("filter", "tags"):
                found = [repo for repo in found if value in (*repo.tags_of_card, repo.card.get("library_name"), repo.card.get("pipeline_tag"))]
        found.sort(key=lambda repo: (-repo.downloads, repo.id))
        limit, start = min(int(ask.get("limit") or 1000), 1000), 0
        if "cursor" in ask:
            start = int(base64.urlsafe_b64decode(ask["cursor"]).decode())
        rows = []
        for repo in found[start:start + limit]:
            info = self.info(repo.built(), self.commit_of(repo, "main"), [pair for pair in query if pair[0].startswith("expand")])
            if not truth(ask.get("full", "")):
                info.pop("siblings", None)
            rows.append(info)
        headers = []
        if start + limit < len(found):
            cursor = base64.urlsafe_b64encode(str(start + limit).encode()).decode()
            kept = "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in query if key != "cursor")
            headers.append(("Link", f'<{self.url}{request.path}?{kept}&cursor={quote(cursor)}>; rel="next"'))
        return json_answer(rows, headers=headers, route="list")

    # --- control

    def control(self, request: Request) -> Answer:
        verb = request.path.removeprefix("/-/lab/")
        query = dict(parse_qsl(request.query))
        try:
            body = json.loads(request.body or b"{}")
            if verb == "stats" and request.method == "GET":
                return json_answer(self.stats.describe(recent=truth(query.get("recent", "1"))))
            if verb == "stats" and request.method == "DELETE":
                self.stats.reset()
                return json_answer({})
            if verb == "fault" and request.method == "POST":
                return json_answer({"id": self.faults.add(**body).id})
            if verb == "fault" and request.method == "GET":
                return json_answer(self.faults.describe())
            if verb.partition("/")[0] == "fault" and request.method == "DELETE":
                number = verb.partition("/")[2]
                self.faults.clear(int(number) if number else None)
                return json_answer({})
            if verb == "move" and request.method == "POST":
                self.repo(body.get("type", "model"), body["repo"]).move(body.get("ref", "main"), body["sha"])
                return json_answer({})
            if verb == "commit" and request.method == "POST":
                sha = self.repo(body.get("type", "model"), body["repo"]).commit(
                    body.get("files", {}), body.get("delete", []), body.get("branch", "main"), body.get("message", "Update"))
                return json_answer({"sha": sha})
            if verb == "repo" and request.method == "POST":
                repo = self.add(body).built()
                return json_answer({"sha": repo.tip("main"), "commits": list(repo.commits)})
            if verb == "repo" and request.method == "GET":
                return json_answer(describe(self.repo(query.get("type", "model"), query["id"])))
        except (BadSpec, ValueError, KeyError, TypeError, re.error, OSError) as error:
            return json_answer({"error": f"{type(error).__name__}: {error}"}, 400)
        return json_answer({"error": f"no {request.method} {request.path}"}, 404)


def describe(repo: Repo) -> dict:
    """What a test wants to know about a repository: refs, and for each commit the files with their digests."""
    return {"id": repo.id, "type": repo.type, "branches": repo.branches, "tags": repo.tags, "converts": repo.converts,
            "prs": {str(number): sha for number, sha in repo.prs.items()},
            "commits": {sha: {"parent": commit.parent, "tree": commit.tree, "message": commit.message, "files": {
                path: {"size": blob.size, "oid": blob.oid, "sha256": blob.sha256, "lfs": blob.lfs, "etag": blob.etag, "path": blob.path}
                for path, blob in commit.files.items()}} for sha, commit in repo.commits.items()}}


def redirect(status: int, location: str, route: str, headers: list[tuple[str, str]] | None = None) -> Answer:
    reason = "Temporary Redirect" if status == 307 else "Found"
    return Answer(status, [*(headers or []), ("Location", location), ("Content-Type", "text/plain; charset=utf-8")],
                  f"{reason}. Redirecting to {location}".encode(), route=route)


def xml(status: int, code: str) -> Answer:
    return Answer(status, [("Content-Type", "application/xml")], f"<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>".encode(), route="cdn")


def split_revision(segments: list[str]) -> tuple[str, str]:
    """(revision, path): refs/pr/N and refs/convert/x are three segments when they come unquoted."""
    if len(segments) >= 3 and segments[0] == "refs" and segments[1] in ("pr", "convert"):
        return "/".join(segments[:3]), "/".join(segments[3:])
    return (segments[0] if segments else "main"), "/".join(segments[1:])


def truth(value: object) -> bool:
    return str(value).lower() in ("true", "1")


def ascii_name(name: str) -> str:
    return "".join(char if " " <= char < "\x7f" and char not in '"\\' else "_" for char in name)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.lab.hub", description="the lab's Hub; prints one line of JSON when it is ready")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cdn-port", type=int, default=0)
    parser.add_argument("--repos", action="append", default=[], metavar="DIR", help="also DIR/{models,datasets,spaces}/NAMESPACE/NAME")
    parser.add_argument("--spec", action="append", default=[], metavar="FILE", help="also the descriptions (a JSON array) in FILE")
    parser.add_argument("--no-demo", action="store_true", help="without the demo repositories")
    parser.add_argument("--tokens-file", metavar="FILE", help="the tokens it knows, one a line (default: any token is good)")
    parser.add_argument("--require-token", action="store_true", help="nothing without a token")
    parser.add_argument("--no-xet", action="store_true", help="do not advertise Xet")
    parser.add_argument("--direct-small", action="store_true", help="small files without the 307")
    parser.add_argument("--cert", metavar="FILE", help="TLS: certificate chain")
    parser.add_argument("--key", metavar="FILE")
    parser.add_argument("--name", help="host name to use in URLs")
    options = parser.parse_args()
    threading.stack_size(512 << 10)
    repos = [] if options.no_demo else demo_repos()
    for folder in options.repos:
        repos += specs_of_dir(Path(folder))
    for file in options.spec:
        repos += json.loads(Path(file).read_text())
    tls = None
    if options.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.cert, options.key)
    tokens = Path(options.tokens_file).read_text().split() if options.tokens_file else None
    server = HubServer(repos, tokens, port=options.port, cdn_port=options.cdn_port, xet=not options.no_xet, tls=tls, public_host=options.name,
                       direct_small=options.direct_small, require_token=options.require_token).start()
    print(json.dumps({"url": server.url, "cdn": server.cdn_url, "pid": os.getpid()}), flush=True)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    server.stop()
    sys.stdout.close()


if __name__ == "__main__":
    main()
