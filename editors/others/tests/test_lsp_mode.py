"""Emacs with lsp-mode, which knows inline completion, with Tandem beside a language's own server."""

import os
from collections.abc import Callable

from conftest import SUGGESTED, Person, recipe

TAB, SAVE, END_OF_BUFFER, ASK = "\t", "\x18\x13", "\x1b>", "\x03 "

# What Debian's package does when it is installed and not only unpacked. Emacs compiles in a process that
# it starts by its own path, which is that of Debian's loader here.
INSTALLED = """
(setq native-comp-jit-compilation nil native-comp-enable-subr-trampolines nil)
(dolist (folder (directory-files "{root}/usr/share/emacs/site-lisp/elpa-src" t "^[a-z]"))
  (add-to-list 'load-path folder)
  (let ((autoloads (expand-file-name "autoloads.el" folder)))
    (loaddefs-generate folder autoloads nil nil nil t)
    (load autoloads nil t)))
"""

# So that no question is asked, and the line of servers is in sight.
QUIET = """
(setq lsp-auto-guess-root t lsp-headerline-breadcrumb-enable nil lsp-warn-no-matched-clients nil)
"""


def test_a_suggestion_is_shown_beside_the_languages_own_server(
    person: Person, unpacked: Callable[[str], list[str]]
) -> None:
    root = os.environ["EDITORS_ROOT"]
    person.configures(".emacs.d/early-init.el", INSTALLED.format(root=root))
    person.configures(".emacs.d/init.el", QUIET + recipe("Emacs with lsp-mode", "elisp"))
    file = person.writes("a.py", "import os\n")
    terminal = person.starts([*unpacked("emacs-nox"), "-nw", "a.py"])
    terminal.wait_for(lambda text: "[pylsp:" in text and "[tandem:" in text and "/starting" not in text)
    terminal.type(END_OF_BUFFER)
    terminal.type("x = ")
    terminal.wait_for("x =")
    terminal.type(ASK)
    terminal.wait_for("gamma = 1")
    assert "Unknown notification" not in terminal.text
    terminal.type(TAB)
    terminal.type(SAVE)
    terminal.wait_for("Wrote ")
    assert file.read_text() == f"import os\nx = {SUGGESTED}\n"
