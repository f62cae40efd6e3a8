"""What README's pictures show: each scene ends with a terminal as a person would see it."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from terminal import Terminal

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = REPOSITORY / "tests/data/picture/stock.py"

# What README tells a person to put into their own, and a status line.
NEOVIM_CONFIGURATION = """
vim.keymap.set('i', '<C-l>', '<Plug>(tandem-accept)')
vim.opt.termguicolors = true
vim.opt.laststatus = 2
vim.opt.ruler = false
vim.opt.shortmess:append('I')
vim.opt.statusline = " %f %= %{v:lua.require'tandem'.statusline()} "
"""


class Machine:
    """A home in which nothing is set up, with Tandem on its PATH, and its plugin in Neovim."""

    def __init__(self, home: Path, tandem: Path, neovim: Sequence[str]) -> None:
        self.home = home
        self.project = home / "project"
        self._neovim = [Path(part).resolve().as_posix() if Path(part).exists() else part for part in neovim]
        self._terminals: list[Terminal] = []
        self._servers: list[subprocess.Popen[bytes]] = []
        programs = home / "bin"
        plugins = home / ".local/share/nvim/site/pack/tandem/start"
        for folder in (self.project, programs, plugins, home / ".config/nvim"):
            folder.mkdir(parents=True)
        (programs / "tandem").symlink_to(tandem)
        (plugins / "tandem").symlink_to(REPOSITORY / "editors/neovim")
        (home / ".config/nvim/init.lua").write_text(NEOVIM_CONFIGURATION)
        (self.project / ".tandem.yaml").write_text("{}\n")
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "COLORTERM": "truecolor",
        }

    def starts(self, command: Sequence[str], columns: int, lines: int, folder: Path | None = None) -> Terminal:
        terminal = Terminal(
            command,
            environment=self.environment,
            folder=folder or self.project,
            columns=columns,
            lines=lines,
        )
        self._terminals.append(terminal)
        return terminal

    def starts_neovim(self, file: str, columns: int, lines: int) -> Terminal:
        """Neovim with that file of the project, attached to Tandem.

        Its screen and what is behind it are two processes, which Neovim would start by itself, were its
        own path not that of Debian's loader when `.ci/debian-run` starts it.
        """
        socket = self.home / f"{file}.{len(self._servers)}.socket"
        server = subprocess.Popen(
            [*self._neovim, "--headless", "--listen", str(socket), file],
            cwd=self.project,
            env={"TERM": "xterm-256color", **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._servers.append(server)
        return self.starts(
            ["/bin/sh", "-c", 'until [ -S "$0" ]; do sleep 0.1; done; exec "$@"', str(socket)]
            + [*self._neovim, "--server", str(socket), "--remote-ui"],
            columns,
            lines,
        )

    def clear(self) -> None:
        """Ends all that was started, the daemon included."""
        for terminal in self._terminals:
            terminal.close()
        for server in self._servers:
            server.terminate()
            server.wait()
        subprocess.run(
            [self.home / "bin/tandem", "daemon", "stop"], env=self.environment, capture_output=True, check=False
        )


def shell_line(terminal: Terminal, command: str) -> None:
    """Draws what was typed at the prompt before the program that is shown there wrote anything."""
    terminal.draw(f"\x1b[1;32m$\x1b[0m {command}\r\n")


def complete(machine: Machine) -> tuple[Terminal, str]:
    """A completion on the command line."""
    command = ["tandem", "complete", "--show", f"{DOCUMENT.relative_to(REPOSITORY)}:11"]
    terminal = machine.starts(command, 84, 16, REPOSITORY)
    shell_line(terminal, " ".join(command))
    if terminal.wait_for_end() != 0:
        raise AssertionError(f"{' '.join(command)} failed:\n{terminal.text}")
    terminal.screen.cursor.hidden = True
    return terminal, "tandem complete"


def doctor(machine: Machine) -> tuple[Terminal, str]:
    """What doctor finds where nothing is set up."""
    terminal = machine.starts(["tandem", "doctor"], 120, 50)
    shell_line(terminal, "tandem doctor")
    terminal.wait_for_end()
    terminal.screen.cursor.hidden = True
    return terminal, "tandem doctor"


def ghost(machine: Machine) -> tuple[Terminal, str]:
    """A suggestion at the cursor in Neovim."""
    return typed_until_ghost(machine, 80, 16), "nvim stock.py"


def typed_until_ghost(machine: Machine, columns: int, lines: int) -> Terminal:
    (machine.project / "stock.py").write_text("".join(DOCUMENT.read_text().splitlines(True)[:10]))
    terminal = machine.starts_neovim("stock.py", columns, lines)
    terminal.wait_for("Tandem ")
    terminal.type("Go")
    terminal.wait_for("INSERT")
    # Neovim indents it.
    typed = "prices: dict"
    terminal.type(f"\r{typed}")
    terminal.wait_for(lambda text: re.search(rf"{re.escape(typed)}\S", text))
    return terminal


def checkhealth(machine: Machine) -> tuple[Terminal, str]:
    """`:checkhealth tandem` in Neovim, with a daemon that has answered."""
    terminal = typed_until_ghost(machine, 92, 15)
    terminal.type("\x1b")
    terminal.wait_for(lambda text: "INSERT" not in text)
    terminal.type(":checkhealth tandem\r")
    terminal.wait_for("The daemon runs")
    return terminal, "nvim: checkhealth tandem"


def status(machine: Machine) -> tuple[Terminal, str]:
    """The daemon while two editors use it."""
    # Any key will do, for nothing is sent: completions as one types are not Claude's unless they are allowed
    # to be, and nobody listens at that address.
    machine.environment["ANTHROPIC_API_KEY"] = "sk-ant-none"
    machine.environment["ANTHROPIC_BASE_URL"] = "http://127.0.0.1:9"
    editors = [typed_until_ghost(machine, 80, 16) for _ in range(2)]
    terminal = machine.starts(["tandem", "status", "--watch"], 112, 20)
    shell_line(terminal, "tandem status --watch")
    terminal.wait_for("session")
    for word in ("[str, int]", " = field(", "default_factory=dict)"):
        for editor in editors:
            editor.type(word)
            editor.wait_for(word)
    terminal.wait_for("2 sessions")
    terminal.screen.cursor.hidden = True
    return terminal, "tandem status --watch"


ALL: dict[str, Callable[[Machine], tuple[Terminal, str]]] = {
    "complete": complete,
    "neovim": ghost,
    "checkhealth": checkhealth,
    "status": status,
    "doctor": doctor,
}
