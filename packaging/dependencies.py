#!/usr/bin/env python3
"""Lists the crates that are part of the provisioner and the handler: as a CycloneDX bill of materials, and with the texts
of their licences. The same sources give the same bytes: nothing depends on the time or the machine."""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLATFORMS = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"]
# The provisioner is first: it is the subject of the bill, and uploads the handler.
PROGRAMS = ["provisioner", "handler"]

TEXT = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)([-_.].*)?", re.IGNORECASE)
# Folders of a package that are not compiled into a program.
ASIDE = {"tests", "benches", "examples", "fuzz"}
# Texts of a choice that is not made: zstd is offered under the BSD licence or the GPL.
NOT_CHOSEN = {("zstd-sys", "zstd/COPYING")}

HEADING = """\
Licences of the crates that are part of provisioner and bootstrap {version}

Both programs also contain the standard library of Rust {rust} (MIT OR Apache-2.0), and parts of the runtimes of LLVM
(Apache-2.0 WITH LLVM-exception) and Zig (MIT). Each crate is listed with the numbers of the texts that its package
contains.
"""


class Crate:
    """A crate that is part of a program."""

    def __init__(self, package: dict, checksum: str | None):
        self.name: str = package["name"]
        self.version: str = package["version"]
        self.is_own = package["source"] is None
        self.checksum = checksum
        self.authors: list[str] = package["authors"]
        self.folder = pathlib.Path(package["manifest_path"]).parent
        # A slash is the form of an "or" in old manifests.
        self.licence = " OR ".join(part.strip() for part in (package["license"] or "").split("/") if part.strip())

    def ref(self) -> str:
        """Returns the crate's identity in the bill. Crates of this workspace are in no registry, and have no purl."""
        return f"{self.name}@{self.version}" if self.is_own else f"pkg:cargo/{self.name}@{self.version}"

    def component(self) -> dict:
        """Returns the crate's entry in the bill."""
        component = {
            "type": "application" if self.is_own and self.name in PROGRAMS else "library",
            "bom-ref": self.ref(),
            "name": self.name,
            "version": self.version,
        }
        if self.checksum:
            component["hashes"] = [{"alg": "SHA-256", "content": self.checksum}]
        component["licenses"] = [{"expression": self.licence}]
        if not self.is_own:
            component["purl"] = self.ref()
        return component

    def texts(self) -> list[str]:
        """Returns the texts of licences in the crate's package, in the order of their paths."""
        texts = []
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder)
            is_text = TEXT.fullmatch(path.name) and path.suffix not in {".rs", ".py", ".sh"} and path.is_file()
            if is_text and not ASIDE & set(inside.parts) and (self.name, inside.as_posix()) not in NOT_CHOSEN:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                texts.append("\n".join(line.rstrip() for line in lines).strip("\n"))
        return texts


def checksums() -> dict[tuple[str, str], str]:
    """Returns the digests of Cargo.lock by name and version of the crate."""
    found = {}
    for block in (ROOT / "Cargo.lock").read_text(encoding="utf-8").split("[[package]]")[1:]:
        fields = dict(re.findall(r'^(name|version|checksum) = "([^"]*)"$', block, re.MULTILINE))
        if "checksum" in fields:
            found[fields["name"], fields["version"]] = fields["checksum"]
    return found


def cargo(*args: str) -> str:
    """Runs cargo in this workspace and returns its output."""
    command = ["cargo", "--color", "never", args[0], "--locked", *args[1:]]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout


def parts() -> set[tuple[str, str]]:
    """Returns the names and versions of the crates of the programs, with the features with which these are built.
    Crates that only build or test them are left out."""
    args = ["--edges", "normal", "--prefix", "none", "--format", "{p}"]
    args += [arg for program in PROGRAMS for arg in ("--package", program)]
    args += [arg for platform in PLATFORMS for arg in ("--target", platform)]
    lines = [line.split() for line in cargo("tree", *args).splitlines()]
    return {(fields[0], fields[1].removeprefix("v")) for fields in lines if fields}


