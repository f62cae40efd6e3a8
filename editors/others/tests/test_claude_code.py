"""Claude Code, as an MCP host: added by the recipe, and a tool of ours called in a session of its own."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import Person, recipe

# Far beyond what it takes, so that a hang fails and a slow machine does not.
LIMIT_SECONDS = 120

TOOL = "mcp__tandem__complete_code"
TOOL_INPUT = {"prefix": "x = ", "language": "python"}


class Model(BaseHTTPRequestHandler):
    """Stands in for Claude: calls our tool once, and then has nothing to say."""

    server: "Server"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        has_tool = any(tool["name"] == TOOL for tool in asked.get("tools", []))
        if has_tool and not tool_results(asked):
            block = {"type": "tool_use", "id": "toolu_1", "name": TOOL, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(TOOL_INPUT)}
            reason = "tool_use"
        else:
            block = {"type": "text", "text": ""}
            delta = {"type": "text_delta", "text": "So be it."}
            reason = "end_turn"
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": asked.get("model"), "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        }
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in (
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
            {"type": "message_stop"},
        ):
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Model)
        self.asked: list[dict[str, Any]] = []


def tool_results(asked: dict[str, Any]) -> list[dict[str, Any]]:
    """What tools answered, of all messages of a request."""
    return [
        block
        for message in asked["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
        if block["type"] == "tool_result"
    ]


@pytest.fixture
def model() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def claude(person: Person, model: Server):
    """Runs a shell's lines in the project and returns what they print."""
    host, port = model.server_address[:2]
    environment = {
        **person.environment,
        "ANTHROPIC_API_KEY": "sk-ant-none",
        "ANTHROPIC_BASE_URL": f"http://{host}:{port}",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }

    def run(lines: str) -> str:
        said = subprocess.run(
            ["/bin/sh", "-ec", lines],
            cwd=person.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    return run


def test_it_is_added_and_connects(claude) -> None:
    said = claude(recipe("Claude Code", "sh"))
    assert "tandem: tandem mcp - ✔ Connected" in said


def test_a_session_sees_the_tools_and_calls_one(claude, model: Server) -> None:
    claude(recipe("Claude Code", "sh"))
    said = claude(f"claude -p 'Complete it.' --allowedTools {TOOL} --output-format stream-json --verbose")
    started = json.loads(said.splitlines()[0])
    assert started["mcp_servers"] == [{"name": "tandem", "status": "connected"}]
    ours = {tool.removeprefix("mcp__tandem__") for tool in started["tools"] if tool.startswith("mcp__tandem__")}
    assert {"complete_code", "edit_code", "explain_code", "summarize", "commit_message", "ask", "status"} <= ours
    [result] = [result for asked in model.asked for result in tool_results(asked)]
    assert not result.get("is_error"), result
    assert "alpha(beta)" in json.dumps(result["content"])
