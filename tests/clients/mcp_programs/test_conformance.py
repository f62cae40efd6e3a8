"""Holds `tandem mcp` to the scenarios of MCP's conformance suite that fit any server. The others want
tools, resources and prompts of a fixture; the suite speaks HTTP, so mcp-proxy stands in between."""

import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

LIMIT_SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1) as answer:
            return answer.status == 200
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


@pytest.fixture
def url(tandem, node, node_programs, environment, workspace) -> str:
    """Where the server is to be reached over HTTP."""
    port = free_port()
    proxy = subprocess.Popen(
        [
            node, node_programs / "mcp-proxy", "--server", "stream", "--host", "127.0.0.1",
            "--port", str(port), "--", tandem, "mcp", "--no-daemon", "--scripted-answer", "hi",
        ],
        env=environment, cwd=workspace, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not is_up(port):
            assert proxy.poll() is None, "mcp-proxy ended"
            assert time.monotonic() < deadline, "mcp-proxy does not answer"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        proxy.terminate()
        proxy.wait(LIMIT_SECONDS)


@pytest.mark.parametrize(
    "scenario", ["server-initialize", "ping", "tools-list", "resources-list", "prompts-list"]
)
def test_the_suite_accepts_the_server(scenario, url, node, node_programs, environment, tmp_path):
    ran = subprocess.run(
        [node, node_programs / "conformance", "server", "--url", url, "--scenario", scenario],
        env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=LIMIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Passed: 1/1, 0 failed, 0 warnings" in ran.stdout, ran.stdout
