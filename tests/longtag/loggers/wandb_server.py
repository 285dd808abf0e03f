"""A stand-in for W&B's server on 127.0.0.1, as far as runs need one: it answers, and keeps what it is sent by run."""

import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = {"id": "entity", "name": "someone"}


@dataclass
class ReceivedRun:
    """One run as the server has it.

    attributes: group, tags and the like, as the run was last described.
    lines: of each streamed file, at the places that they were sent for.
    files: those that were uploaded whole.
    exit_codes: one for each start that has ended.
    """

    attributes: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.lines.get("wandb-history.jsonl", [])

    @property
    def summary(self) -> dict[str, Any]:
        return self.lines.get("wandb-summary.json", [{}])[0]

    @property
    def config(self) -> dict[str, Any]:
        return {name: entry["value"] for name, entry in json.loads(self.attributes["config"]).items()}

    def receive(self, file: str, offset: int, content: list[str]) -> None:
        if file == "output.log":  # what the run printed, not in JSON
            return
        lines = self.lines.setdefault(file, [])
        lines[offset : offset + len(content)] = [json.loads(line) for line in content]


class WandbServer(ThreadingHTTPServer):
    """Listens on a free port.

    runs: what has arrived, by the id of the run.
    unknown: requests that it has no answer to.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.runs: dict[str, ReceivedRun] = {}
        self.unknown: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data that GraphQL gives back for an operation."""
        answers = {
            "Viewer": self._viewer,
            "ServerFeaturesQuery": self._features,
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert_run,
            "CreateRunFiles": self._upload_urls,
            "CreateArtifact": self._known_artifact,
            "ArtifactType": lambda _: {"project": {"artifact": None}},
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": {"organization": None}},
        }
        if operation not in answers:
            self.unknown.append(operation)
            return {}
        return answers[operation](variables)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that ends leaves connections open, which is no error; any other shows as an unknown request."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            self.unknown.append(repr(error))

    def _viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "user", "entity": ENTITY["name"], "username": ENTITY["name"], "teams": {"edges": []}}}

    def _features(self, variables: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        model = {"id": "project", "name": variables["project"], "entity": ENTITY, "bucket": None}
        if run is not None:
            model["bucket"] = {
                "id": f"storage-{variables['name']}",
                "name": variables["name"],
                "displayName": run.attributes.get("displayName", variables["name"]),
                "config": run.attributes.get("config", "{}"),
                "tags": run.attributes.get("tags", []),
                "summaryMetrics": json.dumps(run.summary),
                "historyLineCount": len(run.history),
                "historyTail": _tail(run.history),
                "eventsLineCount": len(run.lines.get("wandb-events.jsonl", [])),
                "eventsTail": _tail(run.lines.get("wandb-events.jsonl", [])),
                "logLineCount": 0,
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": model}

    def _upsert_run(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables.get("name") or variables["id"].removeprefix("storage-")
        inserted = name not in self.runs
        run = self.runs.setdefault(name, ReceivedRun())
        run.attributes |= {key: value for key, value in variables.items() if value is not None}
        bucket = {
            "id": f"storage-{name}",
            "name": name,
            "displayName": run.attributes.get("displayName", name),
            "config": run.attributes.get("config", "{}"),
            "sweepName": run.attributes.get("sweep"),
            "project": {"id": "project", "name": run.attributes.get("project", ""), "entity": ENTITY},
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _upload_urls(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["run"]
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{run}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"storage-{run}", "uploadHeaders": [], "files": files}}

    def _known_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        """As if its content had arrived before: tables are files of their run as well, and kept as those."""
        artifact = {"id": "artifact", "state": "COMMITTED", "artifactSequence": {"id": "sequence"}}
        return {"createArtifact": {"artifact": artifact}}


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def do_POST(self) -> None:
        content = self._body()
        if self.path.startswith("/sdk/otel"):  # how wandb itself fares
            self._reply({})
            return
        body = json.loads(content)
        if self.path == "/graphql":
            found = re.search(r"(?:query|mutation) (\w+)", body["query"])
            self._reply({"data": self.server.answer(found[1] if found else "", body.get("variables") or {})})
        elif streamed := re.fullmatch(r"/files/\w+/[\w-]+/(\w+)/file_stream", self.path):
            run = self.server.runs[streamed[1]]
            for name, part in (body.get("files") or {}).items():
                run.receive(name, part["offset"], part["content"])
            if body.get("complete"):
                run.exit_codes.append(body["exitcode"])
            self._reply({})
        else:
            self.server.unknown.append(self.path)
            self.send_error(404)

    def do_PUT(self) -> None:
        _, _, run, name = self.path.split("/", 3)
        self.server.runs[run].files[name] = self._body()
        self._reply({})

    def do_GET(self) -> None:
        self.server.unknown.append(self.path)
        self.send_error(404)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on stderr."""


@contextlib.contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server that answers until the context is left."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _tail(lines: list[Any]) -> str:
    """The last line of a file in the form that a resumed run reads."""
    return json.dumps([json.dumps(line) for line in lines[-1:]])
