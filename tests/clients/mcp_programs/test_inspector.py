"""Drives `tandem mcp` with the command line of the MCP Inspector."""

import json
import subprocess

import pytest

LIMIT_SECONDS = 60
ANSWER = "best = Some(word);"


@pytest.fixture
def inspect(tandem, node, node_programs, environment, workspace):
    """Asks for one method, with the Inspector's own arguments; gives what it printed as JSON."""

    def inspect(method: str, *arguments: str) -> dict:
        # It hands little of its own environment on.
        server = [tandem, "mcp", "--no-daemon", "--scripted-answer", ANSWER]
        ran = subprocess.run(
            [node, node_programs / "mcp-inspector", "--cli", *server, "--method", method, *arguments],
            env=environment, cwd=workspace, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=LIMIT_SECONDS,
        )
        result, _ = json.JSONDecoder().raw_decode(ran.stdout.lstrip())
        return result

    return inspect


def test_tools_are_listed_and_called(inspect):
    names = [tool["name"] for tool in inspect("tools/list")["tools"]]
    assert names == [
        "complete_code", "edit_code", "explain_code", "summarize", "commit_message", "ask", "status",
    ]
    result = inspect("tools/call", "--tool-name", "ask", "--tool-arg", "question=why?")
    assert result["isError"] is False
    assert result["content"] == [{"type": "text", "text": ANSWER}]
    assert result["structuredContent"]["backend"] == "scripted"
    wrong = inspect("tools/call", "--tool-name", "ask")
    assert wrong["isError"] is True
    assert "`question`" in wrong["content"][0]["text"]


def test_resources_and_prompts_are_read(inspect):
    uris = [resource["uri"] for resource in inspect("resources/list")["resources"]]
    assert uris == ["tandem://status", "tandem://decisions"]
    (contents,) = inspect("resources/read", "--uri", "tandem://status")["contents"]
    assert json.loads(contents["text"])["backends"][0]["backend"] == "scripted"
    assert [prompt["name"] for prompt in inspect("prompts/list")["prompts"]] == ["review", "commit_message"]
    prompt = inspect("prompts/get", "--prompt-name", "commit_message", "--prompt-args", "diff=+x")
    assert "+x" in prompt["messages"][0]["content"]["text"]
