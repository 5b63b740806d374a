"""The report: ``papers_figures/`` and README's numbers, made from the records that the notebooks' runs left.

    python -m textnorm_lib report mini            collect figures and tables, write manifest.json
    python -m textnorm_lib report mini --check    fail if one is missing, changed by hand or older than what made it

The default profile's files lie in ``papers_figures/`` itself, another profile's in a folder of its name in there.
Nothing else writes there. ``manifest.json`` says of each file what it was made from, down to the digests of the data.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from textnorm_lib.judging.paper_items import ROWS, judge_paper_items, tables_read
from textnorm_lib.study.config import DEFAULT_PROFILE, as_dict, load_profile
from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.study.printed import MAIN_TABLE, PAGES, Tables, as_csv, list_page, made_tables, untrue, updated
from textnorm_lib.study.run import records_folder, report_folder
from textnorm_lib.study.store import CHECKOUT, STEPS, digest, write_atomically

ITEMS = dict(sorted({**FIGURES, **TABLES}.items()))  # by number
RERUN = "run ./run_all.sh {profile} again"


def build(profile: str) -> dict[str, Any]:
    """Collect what the runs of this profile made, and return the manifest that says so.

    What a run could not attempt is marked so; a file of it from an earlier run stays.
    """
    resolved = as_dict(load_profile(profile))
    folder = report_folder(profile)
    entries = {name: entry for name, entry in _manifest(folder)["items"].items() if name in ITEMS}
    records = [json.loads(path.read_text()) for path in sorted(records_folder(profile).glob("*.json"))]
    if not records:
        raise StudyError(f"{records_folder(profile)}: no run has been recorded; {RERUN.format(profile=profile)}")
    for record in records:
        origin = {"notebook": record["notebook"], "profile": digest(record["profile"])}
        for name, made in _registered(record["made"]):
            entries[name] = {**made, **origin, **_description(name)}
            for file in made["files"]:
                write_atomically(folder / file, (records_folder(profile) / "files" / file).read_bytes())
        for name, reason in _registered(record["missing"]):
            earlier = {key: value for key, value in entries.get(name, {}).items() if key != "not_attempted"}
            if not all((folder / file).exists() for file in earlier.get("files", {})):
                earlier = {}
            entries[name] = {**origin, **earlier, **_description(name), "not_attempted": reason}
    manifest = {"profile": resolved, "items": {name: entries[name] for name in sorted(entries)}}
    for path in [*folder.glob("fig*_*.*"), *folder.glob("tab*_*.*")]:  # of items that are no longer registered
        if path.name not in _files(entries):
            path.unlink(missing_ok=True)
    write_atomically(folder / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    write_atomically(folder / "README.md", list_page(profile, manifest, folder).encode())
    if profile == DEFAULT_PROFILE:
        for page in PAGES:
            write_atomically(CHECKOUT / page, updated(CHECKOUT / page, manifest, folder).encode())
    return manifest


def check(profile: str) -> list[str]:
    """What is wrong with this profile's report, one line each; empty if all is well."""
    folder = report_folder(profile)
    entries = _manifest(folder)["items"]
    now = digest(as_dict(load_profile(profile)))
    rerun = RERUN.format(profile=profile)
    defects = []
    for name, item in ITEMS.items():
        entry = entries.get(name)
        if entry is None:
            defects.append(f"{name}: is missing from {folder / 'manifest.json'}; {rerun}")
        elif "not_attempted" not in entry:
            defects += [f"{name}: {what}; {rerun}" for what in _defects(folder, entry, item.source, now)]
    defects += [f"{name}: is no longer registered; {rerun}" for name in entries if name not in ITEMS]
    defects += [f"{path}: was changed since it was made; {rerun}" for path in _edited_pages(profile, folder)]
    defects += [f"{what}; {rerun}" for what in _outdated_items(profile, folder, entries)]
    if profile == DEFAULT_PROFILE:
        defects += _untrue_words(folder, entries)
    known = _files(entries) | {"manifest.json", "README.md"}
    for path in sorted(folder.glob("*")):
        if path.is_file() and path.name not in known:
            defects.append(f"{path}: was not made by a run; delete it, or register it")
    return defects


