"""Emacs with Eglot, which it contains: completion at point, and its own ghost text."""

from collections.abc import Callable

import pytest
from conftest import SUGGESTED, Person, recipe
from terminal import Terminal

META_TAB, TAB, SAVE, END_OF_BUFFER = "\x1b\t", "\t", "\x18\x13", "\x1b>"


@pytest.fixture
def emacs(person: Person, unpacked: Callable[[str], list[str]]) -> Callable[[], Terminal]:
    """Starts it on `a.py`, connected, with the cursor at the end."""
    person.writes("a.py", "import os\n")

    def start(configuration: str) -> Terminal:
        person.configures(".emacs.d/init.el", configuration)
        terminal = person.starts([*unpacked("emacs-nox"), "-nw", "a.py"])
        terminal.wait_for("Connected! Server `tandem'")
        terminal.type(END_OF_BUFFER)
        return terminal

    return start


def saved(terminal: Terminal, person: Person) -> str:
    """What is in the file once it is written."""
    terminal.type(SAVE)
    terminal.wait_for("Wrote ")
    return (person.project / "a.py").read_text()


def test_completion_at_point_puts_both_lines_in(emacs, person: Person) -> None:
    configuration = recipe("Emacs with Eglot", "elisp")
    terminal = emacs(configuration.split(";;")[0])
    terminal.type("ä = ")
    terminal.wait_for("ä =")
    terminal.type(META_TAB)
    terminal.wait_for("gamma = 1")
    assert saved(terminal, person) == f"import os\nä = {SUGGESTED}\n"


def test_completion_at_point_completes_the_word(emacs, person: Person) -> None:
    person.installs("ève(beta)")
    terminal = emacs(recipe("Emacs with Eglot", "elisp").split(";;")[0])
    terminal.type("él")
    terminal.wait_for("él\n")
    terminal.type(META_TAB)
    terminal.wait_for("élève(beta)")
    assert saved(terminal, person) == "import os\nélève(beta)\n"


def test_ghost_text_appears_and_tab_accepts_it(emacs, person: Person) -> None:
    terminal = emacs(recipe("Emacs with Eglot", "elisp"))
    terminal.type("x = ")
    text = terminal.wait_for("x = alpha(beta)")
    line = next(index for index, line in enumerate(text.splitlines()) if "alpha(beta)" in line)
    row = terminal.screen.buffer[line]
    start = text.splitlines()[line].index("alpha")
    assert row[start].fg != row[start - 2].fg, "it looks like what was typed"
    terminal.type(TAB)
    terminal.wait_for("gamma = 1")
    assert saved(terminal, person) == f"import os\nx = {SUGGESTED}\n"


def test_ghost_text_that_is_typed_over_is_gone(emacs, person: Person) -> None:
    terminal = emacs(recipe("Emacs with Eglot", "elisp"))
    terminal.type("x = ")
    terminal.wait_for("x = alpha(beta)")
    person.installs("")
    terminal.type("7")
    terminal.type("\r")
    assert saved(terminal, person).splitlines()[1] == "x = 7"
