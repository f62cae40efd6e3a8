"""A person at an editor: its terminal, a project, a home of their own, and Tandem on their PATH."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from terminal import Terminal

RECIPES = Path(__file__).parent.parent / "README.md"
REPOSITORY = Path(__file__).parents[3]

# Two lines, so that a client that keeps only the first, or indents the second anew, is found out.
SUGGESTED = "alpha(beta)\n    gamma = 1"

TANDEM = """#!/bin/sh
exec '{binary}' "$@" --scripted-answer '{answer}'
"""


def recipe(editor: str, language: str) -> str:
    """The block in that language that the section on `editor` tells people to use."""
    section = re.search(rf"^## {editor}\n(.*?)(?=^## |\Z)", RECIPES.read_text(), re.DOTALL | re.MULTILINE)
    assert section, f"{RECIPES} has no section on {editor}"
    block = re.search(rf"^```{language}\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
    assert block, f"the section on {editor} in {RECIPES} has no block of {language}"
    return block[1]


class Person:
    """Whose home, project and PATH are new for each test."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.project = folder / "project"
        self.programs = folder / "bin"
        for made in (self.home, self.project, self.programs):
            made.mkdir()
        self._terminals: list[Terminal] = []
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "COLORTERM": "truecolor",
            # Nothing may outlive a test.
            "TANDEM_DAEMON_ENABLED": "false",
        }

    def installs(self, answer: str) -> None:
        """Puts a Tandem on PATH that always suggests `answer`."""
        program = self.programs / "tandem"
        program.write_text(TANDEM.format(binary=os.environ["TANDEM_BIN"], answer=answer))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def configures(self, path: str, text: str) -> None:
        """Writes a file into the home."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def writes(self, name: str, text: str) -> Path:
        """Writes a file into the project."""
        file = self.project / name
        file.write_text(text)
        return file

    def starts(self, command: Sequence[str]) -> Terminal:
        """Starts a program on a terminal, in the project."""
        terminal = Terminal(
            command, environment=self.environment, folder=self.project, columns=100, lines=30
        )
        self._terminals.append(terminal)
        return terminal

    def leaves(self) -> None:
        for terminal in self._terminals:
            terminal.close()


@pytest.fixture
def person(tmp_path: Path) -> Iterator[Person]:
    """Somebody with a Python project of theirs, who installed Tandem."""
    person = Person(tmp_path)
    person.installs(SUGGESTED)
    person.writes("pyproject.toml", '[project]\nname = "here"\n')
    yield person
    person.leaves()


@pytest.fixture
def unpacked() -> Callable[[str], list[str]]:
    """What starts a program of the Debian suite under test."""
    return lambda program: [str(REPOSITORY / ".ci/debian-run"), os.environ["EDITORS_ROOT"], program]
