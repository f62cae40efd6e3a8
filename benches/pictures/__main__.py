"""Makes README's pictures anew: `run` says how it is called."""

import argparse
import shutil
import tempfile
from pathlib import Path

import scenes
from drawing import svg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tandem", type=Path, required=True, help="the program to show")
    parser.add_argument("--neovim", nargs=3, required=True, help="the command that starts Neovim 0.12")
    parser.add_argument("--into", type=Path, required=True, help="the folder that the pictures go to")
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(scenes.ALL)}; all if none is named")
    said = parser.parse_args()
    unknown = set(said.names) - set(scenes.ALL)
    if unknown:
        parser.error(f"there is no picture named {', '.join(unknown)}; there are {', '.join(scenes.ALL)}")
    for name in said.names or scenes.ALL:
        # Its path is seen in the pictures, so it is a plain one.
        home = Path(tempfile.gettempdir(), "you")
        home.mkdir(mode=0o700)
        machine = scenes.Machine(home, said.tandem.resolve(), said.neovim)
        try:
            terminal, title = scenes.ALL[name](machine)
            picture = svg(terminal.screen, title, bar_cursor=terminal.bar_cursor)
        finally:
            machine.clear()
            shutil.rmtree(home)
        target = said.into / f"{name}.svg"
        target.write_text(picture)
        print(f"{target}: {len(picture) / 1000:.1f} kB")


if __name__ == "__main__":
    main()
