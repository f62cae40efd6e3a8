"""Claude Code, as an MCP host."""

import subprocess

from conftest import Person, recipe

# Far beyond what it takes, so that a hang fails and a slow machine does not.
LIMIT_SECONDS = 120


def test_it_is_added_and_connects(person: Person) -> None:
    said = subprocess.run(
        ["/bin/sh", "-ec", recipe("Claude Code", "sh")],
        cwd=person.project,
        env={**person.environment, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert "tandem: tandem mcp - ✔ Connected" in said.stdout
