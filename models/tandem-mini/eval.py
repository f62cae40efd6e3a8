"""Measures tandem-mini on packages that were held out of its training.

    eval.py WORK [--holes 500] [--languages rust,python,typescript] [--order psm|spm]
    eval.py WORK --loss 400      only the cross-entropy of so many examples as training cuts them

For each language, holes in real files: the cursor stands somewhere in a line of code, the rest of the
line is gone, and the file goes on below. The greedy answer (up to 24 tokens, cut at its first line
end) is held against the real rest. Two baselines stand beside it: the empty answer, and the rest of
the earlier line of the same file that agrees longest with what was typed.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch

import fim
from model import load_ours, load_reference

HERE = Path(__file__).resolve().parent
COMMENTS = ("//", "#", "*", "/*", '"""', "'''", "<!--")
PREFIX_TOKENS, SUFFIX_TOKENS, NEW_TOKENS = 700, 200, 24
HOLES_PER_FILE = 2


def holes(documents, language, count, seed=2026):
    """`count` holes as (document, start, end), at most two a file, spread over the packages in turn."""
    rng = random.Random(f"{seed} {language}")
    packages = {}
    for d in documents:
        if d["lang"] == language:
            packages.setdefault(d["package"], []).append(d)
    queues = []
    for name in sorted(packages):
        found = []
        for d in packages[name]:
            offset, places = 0, []
            for line in d["text"].split("\n"):
                body = line.strip()
                if len(body) >= 8 and len(line) <= 160 and not body.startswith(COMMENTS):
                    places.append((offset, line))
                offset += len(line) + 1
            for begin, line in rng.sample(places, min(HOLES_PER_FILE, len(places))):
                indent, end = len(line) - len(line.lstrip()), len(line.rstrip())
                column = rng.randint(indent + 1, end - 3)
                found.append((d, begin + column, begin + end))
        rng.shuffle(found)
        queues.append(found)
    rng.shuffle(queues)
    chosen = []
    while len(chosen) < count and any(queues):
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return chosen


def repeat_baseline(text, start):
    """The rest of the earlier line that shares the longest run of characters with the end of what was typed."""
    begin = text.rfind("\n", 0, start) + 1
    typed = text[begin:start].lstrip()
    best, answer = 0, ""
    for line in reversed(text[:begin].split("\n")):
        for length in range(len(typed), best, -1):
            at = line.find(typed[-length:])
            if at >= 0:
                best, answer = length, line[at + length:].rstrip()
                break
    return answer


def similarity(a, b):
    """1 - Levenshtein distance / the longer length."""
    if not a and not b:
        return 1.0
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return 1 - row[-1] / max(len(a), len(b))


def prompt_ids(tok, document, start, end, order):
    encode = lambda text: tok.encode(text, add_special_tokens=False).ids if text else []
    text = document["text"]
    head = encode(f"{fim.FILE_SEP}{document['path']}\n{fim.PRE}")
    prefix = encode(text[max(0, start - 6000):start])[-PREFIX_TOKENS:]
    suffix = encode(fim.SUF) + encode(text[end:end + 2000])[:SUFFIX_TOKENS]
    return head + (prefix + suffix + encode(fim.MID) if order == "psm" else suffix + encode(fim.MID) + prefix)


@torch.no_grad()
def answers(model, tok, prompts, batch=16):
    """Greedy continuations, cut at the first line end."""
    end_of_text = tok.token_to_id(fim.END)
    stops = [i for i in range(tok.get_vocab_size()) if "\n" in tok.decode([i])] + [end_of_text]
    out = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        longest = max(len(prompts[i]) for i in part)
        ids = torch.tensor([[end_of_text] * (longest - len(prompts[i])) + prompts[i] for i in part])
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in part])
        made = model.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False,
                              eos_token_id=stops, pad_token_id=end_of_text)
        for i, tokens in zip(part, made[:, longest:].tolist()):
            out[i] = tok.decode(tokens, skip_special_tokens=True).split("\n")[0].rstrip()
    return out


@torch.no_grad()
def losses(path, documents, count, length=512):
    """Cross-entropy in nats per token of all tokens, and of the holes' alone, in `count` examples."""
    model, tok = load_ours(path)
    stream = fim.Stream(documents, tok, 2026)
    sums, counts = [0.0, 0.0], [0, 0]
    for _ in range(count):
        ids, weights = map(torch.tensor, stream.row(length))
        _, each = model.loss(ids[None, :-1], ids[None, 1:], weights[None, 1:])
        for i, chosen in enumerate((weights[1:] > 0, weights[1:] > 1)):
            sums[i] += each[chosen].sum().item()
            counts[i] += int(chosen.sum())
    return sums[0] / counts[0], sums[1] / counts[1], counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--holes", type=int, default=500)
    parser.add_argument("--languages", default="rust,python,typescript")
    parser.add_argument("--gguf", type=Path, default=HERE / "tandem-mini.gguf")
    parser.add_argument("--order", choices=["spm", "psm"], default="spm", help="suffix or prefix first")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loss", type=int, default=0, help="print the loss of so many examples, and nothing else")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", type=int, default=0, help="print this many answers of each language")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with open(options.work / "data/heldout.jsonl") as lines:
        documents = [json.loads(line) for line in lines]
    if options.loss:
        everything, in_holes, counts = losses(options.gguf, documents, options.loss)
        print(f"{options.gguf.name}: {everything:.3f} nats a token of {counts[0]}, {in_holes:.3f} of the {counts[1]} in holes")
        return
    model, tok = load_reference(options.gguf)

    table = []
    for language in options.languages.split(","):
        began = time.time()
        places = holes(documents, language, options.holes)
        truth = [d["text"][start:end] for d, start, end in places]
        got = {
            "empty": [""] * len(places),
            "repeat the most similar earlier line": [repeat_baseline(d["text"], start) for d, start, _ in places],
            "tandem-mini": answers(model, tok, [prompt_ids(tok, *p, options.order) for p in places]),
        }
        for who, texts in got.items():
            table.append({
                "language": language, "holes": len(places), "packages": len({d["package"] for d, _, _ in places}), "who": who,
                "exact": sum(a == b for a, b in zip(texts, truth)) / len(places),
                "similarity": sum(map(similarity, texts, truth)) / len(places),
                "none": sum(not a for a in texts) / len(places)})
        for (d, start, _), real, answer in list(zip(places, truth, got["tandem-mini"]))[: options.show]:
            line = d["text"][d["text"].rfind("\n", 0, start) + 1:start].lstrip()
            print(f"  {'=' if real == answer else ' '} {line!r} -> {answer!r}  (real: {real!r})")
        print(f"{language}: {len(places)} holes, {time.time() - began:.0f} s", flush=True)

    print("\n| language | holes (packages) | who | exact rest of line | edit similarity | empty answers |\n|---|---|---|---|---|---|")
    for r in table:
        print(f"| {r['language']} | {r['holes']} ({r['packages']}) | {r['who']} | {r['exact']:.1%} | {r['similarity']:.3f} | {r['none']:.1%} |")
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
