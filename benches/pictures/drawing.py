"""Draws what a terminal shows as SVG: small, sharp at any size, and readable as text."""

from collections import Counter
from collections.abc import Iterator
from html import escape

import pyte
from pyte.screens import Char

FONT_SIZE = 14
# The width of a character in the monospaced fonts named below, of which each is 0.6 em wide, or so
# nearly that `textLength` closes the gap.
CELL_WIDTH = 8.4
LINE_HEIGHT = 18
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"

# Neovim's health reports are full of it, and few monospaced fonts have it.
TICK = "\N{WHITE HEAVY CHECK MARK}"

MARGIN = 12
TITLE_HEIGHT = 32
TITLE_COLOUR = "#8b949e"

FOREGROUND = "#d0d4da"
BACKGROUND = "#14161b"
# pyte names the sixteen colours that a terminal chooses (its "brown" is yellow); all others come as numbers.
COLOURS = {
    "black": "#3a3f4b",
    "red": "#f07178",
    "green": "#8fca75",
    "brown": "#e5c07b",
    "blue": "#6cb0f2",
    "magenta": "#c792ea",
    "cyan": "#6fcad0",
    "white": "#d0d4da",
    "brightblack": "#7d8590",
    "brightred": "#ff8b92",
    "brightgreen": "#a9e08f",
    "brightbrown": "#f2d48f",
    "brightyellow": "#f2d48f",
    "brightblue": "#8cc4ff",
    "brightmagenta": "#dab0f7",
    "bfightmagenta": "#dab0f7",
    "brightcyan": "#8fe1e6",
    "brightwhite": "#ffffff",
}


def svg(screen: pyte.Screen, title: str, *, bar_cursor: bool = False) -> str:
    """The screen in a window of that title, without empty lines at its end; the cursor is a block, or a
    bar before its character."""
    rows = [[screen.buffer[y][x] for x in range(screen.columns)] for y in range(screen.lines)]
    while rows and all(cell == screen.default_char for cell in rows[-1]):
        rows.pop()
    background = Counter(ground(cell) for row in rows for cell in row).most_common(1)[0][0]
    width = screen.columns * CELL_WIDTH + 2 * MARGIN
    height = len(rows) * LINE_HEIGHT + TITLE_HEIGHT + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {number(width)} {number(height)}"'
            f' width="{number(width)}" height="{number(height)}" role="img"'
            f' font-family="{FONTS}" font-size="{FONT_SIZE}">',
            f"<title>{escape(title)}</title>",
            f'<rect x=".5" y=".5" width="{number(width - 1)}" height="{number(height - 1)}" rx="8"'
            f' fill="{background}" stroke="#3d444d"/>',
            *(
                f'<circle cx="{20 + 20 * index}" cy="17" r="6" fill="{colour}"/>'
                for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
            ),
            f'<text x="{number(width / 2)}" y="22" fill="{TITLE_COLOUR}" text-anchor="middle">'
            f"{escape(title)}</text>",
            f'<g transform="translate({MARGIN} {TITLE_HEIGHT})">',
            *(part for y, row in enumerate(rows) for part in line(row, y, background)),
            *cursor(screen, bar_cursor),
            "</g>",
            "</svg>",
            "",
        ]
    )


def line(row: list[Char], y: int, background: str) -> Iterator[str]:
    """One line of the screen: first what is behind the text, then the text."""
    for start, end in runs([ground(cell) for cell in row]):
        colour = ground(row[start])
        if colour != background:
            yield (
                f'<rect x="{number(start * CELL_WIDTH)}" y="{y * LINE_HEIGHT}"'
                f' width="{number((end - start) * CELL_WIDTH)}" height="{LINE_HEIGHT}" fill="{colour}"/>'
            )
    for x, cell in enumerate(row):
        if cell.data == TICK:
            yield tick(x, y)
    letters = [letter(cell, before) for cell, before in zip(row, [None, *row])]
    for start, end in runs([style(cell) for cell in row]):
        for first, word in words("".join(letters[start:end])):
            yield (
                f'<text x="{number((start + first) * CELL_WIDTH)}" y="{y * LINE_HEIGHT + FONT_SIZE - 1}"'
                f' textLength="{number(len(word) * CELL_WIDTH)}" {style(row[start])}>{escape(word, False)}</text>'
            )


def letter(cell: Char, before: Char | None) -> str:
    """What is written in a cell. The second one of a wide character is empty on pyte's screen; here it takes
    its place, and none on the picture."""
    if cell.data == TICK or (cell.data == "" and before and before.data == TICK):
        return " "
    return cell.data or "\N{ZERO WIDTH SPACE}"


def tick(x: int, y: int) -> str:
    """A white tick on green, two cells wide."""
    left, top = x * CELL_WIDTH, y * LINE_HEIGHT
    return (
        f'<rect x="{number(left + 1.5)}" y="{number(top + 2.5)}" width="13" height="13" rx="2" fill="#3fa650"/>'
        f'<path d="M{number(left + 4.5)} {number(top + 9)}l2.5 3 5-6" fill="none" stroke="#fff" stroke-width="2"/>'
    )


def runs(values: list[str]) -> Iterator[tuple[int, int]]:
    """Where equal values stand side by side: their start and end."""
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[start]:
            yield start, index
            start = index


def words(text: str) -> Iterator[tuple[int, str]]:
    """The pieces of `text` between two spaces and more, which need not be drawn, and where they start."""
    start = 0
    for piece in text.split("  "):
        word = piece.strip()
        if word:
            yield start + piece.index(word), word
        start += len(piece) + 2


def style(cell: Char) -> str:
    attributes = [f'fill="{ink(cell)}"']
    if cell.bold:
        attributes.append('font-weight="bold"')
    if cell.italics:
        attributes.append('font-style="italic"')
    if cell.underscore:
        attributes.append('text-decoration="underline"')
    return " ".join(attributes)


def ink(cell: Char) -> str:
    return colour(cell.bg, BACKGROUND) if cell.reverse else colour(cell.fg, FOREGROUND)


def ground(cell: Char) -> str:
    return colour(cell.fg, FOREGROUND) if cell.reverse else colour(cell.bg, BACKGROUND)


def colour(name: str, default: str) -> str:
    return default if name == "default" else COLOURS.get(name, f"#{name}")


def cursor(screen: pyte.Screen, bar: bool) -> Iterator[str]:
    if not screen.cursor.hidden:
        width = 2 if bar else CELL_WIDTH
        yield (
            f'<rect x="{number(screen.cursor.x * CELL_WIDTH)}" y="{screen.cursor.y * LINE_HEIGHT}"'
            f' width="{width}" height="{LINE_HEIGHT}" fill="{FOREGROUND}" opacity="{1 if bar else 0.5}"/>'
        )


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