def _defects(folder: Path, entry: dict, source: str, profile: str) -> list[str]:
    """What is wrong with the files of one figure or table."""
    found = []
    for file, expected in entry["files"].items():
        path = folder / file
        if not path.exists():
            found.append(f"{file} is missing")
        elif digest(path.read_bytes()) != expected:
            found.append(f"{file} was changed since it was made")
    if entry["profile"] != profile:
        found.append("is older than the profile")
    if entry["source"] != source:
        found.append("is older than the code that draws it")
    for made_by in entry["steps"]:
        if getattr(STEPS.get(made_by["step"]), "version", None) != made_by["version"]:
            found.append(f"is older than the step {made_by['step']}")
    return found


def _edited_pages(profile: str, folder: Path) -> list[Path]:
    """The pages that are not what the manifest's items and the tables give."""
    if not (folder / "manifest.json").exists():
        return []
    manifest, page, found = _manifest(folder), folder / "README.md", []
    whole = all((folder / file).exists() for file in _files(manifest["items"]))
    if whole and (not page.exists() or page.read_text(encoding="utf-8") != list_page(profile, manifest, folder)):
        found.append(page)
    if profile == DEFAULT_PROFILE:
        pages = [CHECKOUT / page for page in PAGES]
        found += [path for path in pages if path.read_text(encoding="utf-8") != updated(path, manifest, folder)]
    return found


def _outdated_items(profile: str, folder: Path, entries: dict[str, dict]) -> list[str]:
    """Whether the table of the paper's items has other numbers than the tables that it was read from."""
    path, tables = folder / f"{MAIN_TABLE}.csv", made_tables(folder, {"items": entries})
    if MAIN_TABLE not in tables.names:
        return []
    read = Tables(folder, tuple(name for name in tables_read() if name in tables.names))
    now = as_csv(judge_paper_items(read, profile=profile, rows=ROWS))
    return [] if path.read_bytes() == now else [f"{MAIN_TABLE}: is older than the tables that it quotes"]


def _untrue_words(folder: Path, entries: dict[str, dict]) -> list[str]:
    """What README and the findings say and the tables do not."""
    tables = made_tables(folder, {"items": entries})
    texts = {page: (CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES}
    return [f"{page}: {what} is not so; say what is" for page, text in texts.items() for what in untrue(text, tables)]


def _registered(items: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a record says of items that are still registered."""
    return [(name, said) for name, said in items.items() if name in ITEMS]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        return {"items": {}}
    try:
        manifest = json.loads(path.read_text())
        if not all(isinstance(entry, dict) for entry in manifest["items"].values()):
            raise TypeError
        return manifest
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise StudyError(f"{path}: is not valid JSON of a report; delete it and run the study again") from None


def _description(name: str) -> dict[str, str | None]:
    item = ITEMS[name]
    return {"caption": item.caption, "paper_item": item.paper_item, "paper_value": item.paper_value}


def _files(entries: dict[str, dict]) -> set[str]:
    return {file for entry in entries.values() for file in entry.get("files", {})}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m textnorm_lib report", description="Collect or check the figures.")
    parser.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if anything is out of date")
    options = parser.parse_args(arguments)
    folder, defects = report_folder(options.profile), []
    try:
        if options.check:
            defects, entries = check(options.profile), _manifest(folder)["items"]
            made = sum("files" in entry for entry in entries.values())
            print("\n".join(defects) or f"report: {made} of {len(ITEMS)} figures and tables are there and up to date")
        else:
            entries = build(options.profile)["items"]
            made = sum("not_attempted" not in entry for entry in entries.values())
            print(f"report: {made} figures and tables in {folder}")
    except StudyError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    reasons = defaultdict(list)
    for name, entry in entries.items():
        if "not_attempted" in entry:
            reasons[entry["not_attempted"]].append(name)
    for reason, names in reasons.items():
        print(f"report: {len(names)} not attempted, because {reason}: {names[0]} to {names[-1]}")
    return bool(defects)
