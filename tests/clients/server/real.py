"""Drives tandem over a real llama.cpp server; `run` beside this file starts it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

TANDEM = os.environ["TANDEM_BIN"]
KEY = "tk-real-7c1d"
DOCUMENT = '''def area(width, height):
    """The area of a rectangle."""
    return width * height


def volume(width, height, depth):
    """The volume of a box."""
    return width * height * 
'''
LINE, COLUMN = 8, 29
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["bug", "feature", "question"]},
        "summary": {"type": "string", "maxLength": 20},
    },
    "required": ["kind", "summary"],
    "additionalProperties": False,
}

passed = failed = 0


def check(name, good, seen=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
    print(f"{'ok  ' if good else 'FAIL'} {name}{f': {seen}' if seen else ''}", flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def llama_server(model):
    port = free_port()
    own = os.environ.get("LLAMA_SERVER")
    if own:
        command = [own, "-m", model, "--port", str(port), "--api-key", KEY, "-c", "1024", "-t", "1"]
    else:
        command = [sys.executable, str(Path(__file__).with_name("serve.py")), model, str(port), KEY]
    log = tempfile.TemporaryFile()
    server = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if server.poll() is not None:
                break
            with contextlib.suppress(OSError):
                request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {KEY}"})
                with urllib.request.urlopen(request, timeout=5) as answer:
                    json.load(answer)
                yield url
                return
            time.sleep(0.2)
        log.seek(0)
        sys.exit(f"NOT TRIED: the server does not serve. It said:\n{log.read().decode(errors='replace')[-2000:]}")
    finally:
        server.kill()
        server.wait()
        log.close()


def environment(home, url, **settings):
    base = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TANDEM_DAEMON_ENABLED": "false",
        "TANDEM_SERVER_BASE_URL": url,
        "TANDEM_SERVER_API_KEY": KEY,
        # A busy machine is no failure here.
        "TANDEM_SERVER_FIRST_BYTE_TIMEOUT": "2m",
        "TANDEM_SERVER_IDLE_TIMEOUT": "2m",
        "TANDEM_COMPLETION_MAX_TOKENS": "16",
    }
    return base | {f"TANDEM_SERVER_{name.upper()}": value for name, value in settings.items()}


def tandem(home, variables, *args):
    ran = subprocess.run(
        [TANDEM, *args], env=variables, cwd=home, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    if KEY in ran.stdout + ran.stderr:
        check("the key is not shown", False, " ".join(args))
    return ran


class Session:
    """A language client of the fewest words."""

    def __init__(self, home, variables):
        self.process = subprocess.Popen(
            [TANDEM, "lsp"], env=variables, cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.replies, self.last, self.arrived = {}, 0, threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            length = 0
            while (line := self.process.stdout.readline().strip()):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if not length:
                return
            message = json.loads(self.process.stdout.read(length))
            if "method" in message and "id" in message:
                self.send({"id": message["id"], "result": None})
            elif "id" in message:
                with self.arrived:
                    self.replies[message["id"]] = message
                    self.arrived.notify_all()

    def send(self, message):
        body = json.dumps({"jsonrpc": "2.0"} | message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def notify(self, method, params):
        self.send({"method": method, "params": params})

    def request(self, method, params=None):
        self.last += 1
        self.send({"id": self.last, "method": method} | ({} if params is None else {"params": params}))
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.last in self.replies, timeout=180):
                sys.exit(f"{method} has no answer")
            return self.replies[self.last]


def lsp(home, url):
    uri = (home / "box.py").as_uri()
    session = Session(home, environment(home, url))
    capabilities = {"textDocument": {"inlineCompletion": {}}}
    session.request("initialize", {"processId": None, "rootUri": home.as_uri(), "capabilities": capabilities})
    session.notify("initialized", {})
    opened = {"uri": uri, "languageId": "python", "version": 1, "text": DOCUMENT}
    session.notify("textDocument/didOpen", {"textDocument": opened})
    place = {"textDocument": {"uri": uri}, "position": {"line": LINE - 1, "character": COLUMN - 1}}
    reply = session.request("textDocument/inlineCompletion", place | {"context": {"triggerKind": 1}})
    items = (reply.get("result") or {}).get("items", [])
    check("LSP: an inline completion", bool(items), items[0]["insertText"] if items else reply)
    status = session.request("tandem/status")["result"]
    check("LSP: it came from the server", (status["backend"], status["reason"]) == ("server", "server-configured"), status["model"])
    health = status["backends"][0]["health"]["state"]
    check("LSP: the server is healthy, having generated", health == "healthy", health)
    session.request("shutdown")
    session.notify("exit", None)
    check("LSP: the session ends", session.process.wait(30) == 0)


def main():
    model = sys.argv[1]
    with llama_server(model) as url, tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        (home / "box.py").write_text(DOCUMENT)
        variables = environment(home, url)
        report = json.loads(tandem(home, variables, "doctor", "--json", "--no-embedded").stdout)
        row = next(row for row in report["rows"] if row["backend"] == "server")
        outcomes = {check["step"]: check["outcome"] for check in row["checks"]}
        check("doctor: it generates", outcomes.get("generation") == "passed", row["checks"])
        for api, form in [("auto", "its own frame"), ("completions", "its own frame"), ("infill", "/infill")]:
            ran = tandem(home, environment(home, url, api=api), "complete", f"box.py:{LINE}:{COLUMN}", "--json")
            answer = json.loads(ran.stdout) if ran.stdout else {}
            # By another order than it learnt, the model may well have nothing to say.
            silent = api == "infill" and ran.returncode == 3
            good = silent or (answer.get("backend"), answer.get("reason")) == ("server", "server-configured")
            check(f"complete by {form} ({api})", good, answer.get("completion", ran.stderr.strip()))
        again = json.loads(tandem(home, variables, "complete", f"box.py:{LINE}:{COLUMN}", "--json").stdout)
        tokens = again["tokens"] or {}
        # An answer that has enough is stopped before the server has told what the prompt came to.
        check("the answer's tokens are counted", tokens.get("completion", 0) > 0, tokens)
        local = json.loads(tandem(home, variables, "--local-only", "complete", f"box.py:{LINE}:{COLUMN}", "--json").stdout)
        check("local-only keeps it here", local["backend"] == "embedded", local["completion"])
        (home / "schema.json").write_text(json.dumps(SCHEMA))
        ran = tandem(home, variables, "ask", "--schema", "schema.json", "--max-tokens", "200", "What is this issue about?")
        value = json.loads(ran.stdout) if ran.stdout else {}
        held = value.get("kind") in SCHEMA["properties"]["kind"]["enum"] and list(value) == ["kind", "summary"]
        check("ask: an answer by a schema, of a model that cannot chat", held, ran.stdout.strip() or ran.stderr.strip())
        # Not in llama.cpp's dialect, and this model does not write JSON by itself.
        (home / "tuple.json").write_text(json.dumps({"type": "array", "prefixItems": [{"const": 1}], "items": False}))
        ran = tandem(home, variables, "ask", "--schema", "tuple.json", "--max-tokens", "20", "Which?")
        check("ask: a schema that the server turns away is asked for in words", "not JSON" in ran.stderr, ran.stderr.strip())
        refused = tandem(home, variables | {"TANDEM_SERVER_API_KEY": "wrong"}, "complete", f"box.py:{LINE}:{COLUMN}", "--json")
        note = "does not accept the key" in refused.stderr
        check("a wrong key: somebody else answers, and it is said", note and "embedded" in refused.stdout, refused.stderr.strip())
        lsp(home, url)
    nobody = f"http://127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        (home / "box.py").write_text(DOCUMENT)
        ran = tandem(home, environment(home, nobody), "complete", f"box.py:{LINE}:{COLUMN}", "--json")
        check("nobody there: somebody else answers, and it is said", "cannot be reached" in ran.stderr, ran.stderr.strip())
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
