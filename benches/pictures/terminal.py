"""A program on a terminal of its own: keys go in, and what a person would see comes out."""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

# Far beyond what anything here takes, so that a hang fails and a slow machine does not.
LIMIT_SECONDS = 60.0

# How long a screen must stay as it is to count as drawn. Programs draw in several writes, and a screen
# that a condition already holds for may still lack its other half.
STILL_SECONDS = 0.4

# pyte takes these for something else or prints them: strings addressed to the terminal, and control
# sequences with a private mark (<, =, >), with an intermediate character, or with a question mark that
# neither set nor erase.
NOT_DRAWN = re.compile(
    r"\x1b[P_X^].*?\x1b\\"
    r"|\x1b\].*?(?:\x07|\x1b\\)"
    r"|\x1b\[[<=>][0-9;:]*[ -/]*[@-~]"
    r"|\x1b\[\?[0-9;]*(?:[ -/]+[@-~]|[^0-9;hlJK ])"
    r"|\x1b\[[0-9;]*[ -/]+[@-~]",
    re.DOTALL,
)
CUT_SEQUENCE = re.compile(r"\x1b(?:[P_X^\]](?:(?!\x1b\\|\x07).)*|\[[0-9;:<=>? -/]*)?\Z", re.DOTALL)

# A program that asks the terminal what it is may wait for the answer; whatever else it asks, such as for
# colours, xterm need not answer.
ATTRIBUTES_ASKED = re.compile(r"\x1b\[0?c")

# Select Graphic Rendition, with its parameters.
STYLE = re.compile(r"\x1b\[([0-9;:]*)m")

# Steady and blinking block, underline and bar, from 0 to 6.
CURSOR_SHAPES = re.compile(r"\x1b\[([0-6]) q")


class Terminal:
    """One program, started at once; `close` it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        columns: int = 80,
        lines: int = 24,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self.screen)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._cut = ""
        self.ended = False
        # Whether the program chose a bar for its cursor, and not a block.
        self.bar_cursor = False
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe(command[0], list(command), {"TERM": "xterm-256color", **environment})
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def type(self, keys: str) -> None:
        """Sends keys as they come from a keyboard: `\\r` is Enter, `\\x1b` is Escape."""
        os.write(self._fd, keys.encode())

    @property
    def text(self) -> str:
        """The lines of the screen, without the spaces behind them."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, what: str | Callable[[str], object]) -> str:
        """Reads until the text of the screen contains `what`, or is what it wants, and stays still."""
        wanted = (lambda text: what in text) if isinstance(what, str) else what
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline:
            arrived = self._read(STILL_SECONDS)
            if not arrived and wanted(self.text):
                return self.text
            if not arrived and self.ended:
                break
        why = "the program ended" if self.ended else f"nothing like it in {LIMIT_SECONDS:.0f} s"
        raise AssertionError(f"{what}: {why}; the screen:\n{self.text}")

    def wait_for_end(self) -> int:
        """Reads until the program ends by itself; its exit code."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.ended:
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end; the screen:\n{self.text}")
            self._read(STILL_SECONDS)
        return os.waitstatus_to_exitcode(self._reap())

    def close(self) -> None:
        """Ends the program, as closing a terminal's window does."""
        if self._pid == 0:
            return
        if not self.ended:
            os.kill(self._pid, signal.SIGHUP)
            deadline = time.monotonic() + LIMIT_SECONDS / 6
            while not self.ended and time.monotonic() < deadline:
                self._read(STILL_SECONDS)
        if not self.ended:
            os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        os.close(self._fd)
        return status

    def _read(self, patience: float) -> bool:
        """Takes in what the program wrote; whether there was anything within `patience` seconds."""
        if self.ended:
            return False
        ready, _, _ = select.select([self._fd], [], [], patience)
        if not ready:
            return False
        try:
            written = os.read(self._fd, 65536)
        except OSError:  # Nobody has the other end open any more: this is how its end reads on Linux.
            written = b""
        if not written:
            self.ended = True
            return False
        self.draw(self._decoder.decode(written))
        return True

    def draw(self, text: str) -> None:
        """Draws as if the program had written `text`."""
        text = self._cut + text
        cut = CUT_SEQUENCE.search(text)
        self._cut = text[cut.start() :] if cut else ""
        text = text[: cut.start()] if cut else text
        for shape in CURSOR_SHAPES.findall(text):
            self.bar_cursor = shape in ("5", "6")
        for _ in ATTRIBUTES_ASKED.findall(text):
            os.write(self._fd, b"\x1b[?62;22c")
        self._stream.feed(styled(ATTRIBUTES_ASKED.sub("", NOT_DRAWN.sub("", text))))


def styled(text: str) -> str:
    """`text` with its styles as pyte knows them: faint text is grey, underlines have no form or colour."""

    def one(match: re.Match[str]) -> str:
        parameters = match[1]
        parameters = re.sub(r"\b4:0\b", "24", parameters)
        parameters = re.sub(r"\b4:[1-5]\b", "4", parameters)
        parameters = re.sub(r"\b58[:;](?:2[:;]+\d+[:;]\d+[:;]\d+|5[:;]\d+)", "", parameters)
        parameters = re.sub(r"\b([34]8):2:+(\d+):(\d+):(\d+)", r"\1;2;\2;\3;\4", parameters)
        parameters = re.sub(r"\b([34]8):5:(\d+)", r"\1;5;\2", parameters)
        if parameters in ("2", "0;2"):
            parameters = parameters[:-1] + "90"
        return f"\x1b[{parameters}m"

    return STYLE.sub(one, text)
