"""The software bill of materials as CycloneDX JSON: the package, what it needs, what it fetches.

    python recipes/reliability/sbom.py > sbom.json
    python recipes/reliability/sbom.py --licenses

Read from this environment: every distribution that the package needs, extras included, with its
version and licence, and every wheel that is fetched at run time, with the SHA-256 it is pinned to.
`--licenses` prints a table instead. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import json
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

from packaging.requirements import Requirement

from mixup_hf import __version__
from mixup_hf.data.embedded import EMBEDDED

NAME = "mixup-hf"


def main() -> None:
    """Print the bill of materials, or the licences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--licenses", action="store_true", help="a Markdown table of licences")
    options = parser.parse_args()
    parts = [*installed(), *fetched()]
    if options.licenses:
        print("| what | version | licence |\n|---|---|---|")
        for part in parts:
            print(f"| {part['name']} | {part['version']} | {_named(part)} |")
        return
    print(json.dumps(bill(parts), indent=2))


def bill(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The document, CycloneDX 1.6."""
    own = {
        "type": "library",
        "name": NAME,
        "version": __version__,
        "licenses": _licence("Apache-2.0"),
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": parts,
    }


def installed() -> list[dict[str, Any]]:
    """The distributions of this environment that the package needs, directly or not."""
    found: dict[str, Distribution] = {}
    waiting = [(NAME, ("all",))]
    while waiting:
        name, extras = waiting.pop()
        try:
            here = distribution(name)
        except PackageNotFoundError:  # of an extra that is not installed
            continue
        known = name in found
        found[name] = here
        if known and not extras:
            continue
        for line in here.requires or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            following = _normal(needed.name)
            if following not in found or needed.extras:
                waiting.append((following, tuple(needed.extras)))
    del found[NAME]
    return [_component(name, found[name]) for name in sorted(found)]


def fetched() -> list[dict[str, Any]]:
    """The wheels that are fetched on first use, each pinned by its content."""
    parts = []
    for name, source in sorted(EMBEDDED.items()):
        package, _, version = source.wheel.requirement.partition("==")
        parts.append(
            {
                "type": "data" if name == "bbc_headlines" else "machine-learning-model",
                "name": f"{package} ({name})",
                "version": version,
                "purl": f"pkg:pypi/{_normal(package)}@{version}",
                "hashes": [{"alg": "SHA-256", "content": source.wheel.sha256}],
                "licenses": _licence(source.license),
            }
        )
    return parts


def _component(name: str, here: Distribution) -> dict[str, Any]:
    fields = here.metadata
    licence = fields.get("License-Expression") or fields.get("License") or ""
    if not licence or len(licence) > 80:  # some put the whole text there
        classified = [each for each in fields.get_all("Classifier") or () if "License ::" in each]
        licence = ", ".join(each.rpartition(" :: ")[2] for each in classified) or licence[:80]
    return {
        "type": "library",
        "name": name,
        "version": here.version,
        "purl": f"pkg:pypi/{name}@{here.version}",
        "licenses": _licence(" ".join(licence.split()) or "not stated"),
    }


def _licence(name: str) -> list[dict[str, Any]]:
    return [{"license": {"name": name}}]


def _named(part: dict[str, Any]) -> str:
    return ", ".join(each["license"]["name"] for each in part["licenses"])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
