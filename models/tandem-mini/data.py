"""The training data of tandem-mini: permissively licensed source from package registries.

`fetch` brings the packages named in sources.json with the registries' own clients (cargo, pip,
npm, apt-get). `collect` reads them, keeps the files that a person wrote, drops duplicates, holds
whole packages out, and writes train.jsonl and heldout.jsonl (one file of source a line: lang,
package, path, text) and data.json (every package with its version, licence and size).
"""

import gzip
import hashlib
import io
import json
import random
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent

LANGUAGES = {
    ".rs": "rust", ".py": "python", ".ts": "typescript", ".tsx": "typescript", ".mts": "typescript",
    ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript", ".jsx": "javascript",
    ".go": "go", ".c": "c", ".h": "c",
}
# Bytes kept of each language, and of one package, so that no single project teaches its own style.
LANGUAGE_BYTES = {"rust": 40e6, "python": 40e6, "typescript": 32e6, "javascript": 8e6, "go": 16e6, "c": 10e6}
# A further training that sees a few million tokens draws from less.
FURTHER_BYTES = {"rust": 14e6, "python": 20e6, "typescript": 14e6, "javascript": 3e6, "go": 10e6, "c": 5e6}
PACKAGE_BYTES = {"rust": 3.5e5, "python": 4.5e5, "typescript": 6e5, "javascript": 2.0e5, "go": 1.2e6, "c": 6e5}
# Declarations of operating systems and browsers by the thousand: written by generators, learnt by heart, of no use.
BINDINGS = re.compile(r"^(windows.*|winapi.*|winsafe|web-sys|js-sys|objc2.*|wasi.*|libc|linux-raw-sys|ndk.*|jni-sys|.*-sys|.*-bindings)$")
# One package in twelve is held out, by the hash of its name: later versions stay on their side.
HOLD_OUT_ONE_IN = 12
# Go has few packages, large ones: these are held out by name.
HELD_OUT_BY_NAME = {"golang-github-spf13-cobra-dev", "golang-github-gorilla-websocket-dev", "golang-github-rs-zerolog-dev",
                    "golang-github-gorilla-mux-dev", "golang-github-hashicorp-memberlist-dev"}
HELD_OUT_LANGUAGES = {"rust", "python", "typescript", "go"}

PERMISSIVE = re.compile(
    r"\b(MIT|Apache|BSD|ISC|Zlib|Unlicense|0BSD|CC0|BlueOak|Boost|BSL-1\.0|Expat|PSF|Python Software Foundation"
    r"|public[- ]domain|HPND|curl|Unicode|NCSA|X11|PostgreSQL)\b", re.I)
RESTRICTIVE = re.compile(r"\b(A?GPL|LGPL|MPL|Mozilla Public|EUPL|SSPL|CDDL|EPL|Eclipse|BUSL|Business Source|Commons Clause"
                         r"|GNU|Proprietary|Elastic|CC-BY-(SA|NC))", re.I)


def permissive(licence):
    """True when one of the licence's alternatives ("A OR B") is permissive and every part of it is."""
    if not licence:
        return False
    alternatives = re.split(r"\s+OR\s+|/", licence)
    return any(PERMISSIVE.search(a) and not RESTRICTIVE.search(a) for a in alternatives)


# ---------------------------------------------------------------- fetch

