"""Drives `tandem mcp` with the official Python SDK, in both eras of the protocol."""

import os
import pathlib
import subprocess
import time

import anyio
import jsonschema
import pytest
from mcp import Client, MCPError, StdioServerParameters

ANSWER = "best = Some(word);"

TOOLS = {
    "complete_code": {"prefix": "let x = ", "suffix": ";\n", "language": "rust", "path": "lib.rs"},
    "edit_code": {"code": "let x = 1;", "instruction": "rename x to y", "before": "fn f() {"},
    "explain_code": {"code": "x += 1", "language": "python", "question": "why?"},
    "summarize": {"text": "a long text", "focus": "length", "length": "sentence"},
    "commit_message": {"diff": "--- a/lib.rs\n+++ b/lib.rs\n@@ -1 +1 @@\n-a\n+b", "style": "plain"},
    "ask": {"question": "why?", "context": "because", "effort": "low"},
    "status": {},
}


@pytest.fixture(params=["auto", "legacy"])
def connect(request, tandem, environment, workspace):
    """Starts a server and connects to it: `auto` finds the stateless era, `legacy` shakes hands."""

    def connect(*arguments: str) -> Client:
        server = StdioServerParameters(
            command=tandem, args=["mcp", *arguments], env=environment, cwd=workspace
        )
        client = Client(server, mode=request.param)
        client.expected_version = "2026-07-28" if request.param == "auto" else "2025-11-25"
        return client

    return connect


async def test_the_era_is_the_one_that_was_asked_for(connect):
    async with connect("--scripted-answer", ANSWER) as client:
        assert client.protocol_version == client.expected_version
        assert client.server_info.name == "tandem"
        assert client.instructions
        capabilities = client.server_capabilities
        assert capabilities.tools is not None
        assert capabilities.resources is not None
        assert capabilities.prompts is not None


async def test_every_tool_answers_as_its_schema_says(connect):
    async with connect("--scripted-answer", ANSWER) as client:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == list(TOOLS)
        for tool in tools:
            assert tool.title and tool.description
            assert tool.annotations.read_only_hint is True
            assert tool.annotations.destructive_hint is False
            arguments = TOOLS[tool.name]
            jsonschema.validate(arguments, tool.input_schema)
            # The SDK checks the result against the tool's output schema, too.
            result = await client.call_tool(tool.name, arguments)
            assert not result.is_error, (tool.name, result)
            jsonschema.validate(result.structured_content, tool.output_schema)
            if tool.name != "status":
                assert result.structured_content["text"] == result.content[0].text
                assert result.structured_content["backend"] == "scripted"
                assert result.structured_content["route_reason"] == "local-healthy"


async def test_what_is_wrong_with_a_call_is_said(connect):
    async with connect("--scripted-answer", ANSWER) as client:
        await client.list_tools()
        result = await client.call_tool("ask", {"question": 5})
        assert result.is_error
        assert "`question`" in result.content[0].text
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("shell", {})
        assert unknown.value.error.code == -32602
        # The session lives on.
        assert not (await client.call_tool("ask", {"question": "?"})).is_error


async def test_a_question_with_a_schema_is_answered_as_data_or_not_at_all(connect):
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    arguments = {"question": "How old?", "schema": schema}
    async with connect("--scripted-answer", '{"age": 5}') as client:
        result = await client.call_tool("ask", arguments)
        assert not result.is_error
        assert result.structured_content["value"] == {"age": 5}
    async with connect("--scripted-answer", '{"age": "five"}') as client:
        result = await client.call_tool("ask", arguments)
        assert result.is_error
        assert "not valid by the schema" in result.content[-1].text


async def test_progress_comes_before_the_answer(connect):
    async with connect("--scripted-answer", ANSWER, "--scripted-ms", "600") as client:
        heard = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, message))

        result = await client.call_tool("ask", {"question": "?"}, progress_callback=hear)
        assert result.content[0].text == ANSWER
        assert heard
        steps = [progress for progress, _ in heard]
        assert steps == sorted(set(steps))
        assert "model" in heard[0][1]


async def test_a_call_that_is_given_up_leaves_the_session_alive(connect):
    async with connect("--scripted-answer", ANSWER, "--scripted-ms", "20000") as client:
        with anyio.move_on_after(0.5) as scope:
            await client.call_tool("ask", {"question": "?"})
        assert scope.cancelled_caught
        # The model is free again: a second call would wait for the first otherwise.
        status = await client.call_tool("status", {})
        assert status.structured_content["backends"][0]["backend"] == "scripted"
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            contents = (await client.read_resource("tandem://decisions", cache_mode="bypass")).contents
            if "cancelled" in contents[0].text:
                return
            await anyio.sleep(0.05)
        pytest.fail("the cancelled call is not among the decisions")


async def test_resources_and_prompts(connect):
    async with connect("--scripted-answer", ANSWER) as client:
        resources = (await client.list_resources()).resources
        assert [str(resource.uri) for resource in resources] == [
            "tandem://status",
            "tandem://decisions",
        ]
        for resource in resources:
            contents = (await client.read_resource(str(resource.uri))).contents
            assert contents[0].mime_type == "application/json"
        assert (await client.list_resource_templates()).resource_templates == []
        with pytest.raises(MCPError):
            await client.read_resource("tandem://nothing")
        prompts = (await client.list_prompts()).prompts
        assert [prompt.name for prompt in prompts] == ["review", "commit_message"]
        review = await client.get_prompt("review", {"code": "fn f() {}", "focus": "names"})
        assert "fn f() {}" in review.messages[0].content.text
        with pytest.raises(MCPError) as missing:
            await client.get_prompt("commit_message", {})
        assert "`diff`" in missing.value.error.message


async def test_claude_answers_what_is_hard(connect, claude):
    async with connect() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["ask"].annotations.open_world_hint is True
        result = await client.call_tool("ask", {"question": "?", "effort": "high"})
        assert not result.is_error, result
        assert result.structured_content["backend"] == "claude"
        assert result.content[0].text


async def test_local_only_means_that(connect, claude):
    async with connect("--local-only") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["ask"].annotations.open_world_hint is False
        result = await client.call_tool("ask", {"question": "?"})
        assert result.is_error
        assert "local" in result.content[0].text


async def test_leaving_ends_the_process(connect):
    client = connect("--scripted-answer", ANSWER, "--scripted-ms", "20000")
    async with client:
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.call_tool, "ask", {"question": "?"})
            await anyio.sleep(0.3)
            calls.cancel_scope.cancel()
        left = time.monotonic()
    # The SDK closes the pipe and terminates the process after two seconds.
    assert time.monotonic() - left < 1.9


def test_a_host_that_kills_at_once_leaves_nothing_behind(tandem, environment, workspace):
    home = pathlib.Path(environment["HOME"])
    for pause in [0.0, 0.02, 0.1, 0.2]:
        server = subprocess.Popen(
            [tandem, "mcp", "--scripted-answer", ANSWER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=workspace,
        )
        time.sleep(pause)
        server.kill()
        server.communicate(timeout=10)
    left = [path for path in home.rglob("*") if path.is_file()]
    assert left == []
    assert sorted(os.listdir(workspace)) == ["lib.rs"]
