"""Trains tandem-mini. Subcommands, in the order of a fresh training (WORK is any scratch folder):

    pip install torch transformers tokenizers safetensors gguf numpy
    train.py fetch     WORK   brings the packages of sources.json (cargo, npm, pip and apt-get must answer)
    train.py prepare   WORK   filters them into WORK/data/{train,heldout}.jsonl and writes data.json
    train.py tokenizer WORK   trains the byte-level BPE on a sample: WORK/tokenizer.json
    train.py train     WORK   trains for --minutes; resumes from WORK/checkpoint.pt if it is there
    train.py train     WORK --from FILE.gguf   goes on from a file's weights, with its tokenizer and a new optimizer
    train.py export    WORK   writes tandem-mini.gguf, checks it against transformers, writes golden.json
"""

import argparse
import json
import os
import random
import signal
import time
from pathlib import Path

import torch

import data
import fim
from model import SPECIAL, Config, Model, config_dict, load_ours, load_reference, train_tokenizer, write_gguf

HERE = Path(__file__).resolve().parent
GGUF = HERE / "tandem-mini.gguf"


def documents(path):
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def load_tokenizer(work):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(work / "tokenizer.json"))


def tokenizer(work, options):
    rng = random.Random(0)
    docs = documents(work / "data/train.jsonl")
    rng.shuffle(docs)
    budget = {l: s * options.tokenizer_bytes for l, s in fim.Stream.SHARES.items()}
    texts = []
    for d in docs:
        if budget[d["lang"]] > 0:
            budget[d["lang"]] -= len(d["text"])
            texts.append(d["text"])
    trained = train_tokenizer(texts, options.vocabulary, work / "tokenizer.json")
    sample = "\n".join(d["text"] for d in docs[-300:])
    print(f"{trained.get_vocab_size()} tokens, {len(sample.encode()) / len(trained.encode(sample).ids):.2f} bytes per token")


# ---------------------------------------------------------------- optimizers

