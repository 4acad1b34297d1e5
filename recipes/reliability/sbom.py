"""The software bill of materials as CycloneDX JSON: the package, what it needs, what it fetches.

    python recipes/reliability/sbom.py > sbom.json
    python recipes/reliability/sbom.py --licenses
    python recipes/reliability/sbom.py --audit

Read from this environment: every distribution that the package needs, extras included, with its
version and licence, and every wheel that is fetched at run time, with the SHA-256 it is pinned to.
`--licenses` prints a table instead. `--audit` asks a database, through `pip-audit`, for known
vulnerabilities of what is installed; the rest asks no network.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
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
    parser.add_argument("--audit", action="store_true", help="known vulnerabilities")
    options = parser.parse_args()
    if options.audit:
        sys.exit(audit())
    parts = [*installed(), *fetched()]
    if options.licenses:
        print("| what | version | licence |\n|---|---|---|")
        for part in parts:
            print(f"| {part['name']} | {part['version']} | {_named(part)} |")
        return
    print(json.dumps(bill(parts), indent=2))


def audit() -> int:
    """Print the known vulnerabilities of what is installed; 1 if there are any, else 0."""
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "10"]
    asked = subprocess.run(command, capture_output=True, text=True)
    try:
        answers = json.loads(asked.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"Vulnerabilities are not known: pip-audit could not be asked ({last}).")
        return 0
    lines, known = audited(answers)
    print("\n".join(lines))
    return 1 if known else 0


def audited(answers: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What pip-audit found as lines, and how many packages have a known vulnerability.

    A package that could not be looked up counts as neither sound nor vulnerable.
    """
    looked_up = [each for each in answers if "vulns" in each]
    bad = [each for each in looked_up if each["vulns"]]
    lines = [
        f"{each['name']} {each['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no version yet'}"
        for each in bad
        for found in each["vulns"]
    ]
    unknown = len(answers) - len(looked_up)
    lines.append(
        f"{len(bad)} of {len(looked_up)} packages have a known vulnerability; "
        f"{unknown} could not be looked up."
    )
    return lines, len(bad)


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
