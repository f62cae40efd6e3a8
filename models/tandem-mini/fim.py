"""Fill-in-the-middle examples: where an editor's cursor stands and what a person would type there.

An example is rendered exactly as the server renders a prompt (see README.md, "Prompt format").
"""

import random
import re

END, FILE_SEP = "<|endoftext|>", "<|file_sep|>"
PRE, SUF, MID = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"

# Suffix first (SPM): the answer goes on directly after the prefix, which a model this small learns at once. Prefix first
# (PSM) asks it to look back past the suffix; after 5 million tokens it had not learnt that. The rest is plain text.
SPM_SHARE = 0.85
PSM_SHARE = 0.03
HOLE_WEIGHT = 6.0
PATH_SHARE = 0.7
SNIPPET_SHARE = 0.04
# The server leaves the piece that is being typed out of the prompt, and has the answer begin with it.
HEALED_SHARE = 0.9
LONGEST_HEALED = 48
SUFFIX_TOKENS = 160
EMPTY_SUFFIX_SHARE = 0.15
BRACKETS = {"(": ")", "[": "]", "{": "}"}


def unfinished(text):
    """The piece at the end of `text` that more text could make part of another token (src/prompt/healing.rs)."""
    near = text[-LONGEST_HEALED - 1:]
    if not near or near[-1] in "\r\n":
        return ""
    mark = lambda c: not c.isspace() and not c.isalnum()
    last = near[-1]
    if last.isspace():
        piece = last
    elif mark(last):
        start = len(near)
        while start and mark(near[start - 1]):
            start -= 1
        piece = near[start - (near[:start].endswith(" ")):]
    elif not last.isalpha():
        piece = ""
    else:
        start = len(near)
        while start and near[start - 1].isalpha():
            start -= 1
        before, other = near[start - 1:start], near[start - 2:start - 1] if start > 1 else ""
        taken = other == " " or (other != "" and mark(other))
        blank = before.isspace() and before not in "\r\n"
        piece = near[start - (blank or (before != "" and mark(before) and not taken)):]
    return piece if len(piece.encode()) <= LONGEST_HEALED else ""


def after_word(text, at):
    """The first place from `at` on that is not inside a word: a person does not want half of a name."""
    word = lambda c: c.isalnum() or c == "_"
    while 0 < at < len(text) and word(text[at - 1]) and word(text[at]):
        at += 1
    return at


def middle_span(rng, text):
    """(start, end) of the hole: the kinds of place where completions are asked for, most frequent first."""
    kind = rng.random()
    # Aim at lines with something on them: a random offset, moved on to the next one that has.
    at = rng.randrange(len(text))
    start = text.rfind("\n", 0, at) + 1
    for _ in range(4):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            break
        start = min(end + 1, len(text))
    line = text[start:end]
    indent = len(line) - len(line.lstrip())
    if not line.strip():
        return at, at
    cursor = start + rng.randint(indent, max(indent, len(line.rstrip()) - 1))
    if kind < 0.40:  # the rest of the line; a few times there is nothing left to say
        return (end, end) if rng.random() < 0.03 else (cursor, end)
    if kind < 0.48:  # the last words or marks of the line
        pieces = [m.start() for m in re.finditer(r"\w+|[^\w\s]", line)]
        return start + rng.choice(pieces[-3:]), end
    if kind < 0.66:  # a whole line, the indentation typed by the editor or not
        return start + (indent if rng.random() < 0.9 else 0), end
    if kind < 0.72:  # the rest of the line and some lines more
        for _ in range(rng.randint(1, 5)):
            further = text.find("\n", end + 1)
            if further < 0 or further - cursor > 500:
                break
            end = further
        return cursor, end
    if kind < 0.84:  # the block that a line opens: what follows with deeper indentation
        for _ in range(30):
            if line.rstrip().endswith(("{", ":", "(", "[", "=>", "=")):
                break
            start, end = end + 1, text.find("\n", end + 1)
            if end < 0:
                return cursor, max(cursor, text.find("\n", cursor))
            line = text[start:end]
        base, stop, here = len(line) - len(line.lstrip()), end, end + 1
        while here < len(text) and stop - end < 600:
            after = text.find("\n", here)
            after = len(text) if after < 0 else after
            inner = text[here:after]
            if inner.strip():
                if len(inner) - len(inner.lstrip()) <= base:
                    break
                stop = after
            here = after + 1
        return end, stop
    if kind < 0.96:  # inside an expression: up to the bracket that closes it, or a few words
        opens = [m.start() for m in re.finditer(r"[(\[{]", line)]
        if opens and rng.random() < 0.7:
            depth, o = 0, rng.choice(opens)
            for i in range(start + o, min(start + o + 300, len(text))):
                depth += text[i] in "([{"
                depth -= text[i] in ")]}"
                if depth == 0:
                    return rng.randint(start + o + 1, i), i
        return cursor, after_word(text, rng.randint(cursor, end))
    return at, after_word(text, min(len(text), at + rng.randint(1, 240)))  # anywhere


