"""huggingface_hub accepts the server that stands in for the hub, and gets from it the same files as
`tandem model pull`: what our client is tested against is a hub to others, too."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = "stand-in/tiny"
LIMIT_SECONDS = 60

# In a process of its own: huggingface_hub reads its environment once, when it is imported.
SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download(sys.argv[1]))
"""
ONE_FILE = """
import sys
from huggingface_hub import hf_hub_download
print(hf_hub_download(sys.argv[1], sys.argv[2], revision=sys.argv[3]))
"""

CATALOGUE = """
models:
- id: tiny
  title: Every file
  kind: safetensors
  repository: stand-in/tiny
  revision: main
  include: ["**"]
  template: qwen3
  context_tokens: 512
  tasks: [chat]
  memory_mib: 1
- id: tiny-gguf
  title: One file
  kind: gguf
  repository: stand-in/tiny
  revision: main
  files: [{path: model.gguf}]
  template: qwen3
  context_tokens: 512
  tasks: [chat]
  memory_mib: 1
"""


@pytest.fixture
def settings(environment: dict[str, str], hub: str, tmp_path: pathlib.Path) -> dict[str, str]:
    """An environment for both: the hub, and a catalogue with its one repository."""
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    return environment | {
        "HF_ENDPOINT": hub,
        "HF_TOKEN": "hf_stand_in",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TANDEM_LOCAL_CATALOGUE": str(catalogue),
    }


def python(script: str, *arguments: str, settings: dict[str, str]) -> pathlib.Path:
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=settings, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    return pathlib.Path(ran.stdout.strip())


def run(tandem: str, *arguments: str, settings: dict[str, str]) -> str:
    ran = subprocess.run(
        [tandem, "model", *arguments],
        env=settings, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def hashes(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_both_get_the_same_files(tandem, settings):
    theirs = python(SNAPSHOT, REPOSITORY, settings=settings)
    ours = pathlib.Path(run(tandem, "pull", "tiny", settings=settings | {"HF_HOME": "/nowhere"}))
    assert len(hashes(theirs)) == 5
    assert hashes(ours) == hashes(theirs)
    assert ours.name == theirs.name, "the same commit"


def test_their_cache_is_taken_over_without_a_download(tandem, settings):
    commit = pathlib.Path(run(tandem, "pull", "tiny", settings=settings)).name
    theirs = python(ONE_FILE, REPOSITORY, "model.gguf", commit, settings=settings)
    # Names the branch, as a download of the branch does.
    python(ONE_FILE, REPOSITORY, "model.gguf", "main", settings=settings)
    rows = json.loads(run(tandem, "list", "--json", settings=settings))["models"]
    assert next(row for row in rows if row["id"] == "tiny-gguf")["state"] == "cached"
    offline = settings | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    ours = pathlib.Path(run(tandem, "pull", "tiny-gguf", settings=offline))
    assert ours.read_bytes() == theirs.read_bytes()
    assert os.path.samefile(ours, theirs), "one file under two names"


def test_a_token_is_needed_by_both(tandem, settings):
    without = {name: value for name, value in settings.items() if name != "HF_TOKEN"}
    theirs = subprocess.run(
        [sys.executable, "-c", SNAPSHOT, REPOSITORY],
        env=without, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )
    assert "GatedRepoError" in theirs.stderr
    ours = subprocess.run(
        [tandem, "model", "pull", "tiny"],
        env=without, capture_output=True, text=True, timeout=LIMIT_SECONDS,
    )
    assert ours.returncode == 1
    assert "hf auth login" in ours.stderr and "terms" in ours.stderr