def fetch(raw: Path):
    """Brings the packages of sources.json under `raw`; what a registry refuses is left out."""
    sources = {k: v.split() for k, v in json.loads((HERE / "sources.json").read_text()).items()}
    for part in ("rust/p/src", "python", "npm", "go", "c"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    (raw / "rust/p/src/lib.rs").write_text("")
    (raw / "rust/p/Cargo.toml").write_text(
        '[package]\nname="p"\nversion="0.1.0"\nedition="2021"\n[workspace]\n[dependencies]\n'
        + "".join(f'{name}="*"\n' for name in sources["rust"]))

    def run(folder, *command):
        subprocess.run(command, cwd=raw / folder, stdout=subprocess.DEVNULL, check=False)

    run("rust/p", "cargo", "vendor", "-q", "../vendor")
    for name in sources["python"]:
        run("python", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", ".", name)
    for name in sources["npm"]:
        run("npm", "npm", "pack", "--ignore-scripts", "--silent", name)
    for name in sources["debian_go"]:
        run("go", "apt-get", "-qq", "download", name)
    for name in sources["debian_c"]:
        run("c", "apt-get", "-qq", "source", "--download-only", name)


# ---------------------------------------------------------------- packages: (name, version, licence, [(path, bytes)])

def rust_packages(raw):
    for folder in sorted((raw / "rust/vendor").iterdir()):
        manifest = folder / "Cargo.toml"
        if not manifest.exists():
            continue
        text = manifest.read_text(errors="replace")
        find = lambda key: (re.search(rf'^{key}\s*=\s*"([^"]*)"', text, re.M) or [None, ""])[1]
        files = ((str(p.relative_to(folder)), p.read_bytes()) for p in sorted(folder.rglob("*.rs")))
        yield find("name"), find("version"), find("license"), files


def python_packages(raw):
    for wheel in sorted((raw / "python").glob("*.whl")):
        archive = zipfile.ZipFile(wheel)
        metadata = next((n for n in archive.namelist() if n.endswith(".dist-info/METADATA")), None)
        head = archive.read(metadata).decode(errors="replace").split("\n\n")[0] if metadata else ""
        expression = re.search(r"^License-Expression: (.*)$", head, re.M)
        classifiers = re.findall(r"^Classifier: License :: (.*)$", head, re.M)
        plain = re.search(r"^License: (.{1,80})$", head, re.M)
        if expression:
            licence = expression[1]
        elif classifiers:
            licence = "; ".join(c.replace("OSI Approved :: ", "") for c in classifiers)
        else:
            licence = plain[1] if plain else ""
        name, version = wheel.name.split("-")[:2]
        yield name, version, licence, ((n, archive.read(n)) for n in sorted(archive.namelist()) if n.endswith(".py"))


def npm_packages(raw):
    for tarball in sorted((raw / "npm").glob("*.tgz")):
        try:  # unpacked in memory: reading a compressed archive out of order is quadratic
            archive = tarfile.open(fileobj=io.BytesIO(gzip.decompress(tarball.read_bytes())))
            members = {m.name.partition("/")[2]: m for m in archive if m.isfile()}
        except (tarfile.TarError, EOFError, OSError):
            continue
        read = lambda name: archive.extractfile(members[name]).read()
        try:
            manifest = json.loads(read("package.json"))
        except (KeyError, ValueError):
            continue
        licence = manifest.get("license") or ""
        licence = licence.get("type", "") if isinstance(licence, dict) else str(licence)

        def files():
            seen = set()
            for name in sorted(members):
                if Path(name).suffix in LANGUAGES and not name.endswith((".d.ts", ".d.mts")):
                    yield name, read(name)
                elif name.endswith(".map"):
                    # A source map often carries the TypeScript that the package was compiled from.
                    try:
                        sourcemap = json.loads(read(name))
                        pairs = list(zip(sourcemap.get("sources") or [], sourcemap.get("sourcesContent") or []))
                    except (ValueError, AttributeError):
                        continue
                    for source, text in pairs:
                        source = re.sub(r"^(\.\./|\./|webpack://|/)+", "", str(source))
                        if text and source.endswith((".ts", ".tsx")) and "node_modules" not in source and source not in seen:
                            seen.add(source)
                            yield source, text.encode(errors="replace")

        yield manifest["name"], manifest.get("version", ""), licence, files()


def debian_licence(text):
    """The licences that a machine-readable Debian copyright file declares for `Files: *`."""
    paragraphs = text.split("\n\n")
    for paragraph in paragraphs:
        if re.search(r"^Files:\s*\*", paragraph, re.M):
            found = re.search(r"^License:\s*(.+)$", paragraph, re.M)
            if found:
                return found[1].strip()
    found = re.search(r"^License:\s*(.+)$", text, re.M)
    return found[1].strip() if found else ""


def go_packages(raw):
    for deb in sorted((raw / "go").glob("*.deb")):
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], capture_output=True, check=True).stdout
        archive = tarfile.open(fileobj=io.BytesIO(data))
        files, licence = [], ""
        for member in archive:
            if not member.isfile():
                continue
            if member.name.endswith("/copyright"):
                licence = debian_licence(archive.extractfile(member).read().decode(errors="replace"))
            elif member.name.endswith(".go"):
                path = re.sub(r"^\./usr/share/(gocode/src|go-[\d.]+/src)/", "", member.name)
                files.append((path, archive.extractfile(member).read()))
        name, version = deb.name.split("_")[:2]
        yield name, version, licence, files


