"""Draws README's picture of a completion: runs the program for real and turns what a terminal shows into SVG.

    pip install rich && python3 benches/picture.py target/release/tandem .assets/complete.svg
"""

import os
import pty
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCUMENT = "tests/data/picture/inventory.py"
POSITION = "13"


def on_a_terminal(command: list[str]) -> str:
    """What `command` writes where it believes to be on a terminal, escapes included."""
    parent, child = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TERM": "xterm-256color"}
    program = subprocess.Popen(command, stdout=child, stderr=subprocess.DEVNULL, stdin=child, env=environment)
    os.close(child)
    pieces = []
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # The terminal's other end is closed: this is how its end reads on Linux.
            break
        if not piece:
            break
        pieces.append(piece)
    if program.wait() != 0:
        sys.exit(f"{' '.join(command)} ended with {program.returncode}: run it by hand and look")
    return b"".join(pieces).decode().replace("\r\n", "\n")


def main() -> None:
    binary, target = sys.argv[1], Path(sys.argv[2])
    arguments = ["complete", "--show", f"{DOCUMENT}:{POSITION}"]
    console = Console(record=True, width=88, file=open(os.devnull, "w"))
    console.print(Text.assemble(("$ ", "bold green"), f"tandem {' '.join(arguments)}"))
    console.print(Text.from_ansi(on_a_terminal([binary, *arguments])))
    target.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(target), title="tandem")


if __name__ == "__main__":
    main()
