"""Two editors and an MCP host, each a client that others wrote, on one loaded model: pytest-lsp,
Microsoft's node library and the official MCP SDK."""

import asyncio
import json
import pathlib
import subprocess
import tempfile
import time

import pytest
from lsprotocol import types as lsp
from mcp import Client, StdioServerParameters
from pytest_lsp import make_test_lsp_client

LIMIT_SECONDS = 30
NODE_EDITOR = pathlib.Path(__file__).parent / "editor" / "client.mjs"
PREFIX = "def total(items):\n    result = 0\n    for item in items:\n        result += "
LINE, COLUMN = 3, 18


def within(awaitable):
    return asyncio.wait_for(awaitable, LIMIT_SECONDS)


@pytest.fixture
def shared(tandem, environment):
    """An environment in which sessions share a daemon, which is ended here."""
    del environment["TANDEM_DAEMON_ENABLED"]
    # A socket's path must be short, and pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="tandem-") as runtime:
        environment["XDG_RUNTIME_DIR"] = runtime
        yield environment
        stopped = command(tandem, environment, "stop")
        assert stopped.returncode == 0, stopped.stderr
        left = sorted(path.name for path in pathlib.Path(runtime, "tandem").iterdir())
        assert left == ["daemon.lock", "start.lock"]


def command(tandem, environment, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [tandem, "daemon", *arguments], env=environment, capture_output=True, text=True,
        timeout=LIMIT_SECONDS,
    )


def daemon(tandem, environment) -> dict:
    said = command(tandem, environment, "status", "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)["daemon"]


async def python_editor(tandem, environment, file: pathlib.Path):
    """An editor that has a file open; gives it and what completes its end."""
    client = make_test_lsp_client()
    await client.start_io(tandem, "lsp", env=environment)
    capabilities = lsp.ClientCapabilities(
        text_document=lsp.TextDocumentClientCapabilities(
            inline_completion=lsp.InlineCompletionClientCapabilities()
        )
    )
    await within(client.initialize_session(lsp.InitializeParams(capabilities=capabilities)))
    uri = file.as_uri()
    client.text_document_did_open(
        lsp.DidOpenTextDocumentParams(lsp.TextDocumentItem(uri, "python", 1, file.read_text()))
    )
    params = lsp.InlineCompletionParams(
        lsp.InlineCompletionContext(lsp.InlineCompletionTriggerKind.Invoked),
        lsp.TextDocumentIdentifier(uri),
        lsp.Position(LINE, COLUMN),
    )
    result = await within(client.text_document_inline_completion_async(params))
    return client, [item.insert_text for item in getattr(result, "items", result)]


async def test_two_editors_and_a_host_complete_from_one_loaded_model(tandem, shared, workspace):
    file = workspace / "sums.py"
    file.write_text(PREFIX)
    node = await asyncio.create_subprocess_exec(
        "node", str(NODE_EDITOR), tandem, str(file), str(LINE), str(COLUMN),
        env=shared, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )
    (editor, in_python), said = await asyncio.gather(
        python_editor(tandem, shared, file), within(node.stdout.readline())
    )
    in_node = json.loads(said)
    server = StdioServerParameters(command=tandem, args=["mcp"], env=shared, cwd=workspace)
    async with Client(server) as host:
        arguments = {"prefix": PREFIX, "language": "python", "path": str(file)}
        result = await within(host.call_tool("complete_code", arguments))
        in_host = result.structured_content
        assert not result.is_error, result

        status = daemon(tandem, shared)
        assert sorted(session["name"] for session in status["sessions"]) == ["lsp", "lsp", "mcp"]
        assert len({session["pid"] for session in status["sessions"]}) == 3
        (model,) = status["models"]
        assert model["statistics"]["loads"] == 1
        assert model["sessions"] == 3
        assert model["health"]["state"] == "healthy"
        assert all(session["requests"] >= 1 for session in status["sessions"])
    # The same model continues the same text by the likeliest tokens, whoever asks.
    assert in_python and in_python == in_node
    assert in_python[0].startswith("        result += ")
    assert in_host["backend"] == "embedded"

    # One of them is killed, the daemon is killed: the other editor is served on.
    node.kill()
    await node.wait()
    subprocess.run(["kill", "-9", str(status["pid"])], check=True)
    # What was suggested for the same text would be answered without a daemon.
    editor.text_document_did_change(
        lsp.DidChangeTextDocumentParams(
            lsp.VersionedTextDocumentIdentifier(2, file.as_uri()),
            [lsp.TextDocumentContentChangeWholeDocument(PREFIX.replace("= 0", "= 1"))],
        )
    )
    params = lsp.InlineCompletionParams(
        lsp.InlineCompletionContext(lsp.InlineCompletionTriggerKind.Invoked),
        lsp.TextDocumentIdentifier(file.as_uri()),
        lsp.Position(LINE, COLUMN),
    )
    result = await within(editor.text_document_inline_completion_async(params))
    again = [item.insert_text for item in getattr(result, "items", result)]
    assert again and again[0].startswith("        result += ")
    assert daemon(tandem, shared)["pid"] != status["pid"]
    await within(editor.shutdown_session())


async def test_a_host_that_starts_three_processes_and_kills_one_is_served(tandem, shared):
    """As Claude Desktop starts a server: several processes at once, in no project's folder, of which it
    soon kills the first."""
    first = await asyncio.create_subprocess_exec(
        tandem, "mcp", env=shared, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    hello = {
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "claude-ai", "version": "0.1.0"},
        },
    }
    arguments = {"prefix": PREFIX, "language": "python"}
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "complete_code", "arguments": arguments},
    }
    # The daemon that it starts must outlive it, or be started again.
    first.stdin.write(b"".join(json.dumps(line).encode() + b"\n" for line in (hello, call)))
    server = StdioServerParameters(command=tandem, args=["mcp"], env=shared, cwd="/")
    async with Client(server, mode="legacy") as second, Client(server, mode="legacy") as third:
        first.kill()
        await first.wait()
        results = await within(
            asyncio.gather(*(host.call_tool("complete_code", arguments) for host in (second, third)))
        )
        texts = [result.content[0].text for result in results]
        assert not any(result.is_error for result in results), results
        assert texts[0] and texts[0] == texts[1]
        for host in (second, third):
            assert len((await within(host.list_tools())).tools) == 7
            assert len((await within(host.list_resources())).resources) == 2
            assert len((await within(host.list_prompts())).prompts) == 2
        # The daemon soon sees that one of three has left.
        deadline = time.monotonic() + LIMIT_SECONDS
        while (sessions := daemon(tandem, shared)["models"][0]["sessions"]) != 2:
            assert time.monotonic() < deadline, sessions
            await asyncio.sleep(0.05)