def c_packages(raw):
    for dsc in sorted((raw / "c").glob("*.dsc")):
        name, version = dsc.stem.split("_")[:2]
        stem = f"{name}_{version.rsplit('-', 1)[0]}"
        origin = next((p for p in (raw / "c").glob("*.orig.tar.*") if p.name.startswith(stem) and p.suffix != ".asc"), None)
        debian = next((p for p in (raw / "c").glob("*.debian.tar.*") if p.name.startswith(stem)), None)
        if not origin or not debian:
            continue
        packaging = tarfile.open(debian)
        notice = [m for m in packaging if m.name.endswith("debian/copyright")]
        licence = debian_licence(packaging.extractfile(notice[0]).read().decode(errors="replace")) if notice else ""
        archive = tarfile.open(origin)
        files = ((m.name.partition("/")[2], archive.extractfile(m).read())
                 for m in archive if m.isfile() and m.name.endswith((".c", ".h")))
        yield name, version, licence, files


# ---------------------------------------------------------------- filters

GENERATED = re.compile(r"@generated|do not edit|auto-?generated|automatically generated|generated by|sourceMappingURL", re.I)
UNWANTED = re.compile(r"(^|/)(node_modules|vendor|third_party|thirdparty|_vendor|_vendored|dist|bundle|cdn|umd|min|locales?|i18n|"
                      r"fixtures|testdata|golden|snapshots|unicode_tables|tables|bindings)(/|$)|\.min\.|\.d\.ts$|_pb2|\.pb\.go|zz_generated", re.I)


def clean(lang, path, data):
    """The file's text, or None when it is generated, minified, too big or too small, or not UTF-8."""
    if not 200 <= len(data) <= 120_000:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if "\0" in text or "<|" in text or UNWANTED.search(path) or GENERATED.search(text[:1500]):
        return None
    text = text.lstrip("\ufeff").replace("\r\n", "\n")
    lines = text.split("\n")
    longest = max(map(len, lines))
    if longest > 400 or len(text) / len(lines) > 70 or len(lines) < 8:
        return None
    letters = sum(c.isalpha() for c in text) / len(text)
    if letters < 0.35 or sum(ord(c) > 127 for c in text) / len(text) > 0.05:
        return None
    digits = sum(c.isdigit() for c in text) / len(text)
    return text if digits < 0.15 else None


def drop_licence_header(text):
    """Leading licence comments teach nothing that a completion needs."""
    match = re.match(r"\s*((/\*.*?\*/\s*)|((//|#)[^\n]*\n)+\s*)", text, re.S)
    if match and re.search(r"copyright|licen[sc]e|SPDX", match[0], re.I) and not re.search(r"#!\[|#include|#if", match[0]):
        return text[match.end():].lstrip("\n")
    return text


def line_keys(text):
    """Hashes of the lines long enough to be telling."""
    return {hash(line.strip()) for line in text.split("\n") if len(line.strip()) >= 25}


def held_out(name):
    if name in HELD_OUT_BY_NAME:
        return True
    return int(hashlib.sha256(name.lower().encode()).hexdigest(), 16) % HOLD_OUT_ONE_IN == 0


