"""``python -m servery_common.schemas [--check] [ROOT]``: write the documents, or say which are out of date."""

import argparse
import sys
from pathlib import Path

from servery_common.schemas import SCHEMAS, documents


def main() -> int:
    """Return the exit code: 1 when ``--check`` found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail on differences")
    parser.add_argument("root", type=Path, nargs="?", default=Path(), help="root of the repository")
    arguments = parser.parse_args()
    outdated = differences(arguments.root)
    if arguments.check:
        for path in outdated:
            sys.stderr.write(f"{path} is out of date: run `python -m servery_common.schemas`\n")
        return 1 if outdated else 0
    for path, text in outdated.items():
        target = arguments.root / path
        if text is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
    return 0


def differences(root: Path) -> dict[str, str | None]:
    """Return the documents that are not as they should be, with their text; None for one that should not be."""
    wanted = documents()
    found: dict[str, str | None] = {
        path: text
        for path, text in wanted.items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    }
    for file in sorted((root / SCHEMAS).glob("*.json")):
        path = f"{SCHEMAS}/{file.name}"
        if path not in wanted:
            found[path] = None
    return found


if __name__ == "__main__":
    sys.exit(main())
