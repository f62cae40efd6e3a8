"""Helix, which knows completion menus only, with Tandem beside a language's own server."""

import time
from collections.abc import Callable

import pytest
from conftest import SUGGESTED, Person, recipe
from terminal import Terminal

ESCAPE, TAB, ENTER, CONTROL_X = "\x1b", "\t", "\r", "\x18"

# More than a slow machine needs, of a second each.
ATTEMPTS = 60


@pytest.fixture
def helix(person: Person, unpacked: Callable[[str], list[str]]) -> Callable[[], Terminal]:
    """Starts it on `a.py`, in which the cursor then stands on a new second line."""
    person.configures(".config/helix/languages.toml", recipe("Helix", "toml"))
    person.writes("a.py", "import os\n")

    def start() -> Terminal:
        terminal = person.starts([*unpacked("hx"), "a.py"])
        terminal.wait_for("import os")
        terminal.type("o")
        terminal.wait_for("INS")
        return terminal

    return start


def saved(terminal: Terminal, person: Person) -> str:
    """What is in the file once it is written."""
    terminal.type(ESCAPE)
    terminal.wait_for("NOR")
    terminal.type(f":w{ENTER}")
    terminal.wait_for("written")
    return (person.project / "a.py").read_text()


def test_both_lines_of_a_suggestion_are_put_in_as_they_are(helix, person: Person) -> None:
    terminal = helix()
    terminal.type("ä = ")
    terminal.wait_for("ä =")
    terminal.type(CONTROL_X)
    terminal.wait_for("alpha(beta)")
    terminal.type(TAB)
    # Beside the menu it says who suggests that.
    terminal.wait_for("scripted-scripted (scripted)")
    terminal.type(ENTER)
    terminal.wait_for("gamma = 1")
    assert saved(terminal, person) == f"import os\nä = {SUGGESTED}\n"


def test_the_menu_opens_by_itself_and_an_entry_completes_the_word(helix, person: Person) -> None:
    person.installs("ève(beta)")
    terminal = helix()
    terminal.type("él")
    terminal.wait_for("élève(beta)")
    terminal.type("è")
    terminal.wait_for("élè\n")
    terminal.type(TAB + ENTER)
    # Helix 25.07 asks again as the word grows, and 25.01 keeps what it has.
    assert saved(terminal, person) in ("import os\nélèève(beta)\n", "import os\nélève(beta)\n")


def test_it_stands_beside_what_the_languages_own_server_offers(helix, person: Person) -> None:
    person.installs("th.join(here)")
    terminal = helix()
    terminal.type("os.pa")
    menu = terminal.wait_for("path.join(here)")
    # The language's server may still be starting, and Helix 25.01 then shows the other's answer only.
    for _ in range(ATTEMPTS):
        if "pathsep" in menu:
            break
        time.sleep(1)
        terminal.type(ESCAPE)
        terminal.wait_for("NOR")
        terminal.type(f"A{CONTROL_X}")
        menu = terminal.wait_for("path.join(here)")
    below = menu.splitlines()[2:-2]
    entries = [line.strip("~ ").split()[0] for line in below if line.strip("~ ")]
    assert entries[0] == "path.join(here)", "the server that is named last does not come first"
    assert entries.count("path.join(here)") == 1
    assert entries.count("path") == 1
    terminal.type(TAB + ENTER)
    assert saved(terminal, person) == "import os\nos.path.join(here)\n"