def write_manifest(data):
    """data.json, a package a line."""
    def listed(value):
        if isinstance(value, list):
            return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n]"
        if "packages" in value:
            return "{" + ", ".join(f"{json.dumps(k)}: {listed(v)}" for k, v in value.items()) + "}"
        return json.dumps(value)

    parts = ",\n ".join(f"{json.dumps(k)}: {listed(v)}" for k, v in data.items())
    (HERE / "data.json").write_text("{" + parts + "}\n")


def collect(raw: Path, out: Path, further=False):
    """Writes train.jsonl and heldout.jsonl under `out` and data.json beside this file.

    With `further` it is the data of a model's further training: less of it, listed in data.json
    beside what the model saw before.
    """
    language_bytes = FURTHER_BYTES if further else LANGUAGE_BYTES
    groups = {True: [], False: []}
    manifest, refused = [], []
    readers = {"crates.io": rust_packages, "pypi": python_packages, "npm": npm_packages, "debian (go)": go_packages, "debian (c)": c_packages}
    for registry, reader in readers.items():
        for name, version, licence, files in reader(raw):
            if BINDINGS.match(name):
                continue
            if not permissive(licence):
                refused.append(f"{name} {version}: {licence}")
                continue
            kept = []
            for path, data in files:
                lang = LANGUAGES[Path(path).suffix]
                text = clean(lang, path, data)
                if text is not None:
                    text = drop_licence_header(text)
                    if len(text) > 200:
                        kept.append({"lang": lang, "package": name, "path": path, "text": text})
            if not kept:
                continue
            main = max({d["lang"] for d in kept}, key=lambda l: sum(len(d["text"]) for d in kept if d["lang"] == l))
            apart = main in HELD_OUT_LANGUAGES and held_out(name)
            # Where TypeScript sources are there, the JavaScript is what it was compiled to.
            if main == "typescript" or sum(d["lang"] == "typescript" for d in kept) > 5:
                kept = [d for d in kept if d["lang"] != "javascript"]
            random.Random(name).shuffle(kept)
            used, chosen = {}, []
            for d in kept:
                used[d["lang"]] = used.get(d["lang"], 0) + len(d["text"])
                if used[d["lang"]] <= PACKAGE_BYTES[d["lang"]]:
                    chosen.append(d)
            groups[apart].append(chosen)
            manifest.append({"registry": registry, "name": name, "version": version, "licence": licence, "held_out": apart,
                             "files": 0, "bytes": 0})
        print(registry, len(manifest), "packages", len(refused), "refused", flush=True)

    entries = {m["name"]: m for m in manifest}
    seen_lines, held_lines = set(), set()
    totals = {}
    out.mkdir(parents=True, exist_ok=True)
    for apart in (True, False):
        packages = groups[apart]
        random.Random(1).shuffle(packages)
        with open(out / ("heldout.jsonl" if apart else "train.jsonl"), "w") as sink:
            for chosen in packages:
                for d in chosen:
                    size, key = len(d["text"]), ("held out " if apart else "") + d["lang"]
                    if not apart and totals.get(key, 0) + size > language_bytes[d["lang"]]:
                        continue
                    lines = line_keys(d["text"])
                    if not lines or len(lines & seen_lines) > 0.5 * len(lines):
                        continue
                    if not apart and len(lines & held_lines) > 0.25 * len(lines):
                        continue
                    seen_lines |= lines
                    if apart:
                        held_lines |= lines
                    totals[key] = totals.get(key, 0) + size
                    entry = entries[d["package"]]
                    entry["files"] += 1
                    entry["bytes"] += size
                    sink.write(json.dumps(d) + "\n")
    manifest = sorted((m for m in manifest if m["files"]), key=lambda m: (m["registry"], m["name"]))
    data = json.loads((HERE / "data.json").read_text()) if further else {}
    if further:
        # What is held out stays so, and is listed once.
        data["further_training"] = {"bytes": {k: v for k, v in totals.items() if not k.startswith("held out")},
                                    "packages": [m for m in manifest if not m["held_out"]]}
    else:
        data = {"bytes": totals, "packages": manifest}
    write_manifest(data)
    (out / "refused.txt").write_text("\n".join(refused))
    print(json.dumps(totals, indent=1))