def short_path(rng, document):
    """The last parts of the path, as a workspace would show it."""
    return "/".join(document["path"].split("/")[-rng.randint(1, 4):])


def header(rng, document, others):
    """What may stand before an example: a snippet of another file of the package, and the file's path."""
    parts = []
    if others and rng.random() < SNIPPET_SHARE:
        other = rng.choice(others)
        lines = other["text"].split("\n")
        first = rng.randrange(len(lines))
        snippet = "\n".join(lines[first:first + rng.randint(4, 20)])[:700]
        parts.append(f"{FILE_SEP}{short_path(rng, other)}\n{snippet}\n")
    if rng.random() < PATH_SHARE or parts:
        parts.append(f"{FILE_SEP}{short_path(rng, document)}\n")
    return "".join(parts)


def example(rng, encode, document, others, room):
    """(ids, weight per id) of at most `room` tokens, cut from somewhere in the document."""
    text = document["text"]
    # Characters per token are about 3.2; a little more is taken and cut to fit.
    reach = 5 * room
    head = encode(header(rng, document, others))
    if len(head) > room // 3:
        head = []
    draw = rng.random()
    if draw >= PSM_SHARE + SPM_SHARE:
        first = rng.randrange(max(1, len(text) - reach // 2))
        first = text.rfind("\n", 0, first) + 1
        ids = (head + encode(text[first:first + reach]) + (encode(END) if first + reach >= len(text) else []))[:room]
        return ids, [1.0] * len(ids)
    start, end = middle_span(rng, text)
    if rng.random() < HEALED_SHARE:
        start -= len(unfinished(text[max(0, start - LONGEST_HEALED - 1):start]))
    middle = encode(text[start:end])
    answer = middle[: room // 2] if len(middle) > room // 2 else middle + encode(END)
    budget = room - len(head) - len(answer) - 3
    prefix, suffix = encode(text[max(0, start - reach):start]), encode(text[end:end + reach])
    after = 0 if rng.random() < EMPTY_SUFFIX_SHARE else min(SUFFIX_TOKENS, int(budget * rng.uniform(0.02, 0.45)))
    after = min(after, len(suffix))
    before = min(budget - after, len(prefix))
    prefix, suffix = prefix[len(prefix) - before:], suffix[:after]
    if draw < PSM_SHARE:
        prompt = head + encode(PRE) + prefix + encode(SUF) + suffix + encode(MID)
    else:
        prompt = head + encode(PRE) + encode(SUF) + suffix + encode(MID) + prefix
    # The hole is what is asked for: it weighs more than its few tokens.
    return prompt + answer, [1.0] * len(prompt) + [HOLE_WEIGHT] * len(answer)


def render(prefix, suffix, path=None, order="spm"):
    """The prompt's text, for documents without special tokens in them."""
    head = f"{FILE_SEP}{path}\n" if path else ""
    if order == "psm":
        return f"{head}{PRE}{prefix}{SUF}{suffix}{MID}"
    return f"{head}{PRE}{SUF}{suffix}{MID}{prefix}"


class Stream:
    """An endless, seeded stream of rows: (ids, weights) of `length + 1` tokens each, packed with examples."""

    SHARES = {"rust": 0.28, "python": 0.28, "typescript": 0.23, "javascript": 0.05, "go": 0.10, "c": 0.06}

    def __init__(self, documents, tokenizer, seed):
        self.rng = random.Random(seed)
        self.documents = documents
        self.encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids if text else []
        self.pad = self.encode("<|fim_pad|>")
        self.by_language = {}
        for i, d in enumerate(documents):
            self.by_language.setdefault(d["lang"], []).append(i)
        self.languages = [l for l in self.SHARES if l in self.by_language]
        # A file is drawn by its length, a long one at most as often as forty windows of 1,000 characters.
        self.cumulative = {}
        for lang in self.languages:
            total, sums = 0, []
            for i in self.by_language[lang]:
                total += min(len(documents[i]["text"]), 40_000)
                sums.append(total)
            self.cumulative[lang] = sums

    def draw(self):
        rng = self.rng
        lang = rng.choices(self.languages, [self.SHARES[l] for l in self.languages])[0]
        i = rng.choices(self.by_language[lang], cum_weights=self.cumulative[lang])[0]
        near = [self.documents[j] for j in range(max(0, i - 6), min(len(self.documents), i + 7))
                if j != i and self.documents[j]["package"] == self.documents[i]["package"]]
        return self.documents[i], near

    def row(self, length):
        """One example, padded where it is short: examples packed into a row would see each other's markers."""
        for _ in range(4):
            document, near = self.draw()
            ids, weights = example(self.rng, self.encode, document, near, length + 1)
            if len(ids) > 0.7 * length:
                break
        missing = length + 1 - len(ids)
        return ids + self.pad * missing, weights + [0.0] * missing