def read() -> tuple[list[Crate], dict[str, list[str]]]:
    """Returns the crates of the programs, and the crates that each of them depends on, all in one order."""
    args = [arg for platform in PLATFORMS for arg in ("--filter-platform", platform)]
    metadata = json.loads(cargo("metadata", "--format-version", "1", *args))
    wanted, digests = parts(), checksums()
    crates = {}
    for package in metadata["packages"]:
        identity = package["name"], package["version"]
        if identity in wanted:
            crates[package["id"]] = Crate(package, digests.get(identity))
    graph = {}
    for node in metadata["resolve"]["nodes"]:
        if node["id"] in crates:
            used = [dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
            graph[crates[node["id"]].ref()] = sorted({crates[id].ref() for id in used if id in crates})
    return sorted(crates.values(), key=Crate.ref), dict(sorted(graph.items()))


def mistakes(crates: list[Crate]) -> list[str]:
    """Returns what is missing in the data of the crates."""
    found = [f"{crate.name} {crate.version} has no licence expression" for crate in crates if not crate.licence]
    found += [f"{crate.name} {crate.version} has no digest" for crate in crates if not (crate.is_own or crate.checksum)]
    return found + [f"the program {name} was not found" for name in PROGRAMS if not any(c.name == name for c in crates)]


def rust() -> str:
    """Returns the version of the compiler and its standard library."""
    text = (ROOT / "rust-toolchain.toml").read_text(encoding="utf-8")
    return re.search(r'^channel = "(.*)"$', text, re.MULTILINE)[1]


def bill(crates: list[Crate], graph: dict[str, list[str]]) -> str:
    """Returns the bill of materials (CycloneDX 1.5)."""
    provisioner, handler = (next(c for c in crates if c.is_own and c.name == name) for name in PROGRAMS)
    standard_library = {
        "type": "library",
        "bom-ref": f"rust-std@{rust()}",
        "name": "rust-std",
        "version": rust(),
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
    }
    further = {
        provisioner.ref(): [handler.ref(), standard_library["bom-ref"]],
        handler.ref(): [standard_library["bom-ref"]],
    }
    uses = {ref: sorted(used + further.get(ref, [])) for ref, used in graph.items()} | {standard_library["bom-ref"]: []}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": provisioner.component()},
        "components": [crate.component() for crate in crates if crate is not provisioner] + [standard_library],
        "dependencies": [{"ref": ref, "dependsOn": used} for ref, used in uses.items()],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def licences(crates: list[Crate]) -> str:
    """Returns the list of the crates of others, and each text once."""
    texts: list[str] = []
    numbers: dict[str, int] = {}
    lines = [HEADING.format(version=next(c for c in crates if c.name == PROGRAMS[0]).version, rust=rust())]
    for crate in crates:
        if crate.is_own:
            continue
        own = []
        for text in crate.texts():
            # Texts that differ in their line breaks alone are one.
            key = " ".join(text.split())
            if key not in numbers:
                texts.append(text)
                numbers[key] = len(texts)
            own.append(str(numbers[key]))
        authors = f"; by {', '.join(crate.authors)}" if crate.authors else ""
        listed = ", ".join(dict.fromkeys(own)) or f"no text in the package{authors}"
        lines.append(f"{crate.name} {crate.version}  {crate.licence}  [{listed}]")
    for number, text in enumerate(texts, 1):
        lines += ["", "", f"---- [{number}] " + "-" * 100, "", text]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if data are missing")
    parser.add_argument("--bill", type=pathlib.Path, help="write the bill of materials to this file")
    parser.add_argument("--licences", type=pathlib.Path, help="write the licences to this file")
    args = parser.parse_args()
    crates, graph = read()
    if found := mistakes(crates):
        sys.exit("\n".join(f"error: {mistake}" for mistake in found))
    if args.bill and not args.check:
        args.bill.write_text(bill(crates, graph), encoding="utf-8")
    if args.licences and not args.check:
        args.licences.write_text(licences(crates), encoding="utf-8")


if __name__ == "__main__":
    main()
