"""A model hub on the loopback interface that speaks the real one's protocol and fails on request.

Large files are redirected to a second server with another port, as the real hub redirects to its
storage: another origin, to which no token may go.
"""

import base64
import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_repo import Repo, Served, git_id, is_large, sha256

BLOCK = 64 * 1024


class HubServer:
    """Serve repositories until `close`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.log: list[Served] = []
        self.writers: set[str] = set()
        """Tokens that may make repositories and push to them."""
        self.stored: dict[str, bytes] = {}
        """Large files that were uploaded, by SHA-256."""
        self._servers = []
        for storage in (False, True):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
            server.daemon_threads = True
            server.hub = self  # type: ignore[attr-defined]
            server.storage = storage  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers.append(server)
        self.url, self.storage_url = (
            f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def add(self, name: str, folder: Path, **settings: object) -> Repo:
        """Serve the files of a folder as a repository."""
        files = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.repos[name] = Repo(name=name, files=files, **settings)  # type: ignore[arg-type]
        return self.repos[name]

    def downloads(self) -> Counter[str]:
        """How often each file was asked for from its first byte to its end."""
        return Counter(
            served.file
            for served in self.log
            if served.file and served.open_ended and served.start == 0 and served.status == 200
        )

    def sent(self, name: str) -> int:
        """Bytes of a file, of all requests together."""
        return sum(served.sent for served in self.log if served.file == name)

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._take()

    def do_PUT(self) -> None:
        self._take()

    def _take(self) -> None:
        self.body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        self.hub: HubServer = self.server.hub  # type: ignore[attr-defined]
        path = unquote(urlsplit(self.path).path)
        start, end = self._range()
        authorization = self.headers.get("Authorization", "")
        self.served = Served(
            method=self.command,
            path=path,
            file=None,
            start=start,
            open_ended=end is None,
            token=authorization.removeprefix("Bearer ") or None,
            storage=self.server.storage,  # type: ignore[attr-defined]
        )
        self.hub.log.append(self.served)
        parts = path.strip("/").split("/")
        if self.command == "PUT":
            self.hub.stored[sha256(self.body)] = self.body
            self._send(200, b"")
        elif self._writes(parts):
            self._write(parts)
        elif self.served.storage:
            repo = self.hub.repos["/".join(parts[:2])]
            self._send_file(repo, "/".join(parts[2:]), start, end)
        elif parts[:2] == ["api", "datasets"] and len(parts) > 4 and parts[4] != "revision":
            self._listing("/".join(parts[2:4]), parts[4], "/".join(parts[6:]))
        elif parts[:2] in (["api", "models"], ["api", "datasets"]):
            self._api("/".join(parts[2:4]), "/".join(parts[5:]) or "main")
        elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            self._resolve("/".join(parts[1:3]), "/".join(parts[5:]), start, end)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), "/".join(parts[4:]), start, end)
        else:
            self._fail(404, "NotFound")

    def _range(self) -> tuple[int, int | None]:
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=")
        first, _, last = asked.partition("-")
        return int(first), int(last) if last else None

    @staticmethod
    def _writes(parts: list[str]) -> bool:
        return (
            parts[:2] in (["api", "repos"], ["api", "validate-yaml"])
            or parts[-2:] == ["objects", "batch"]
            or (parts[:2] == ["api", "models"] and parts[4:5] in (["preupload"], ["commit"]))
        )

    def _write(self, parts: list[str]) -> None:
        """A step of a push, in the order in which the client takes them."""
        if self.served.token not in self.hub.writers:
            self._fail(403, None, "you don't have the rights to create a model here")
        elif parts[1] == "repos":
            asked = json.loads(self.body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            known = name in self.hub.repos
            if not known:
                self.hub.repos[name] = Repo(
                    name=name, files={}, private=asked.get("visibility") == "private"
                )
                self.hub.repos[name].token = self.served.token
            self._json({"url": f"{self.hub.url}/{name}"}, 409 if known else 200)
        elif parts[1] == "validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif parts[-1] == "batch":
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.storage_url}/{one['oid']}"}}}
                for one in json.loads(self.body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif parts[4] == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if is_large(one["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(self.body)["files"]
            ]
            self._json({"files": files})
        else:
            self._commit(self.hub.repos["/".join(parts[2:4])])

    def _commit(self, repo: Repo) -> None:
        for line in self.body.splitlines():
            step = json.loads(line)
            value = step["value"]
            if step["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif step["key"] == "lfsFile":
                repo.files[value["path"]] = self.hub.stored[value["oid"]]
        url = f"{self.hub.url}/{repo.name}/commit/{repo.commit}"
        self._json({"success": True, "commitOid": repo.commit, "commitUrl": url})

    def _json(self, answer: object, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), Content_Type="application/json")

    def _refused(self, name: str, *, content: bool) -> bool:
        """Answer what stands against the request, if anything does."""
        repo = self.hub.repos.get(name)
        known = {repo.token for repo in self.hub.repos.values() if repo.token}
        token = self.served.token
        if token is not None and known and token not in known:
            self._fail(401, None, "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and (not token or token != repo.token)):
            # the hub does not tell strangers whether a private repository exists
            self._fail(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo.forbidden:
            self._fail(403, None, "this token lacks the permission")
        elif repo.status is not None:
            self._fail(repo.status, None)
        elif content and repo.gated and (not token or token != repo.token):
            self._fail(403 if token else 401, "GatedRepo", "Access to model is restricted")
        else:
            return False
        return True

    def _api(self, name: str, revision: str) -> None:
        if self._refused(name, content=False):
            return
        repo = self.hub.repos[name]
        if repo.renamed:
            self._send(307, b"", Location=f"{self.hub.url}/api/models/{repo.renamed}")
        elif revision not in ("main", repo.commit):
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            self._send(200, json.dumps(repo.describe()).encode())

    def _listing(self, name: str, kind: str, folder: str) -> None:
        """What files and folders there are: of a data set's folder, or of paths in the request."""
        if self._refused(name, content=False):
            return
        repo = self.hub.repos[name]
        paths: set[str] = set()
        if kind == "tree":
            recursive = "recursive=true" in self.path.lower()
            prefix = f"{folder}/" if folder else ""
            below = [file.removeprefix(prefix) for file in repo.files if file.startswith(prefix)]
            paths = {prefix + (file if recursive else file.split("/")[0]) for file in below}
        else:
            form = parse_qs(self.body.decode())
            asked = form.get("paths") or json.loads(self.body)["paths"]
            paths = set([asked] if isinstance(asked, str) else asked)
        entries = []
        for path in sorted(paths):
            if path in repo.files:
                content = repo.files[path]
                entries.append(
                    {"type": "file", "path": path, "size": len(content), "oid": git_id(content)}
                )
            elif any(file.startswith(f"{path}/") for file in repo.files):
                entries.append({"type": "directory", "path": path, "oid": "0" * 40})
        if kind == "tree" and not entries:
            self._fail(404, "EntryNotFound", "no such folder")
            return
        self._send(200, json.dumps(entries).encode(), Content_Type="application/json")

    def _resolve(self, name: str, file: str, start: int, end: int | None) -> None:
        if self._refused(name, content=True):
            return
        repo = self.hub.repos[name]
        if file not in repo.files:
            self._fail(404, "EntryNotFound", "Entry not found")
        elif is_large(file):
            self._send(
                302,
                b"",
                Location=f"{self.hub.storage_url}/{name}/{file}",
                X_Repo_Commit=repo.commit,
                X_Linked_Etag=f'"{sha256(repo.files[file])}"',
                X_Linked_Size=str(len(repo.files[file])),
            )
        else:
            self._send_file(repo, file, start, end)

    def _send_file(self, repo: Repo, name: str, start: int, end: int | None) -> None:
        self.served.file = name
        content = repo.files[name]
        if name in repo.file_status:
            self._fail(repo.file_status[name], None)
            return
        if name in repo.wrong:
            content = content[:-1] + bytes([content[-1] ^ 1])
        stop = len(content) if end is None else min(end + 1, len(content))
        body, headers = content[start:stop], {}
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        limit = len(body)
        if self.served.open_ended and name in repo.cut:
            limit, repo.cut[name] = repo.cut[name], 0
            if limit == 0:
                self.close_connection = True
                return
        etag = sha256(content) if is_large(name) else git_id(content)
        self._head(
            206 if headers else 200,
            **{
                "Content-Length": str(len(body)), "ETag": f'"{etag}"', "Accept-Ranges": "bytes",
                "X-Repo-Commit": repo.commit, **headers,
            },
        )  # fmt: skip
        if self.command == "HEAD":
            return
        began = time.monotonic()
        for offset in range(0, limit, BLOCK):
            block = body[offset : min(offset + BLOCK, limit)]
            try:
                self.wfile.write(block)
            except OSError:
                break
            self.served.sent += len(block)
            if repo.rate and is_large(name) and self.served.open_ended:
                due = began + (offset + len(block)) / repo.rate
                time.sleep(max(due - time.monotonic(), 0))
        if limit < len(body):
            self.wfile.flush()
            self.close_connection = True

    def _fail(self, status: int, code: str | None, message: str = "") -> None:
        headers = {"X_Error_Code": code} if code else {}
        if message:
            headers["X_Error_Message"] = message
        self._send(status, json.dumps({"error": message}).encode(), **headers)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._head(status, **named, **{"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, **headers: str) -> None:
        self.served.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


if __name__ == "__main__":
    # a process of its own, for measurements: name and folder of a repository, bytes a second
    hub = HubServer()
    hub.add(sys.argv[1], Path(sys.argv[2]), rate=int(sys.argv[3]))
    print(hub.url, flush=True)
    threading.Event().wait()