def orthogonal(g, steps=5):
    """The nearest (semi-)orthogonal matrix, by the quintic Newton-Schulz iteration of Muon (K. Jordan, 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        s = x @ x.mT
        x = a * x + (b * s + c * s @ s) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalized; for the hidden matrices, grouped by shape."""

    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.0, arithmetic=torch.bfloat16):
        self.arithmetic = arithmetic
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                shapes.setdefault(p.shape, []).append((p, p.grad.lerp(state["momentum"], group["momentum"])))
            for shape, pairs in shapes.items():
                updates = orthogonal(torch.stack([u for _, u in pairs]).to(self.arithmetic)).float()
                scale = max(1, shape[0] / shape[1]) ** 0.5
                for (p, _), update in zip(pairs, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


# ---------------------------------------------------------------- training

def schedule(done, step, decay):
    """The learning rate's factor: warm-up by steps, then flat, then a fall to nearly nothing over the last `decay` of the time."""
    warm = min(1.0, (step + 1) / 60)
    return warm * (1.0 if done < 1 - decay else max(0.01, (1 - done) / decay))


def flat_views(model, flat):
    """Views of one flat tensor in the shapes of the model's parameters."""
    views, at = [], 0
    for p in model.parameters():
        views.append(flat[at:at + p.numel()].view(p.shape))
        at += p.numel()
    return views


def worker(index, model, flat, jobs, results, work, options, first_step):
    """Adds the gradients of one row (or of four quarters) after another to `flat`, which the main process reads between steps.

    One thread each: with shared cores, a thread pool waits at every operation for the thread that
    was put to sleep; workers wait for each other once a step.
    """
    torch.set_num_threads(1)
    for p, view in zip(model.parameters(), flat_views(model, flat)):
        p.grad = view
    stream = fim.Stream(documents(work / "data/train.jsonl"), load_tokenizer(work), hash((options.seed, index, first_step)))
    loss_of = torch.compile(model.loss, dynamic=False) if options.compile else model.loss
    while length := jobs.get():
        ids, weights = map(torch.tensor, zip(*(stream.row(length) for _ in range(model.c.context // length))))
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            loss, each = loss_of(ids[:, :-1], ids[:, 1:], weights[:, 1:])
        loss.backward()
        hole = each[weights[:, 1:].reshape(-1) > 1]
        results.put((each.mean().item(), hole.sum().item(), len(hole)))


def train(work, options):
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    if options.origin:
        model, tok = load_ours(options.origin)
        model.train()
        config = model.c
        tok.save(str(work / "tokenizer.json"))
    else:
        tok = load_tokenizer(work)
        config = Config(vocabulary=tok.get_vocab_size(), **json.loads(options.config))
        model = Model(config)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embedding" in n]
    optimizers = [Muon(matrices, options.muon_lr, weight_decay=0.02, arithmetic=torch.bfloat16 if options.bf16 else torch.float32),
                  torch.optim.AdamW(rest, options.adam_lr, betas=(0.9, 0.97), weight_decay=0.0, fused=True)]
    base = [g["lr"] for o in optimizers for g in o.param_groups]
    step, seen, spent = 0, 0, 0.0
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        step, seen, spent = saved["step"], saved["seen"], saved["spent"]
        print(f"resumed at step {step}, {seen / 1e6:.2f} M tokens, {spent / 60:.1f} minutes", flush=True)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size / 1e6:.3f} M parameters, {sum(p.numel() for p in matrices) / 1e6:.3f} M in matrices", flush=True)

    def save():
        torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step,
                    "seen": seen, "spent": spent, "config": config_dict(config)}, checkpoint.with_suffix(".tmp"))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)

    model.share_memory()
    spawn = torch.multiprocessing.get_context("spawn")
    jobs, results = spawn.SimpleQueue(), spawn.SimpleQueue()
    flats = [torch.zeros(size).share_memory_() for _ in range(options.workers)]
    workers = [spawn.Process(target=worker, args=(i, model, flat, jobs, results, work, options, step), daemon=True)
               for i, flat in enumerate(flats)]
    for process in workers:
        process.start()

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    budget = options.minutes * 60
    mean, hole_mean, last = None, None, time.time()
    while spent < budget and not stop and step < options.steps:
        began = time.time()
        for _ in range(options.rows):
            long = spent / budget >= options.long_from and random.random() < 0.4
            jobs.put(config.context if long else config.context // 4)
        rows = [results.get() for _ in range(options.rows)]
        computed = time.time()
        gradient = sum(flats[1:], flats[0]) / options.rows
        for flat in flats:
            flat.zero_()
        for p, g in zip(model.parameters(), flat_views(model, gradient)):
            p.grad = g
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = schedule(spent / budget, step, options.decay)
        for group, lr in zip((g for o in optimizers for g in o.param_groups), base):
            group["lr"] = lr * factor
        for optimizer in optimizers:
            optimizer.step()
        step, seen = step + 1, seen + options.rows * config.context
        took = time.time() - began
        # The first steps compile; a budget of minutes is of training.
        spent += min(took, 30.0) if options.compile else took
        loss = sum(r[0] for r in rows) / options.rows
        hole = sum(r[1] for r in rows) / max(1, sum(r[2] for r in rows))
        mean = loss if mean is None else 0.95 * mean + 0.05 * loss
        hole_mean = hole if hole_mean is None else 0.95 * hole_mean + 0.05 * hole
        if step % 10 == 0:
            print(json.dumps({"step": step, "tokens": seen, "minutes": round(spent / 60, 2), "loss": round(mean, 4),
                              "hole": round(hole_mean, 4), "lr": round(factor, 3), "update_s": round(took + began - computed, 2),
                              "tokens_per_s": round(options.rows * config.context / took)}), flush=True)
        if time.time() - last > 180:
            save()
            last = time.time()
    save()
    for _ in workers:
        jobs.put(0)
    for process in workers:
        process.join()
    print(f"ended at step {step}, {seen / 1e6:.2f} M tokens, {spent / 60:.1f} minutes", flush=True)


# ---------------------------------------------------------------- export

GOLDEN = [
    ("rust", "src/stack.rs",
     "use std::collections::HashMap;\n\npub struct Stack<T> {\n    items: Vec<T>,\n}\n\nimpl<T> Stack<T> {\n"
     "    pub fn new() -> Self {\n        Stack { items: Vec::new() }\n    }\n\n    pub fn len(&self) -> usize {\n        self.",
     "\n    }\n\n    pub fn is_empty(&self) -> bool {\n        self.items.is_empty()\n    }\n}\n"),
    ("python", "shapes.py",
     "import math\n\n\nclass Circle:\n    def __init__(self, radius):\n        self.radius = radius\n\n"
     "    def area(self):\n        return ", "\n\n    def perimeter(self):\n        return 2 * math.pi * self.radius\n"),
    ("typescript", "src/queue.ts",
     "export class Queue<T> {\n  private items: T[] = [];\n\n  push(item: T): void {\n    this.items.",
     "\n  }\n\n  get size(): number {\n    return this.items.length;\n  }\n}\n"),
    ("python, no suffix, no path", None, "def read_lines(path):\n    with open(path) as f:\n        for line in f:", ""),
]


def golden():
    """Writes golden.json: prompts with the greedy tokens and first logits of the file's dequantized weights."""
    torch.set_num_threads(2)
    reference, tok = load_reference(GGUF)
    cases = []
    for name, path, prefix, suffix in GOLDEN:
        prompt = fim.render(prefix, suffix, path)
        ids = tok.encode(prompt, add_special_tokens=False).ids
        answer, first = [], None
        with torch.no_grad():
            while len(answer) < 24:
                logits = reference(torch.tensor([ids + answer])).logits[0, -1]
                first = logits if first is None else first
                answer.append(int(logits.argmax()))
                if answer[-1] == tok.token_to_id(fim.END):
                    break
        top = first.topk(5)
        cases.append({"name": name, "order": "spm", "path": path, "prefix": prefix, "suffix": suffix, "prompt": prompt, "prompt_ids": ids,
                      "greedy_ids": answer, "greedy_text": tok.decode(answer, skip_special_tokens=True),
                      "first_top5": [[int(i), round(float(v), 4)] for v, i in zip(top.values, top.indices)]})
        print(f"{name}: {cases[-1]['greedy_text']!r}")
    (HERE / "golden.json").write_text(json.dumps({"model": "tandem-mini", "cases": cases}, indent=1, ensure_ascii=False) + "\n")


def export(work, options):
    saved = torch.load(work / "checkpoint.pt", weights_only=True)
    model = Model(Config(**saved["config"]))
    model.load_state_dict(saved["model"])
    write_gguf(GGUF, model, load_tokenizer(work))
    print(f"{GGUF.name}: {GGUF.stat().st_size} bytes, step {saved['step']}, {saved['seen'] / 1e6:.2f} M tokens, "
          f"{saved['spent'] / 60:.1f} minutes")
    check(work)
    golden()


def check(work):
    """The file's weights in transformers give our model's logits, and its tokenizer gives our tokens."""
    ours, tok = load_ours(GGUF)
    reference, _ = load_reference(GGUF)
    text = "".join(d["text"] for d in documents(work / "data/heldout.jsonl")[:3])[:2500]
    ids = tok.encode(text, add_special_tokens=False).ids
    assert ids == load_tokenizer(work).encode(text, add_special_tokens=False).ids
    assert [tok.token_to_id(s) for s in SPECIAL] == list(range(ours.c.vocabulary - len(SPECIAL), ours.c.vocabulary))
    with torch.no_grad():
        batch = torch.tensor([ids[:512]])
        difference = (ours(batch) - reference(batch).logits).abs().max().item()
    print(f"largest difference from transformers: {difference:.2e}")
    assert difference < 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["fetch", "prepare", "tokenizer", "train", "export", "golden"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--further", action="store_true", help="prepare: less data, for the training of a model that is there")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--tokenizer-bytes", type=float, default=24e6)
    parser.add_argument("--from", dest="origin", type=Path, help="a GGUF of ours whose weights training starts from")
    parser.add_argument("--config", default="{}", help="JSON of Config fields that differ from the defaults")
    parser.add_argument("--minutes", type=float, default=90, help="training time, earlier runs counted in")
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--rows", type=int, default=4, help="rows of the full context a step")
    parser.add_argument("--long-from", type=float, default=0.6, help="share of the time after which 4 rows in 10 are not cut in four")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--decay", type=float, default=0.33, help="share of the time in which the learning rate falls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    work = options.work
    match options.command:
        case "fetch":
            data.fetch(work / "raw")
        case "prepare":
            data.collect(work / "raw", work / "data", options.further)
        case "tokenizer":
            tokenizer(work, options)
        case "train":
            train(work, options)
        case "export":
            export(work, options)
        case "golden":
            golden()


if __name__ == "__main__":
    main()
