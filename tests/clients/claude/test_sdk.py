"""The official Python SDK accepts the server that stands in for Claude: what our client is tested
against is what the SDK, too, takes for the Messages API."""

import json
import os
import re
import subprocess

import anthropic
import pytest

# The models of Tandem's defaults.
FAST, STRONG = "claude-haiku-5-5", "claude-opus-5-5"
TEXT = "Hello from the stand-in for Claude."


@pytest.fixture(scope="module")
def address():
    server = subprocess.Popen(
        [os.environ["CLAUDE_STAND_IN"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    try:
        yield re.search(r"http://\S+", server.stdout.readline()).group()
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def client(address):
    with anthropic.Anthropic(
        base_url=address, api_key="sk-ant-stand-in", max_retries=0, timeout=10
    ) as client:
        yield client


def ask(text, **more):
    return {
        "model": FAST,
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
    } | more


def test_a_whole_message(client):
    message = client.messages.create(**ask("Hi", system="Be brief."))
    assert message.content[0].text == TEXT
    assert (message.role, message.stop_reason, message.model) == ("assistant", "end_turn", FAST)
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0
    assert message._request_id.startswith("req_")


def test_raw_events(client):
    events = list(client.messages.create(**ask("Hi", stream=True)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    deltas = [event.delta.text for event in events if event.type == "content_block_delta"]
    assert len(deltas) > 1 and "".join(deltas) == TEXT


def test_the_stream_helper(client):
    with client.messages.stream(**ask("Hi")) as stream:
        assert "".join(stream.text_stream) == TEXT
        message = stream.get_final_message()
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 1


def test_thinking_comes_in_a_block_of_its_own(client):
    request = ask(
        "[stand-in: thinking]",
        model=STRONG,
        thinking={"type": "adaptive", "display": "summarized"},
        output_config={"effort": "low"},
    )
    with client.messages.stream(**request) as stream:
        message = stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "Let me see."
    assert message.content[0].signature


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name"],
    "additionalProperties": False,
}


def test_an_answer_is_held_to_a_schema(client):
    output = {"format": {"type": "json_schema", "schema": PERSON}}
    message = client.messages.create(**ask("Who?", output_config=output))
    assert json.loads(message.content[0].text) == {"name": "text", "tags": ["text"]}


@pytest.mark.parametrize(
    ("name", "reason"), [("refusal", "refusal"), ("max-tokens", "max_tokens")]
)
def test_stop_reasons(client, name, reason):
    with client.messages.stream(**ask(f"[stand-in: {name}]")) as stream:
        assert stream.get_final_message().stop_reason == reason


def test_the_cache_is_written_then_read(client):
    system = [
        {"type": "text", "text": "Be brief. " * 400, "cache_control": {"type": "ephemeral"}}
    ]
    first = client.messages.create(**ask("One", system=system)).usage
    assert first.cache_creation_input_tokens == 1000
    assert first.cache_read_input_tokens == 0
    second = client.messages.create(**ask("Two", system=system)).usage
    assert second.cache_read_input_tokens == 1000
    assert second.cache_creation_input_tokens == 0


@pytest.mark.parametrize(
    ("name", "error", "kind"),
    [
        ("rate-limited", anthropic.RateLimitError, "rate_limit_error"),
        ("overloaded", anthropic.InternalServerError, "overloaded_error"),
        ("failing", anthropic.InternalServerError, "api_error"),
    ],
)
def test_errors_have_the_documented_shape(client, name, error, kind):
    with pytest.raises(error) as caught:
        client.messages.create(**ask(f"[stand-in: {name}]"))
    body = caught.value.body
    assert body["type"] == "error" and body["error"]["type"] == kind
    assert body["request_id"] == caught.value.request_id
    if name == "rate-limited":
        assert caught.value.response.headers["retry-after"] == "1"


def test_the_sdk_retries_what_may_pass(client):
    request = ask("[stand-in: overloaded-once] and then well")
    assert client.with_options(max_retries=1).messages.create(**request).content[0].text == TEXT


def test_a_wrong_key(client):
    with pytest.raises(anthropic.AuthenticationError) as caught:
        client.with_options(api_key="sk-ant-wrong").messages.create(**ask("Hi"))
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_an_error_within_the_stream(client):
    text = ""
    with pytest.raises(anthropic.APIStatusError) as caught:
        with client.messages.stream(**ask("[stand-in: error-in-stream]")) as stream:
            for piece in stream.text_stream:
                text += piece
    assert text == TEXT
    assert caught.value.body["error"]["type"] == "overloaded_error"


def test_a_stream_that_is_cut_off_raises(client):
    with pytest.raises(Exception) as caught:
        with client.messages.stream(**ask("[stand-in: cut-off]")) as stream:
            stream.until_done()
    assert "closed" in str(caught.value) or "incomplete" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"model": "claude-nobody"},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": " "}]},
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Well,"},
            ]
        },
        {"stop_sequences": ["\n"]},
        {"model": STRONG, "thinking": {"type": "disabled"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "string", "maxLength": 5}}}},
        {"extra_body": {"temperature": 0}},
        {"extra_body": {"prefix": "x"}},
        {"extra_headers": {"anthropic-version": "2020-01-01"}},
    ],
)
def test_wrong_requests_are_turned_away(client, wrong):
    with pytest.raises((anthropic.BadRequestError, anthropic.NotFoundError)) as caught:
        client.messages.create(**ask("Hi") | wrong)
    assert caught.value.body["error"]["message"]
