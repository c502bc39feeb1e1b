#!/usr/bin/env python3
"""Checks that versions agree, and prints the changelog's section of a release.

Without an argument: README.md names the Rust of rust-toolchain.toml, and CHANGELOG.md has a section for what comes next.
With a tag such as v0.1.0: it is the version of Cargo.toml, and CHANGELOG.md has a dated section for it, which is printed.
"""

from __future__ import annotations

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def text(name: str) -> str:
    """Returns the text of a file of the project."""
    return (ROOT / name).read_text(encoding="utf-8")


def value(name: str, key: str) -> str:
    """Returns the value of the first line `key = "value"` of a file."""
    return re.search(rf'^{key} = "(.*)"', text(name), re.MULTILINE)[1]


def section(heading: str) -> str | None:
    """Returns the text below the heading of CHANGELOG.md that matches a pattern, or None."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text("CHANGELOG.md"), re.MULTILINE | re.DOTALL)
    return found and found[1].strip("\n") + "\n"


def check() -> None:
    """Exits with an error if the documents do not fit the sources."""
    if f"Rust {value('rust-toolchain.toml', 'channel')}" not in text("README.md"):
        sys.exit("error: README.md does not name the Rust of rust-toolchain.toml\nhelp: correct it in README.md")
    if section(r"\[Unreleased\]") is None:
        sys.exit("error: CHANGELOG.md has no section [Unreleased]\nhelp: add it above the newest release")


def notes(tag: str) -> str:
    """Returns the notes of a release, or exits with an error if the tag does not fit the sources."""
    version = value("Cargo.toml", "version")
    if tag != f"v{version}":
        sys.exit(f"error: the tag {tag} is not the version {version} of Cargo.toml\nhelp: tag v{version}")
    found = section(rf"\[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}")
    if found is None:
        sys.exit(
            f"error: CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD`\n"
            "help: move the entries of [Unreleased] into it"
        )
    return found


if __name__ == "__main__":
    check()
    if len(sys.argv) == 2:
        print(notes(sys.argv[1]), end="")
