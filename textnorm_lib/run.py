"""A notebook's run: its profile, its cached steps, its figures and tables, and the record that the report is made from.

    run = start_run("02_benchmark_rewards", profile="mini")
    table = run.step(summarise, per_prompt, resamples=run.profile.bootstrap.resamples)
    run.table("tab04_metric_comparison", table)
    run.finish()

A cell whose first line is ``# needs: tia2`` runs only where that resource can be had; elsewhere it says that it was not
attempted, and why, and the rest of the notebook still runs. A cell may need several: ``# needs: tia2 labels``.

tia2        the release                      prompts     those of the profile, which may be the release's
annotators  networks that vote on any image  labels      votes on the benchmark, of annotators or of people
"""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.display import Image, display

from textnorm_lib.cited import Tables
from textnorm_lib.config import DEFAULT_PROFILE, Profile, as_dict, load_profile
from textnorm_lib.errors import StudyError
from textnorm_lib.figures import FIGURES
from textnorm_lib.figures.style import as_csv, as_markdown, as_tex, house_style, render, settle, stamp, thumbnail
from textnorm_lib.items import Item
from textnorm_lib.store import Artifact, Keyed, Store, artifacts_folder, digest, write_atomically
from textnorm_lib.tables import TABLES
from textnorm_lib.tia2.official import release_available

ITEMS: dict[str, Item] = dict(sorted({**FIGURES, **TABLES}.items()))  # by number


def records_folder(profile: str) -> Path:
    """One JSON record a notebook, and the files of its figures and tables."""
    return artifacts_folder() / "runs" / profile


def _prompts(profile: Profile) -> tuple[bool, str]:
    return release_available() if profile.prompts == "released" else (True, "")


def _annotators(profile: Profile) -> tuple[bool, str]:
    reason = f"profile {profile.name} names no annotators: people compare sets, in notebook 07"
    return bool(profile.annotators), reason


def _labels(profile: Profile) -> tuple[bool, str]:
    reason = f"profile {profile.name} names no votes: three people label the images in notebook 01 (key tia2.votes)"
    return bool(profile.annotators or profile.tia2.votes), reason


RESOURCES: dict[str, Callable[[Profile], tuple[bool, str]]] = {
    "tia2": lambda profile: release_available(),
    "prompts": _prompts,
    "annotators": _annotators,
    "labels": _labels,
}


def lacking(needs: str | None, profile: Profile) -> str:
    """Why what needs these resources (names with blanks between) cannot be attempted; empty if it can."""
    found = [RESOURCES[need](profile) for need in (needs or "").split()]
    return "; ".join(reason for available, reason in found if not available)


def start_run(notebook: str, *, profile: str = DEFAULT_PROFILE, force: bool = False) -> "Run":
    """Begin a notebook's run: load the profile and let cells with ``# needs: ...`` ask for what they need.

    ``force`` computes every step again. Raises ``ConfigError`` for a profile that does not exist or is not valid.
    """
    run = Run(notebook, load_profile(profile), Store(artifacts_folder() / "steps"), force)
    pd.set_option("display.max_colwidth", None)  # whole sentences in tables
    _watch_needs(run.profile)
    needs = {need for item in ITEMS.values() if item.notebook == notebook for need in (item.needs or "").split()}
    for need in sorted(needs):
        if reason := lacking(need, run.profile):
            print(f"Not all of this notebook can be run here: {reason}.")
    return run


@dataclass
class Run:
    """One notebook at one profile; see the module's example."""

    notebook: str
    profile: Profile
    store: Store
    force: bool = False
    made: dict[str, dict] = field(default_factory=dict)

    @property
    def labels(self) -> Path:
        """Where people's answers in this notebook are kept, a file each; nothing else is, and nothing is made anew."""
        return artifacts_folder() / "labels" / self.profile.name / self.notebook

    def step(self, function: Callable, *inputs: Keyed, **config: Any) -> Artifact:
        """A step's result: from the store where it is known, else computed and stored."""
        return self.store.compute(function, *inputs, force=self.force, **config)

    def figure(self, draw: Callable | str, *data: Artifact) -> None:
        """Draw a registered figure from stored results, keep it for the report, show it with its alt text."""
        item = self._item(draw, FIGURES)
        name = item.name
        values = [artifact.value for artifact in data]
        with house_style():
            figure = item.build(*values)
            stamp(figure, self.profile.name)
            settle(figure)
            files = {f"{name}.{kind}": render(figure, kind) for kind in ("pdf", "png")}
            small = thumbnail(figure)
        alt = item.describe(*values)
        self._keep(item, files, alt, data)
        display(Image(small, format="png", alt=alt))

    def table(self, lay_out: Callable | str, *data: Artifact) -> pd.DataFrame:
        """Make a registered table from stored results, keep it for the report, return it for display.

        The numbers of each result are kept in a CSV file of its own, of the second in ``name_2.csv``, and so on.
        """
        item = self._item(lay_out, TABLES)
        name = item.name
        values = [artifact.value for artifact in data]
        table = item.build(*values)
        numbered = [name, *(f"{name}_{number}" for number in range(2, len(values) + 1))]
        files = {
            **{f"{one}.csv": as_csv(frame) for one, frame in zip(numbered, values, strict=True)},
            f"{name}.md": as_markdown(table, item.caption, self.profile.name),
            f"{name}.tex": as_tex(table, item.caption, self.profile.name),
        }
        self._keep(item, files, item.describe(*values), data)
        return table.set_axis([""] * len(table))  # row numbers would say nothing

    def tables(self, names: Iterable[str]) -> Tables:
        """Those of the named tables that this notebook and the others have made at this profile as it is now."""
        folder, made = records_folder(self.profile.name), set(self.made)
        now = digest(as_dict(self.profile))
        for path in folder.glob("*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["notebook"] != self.notebook and digest(record["profile"]) == now:
                made |= set(record["made"])
        return Tables(folder / "files", tuple(name for name in names if name in made))

    def finish(self) -> None:
        """Write the record of this run and say what it made and what was not attempted.

        Raises ``StudyError`` if a figure or table that is registered for this notebook was neither made nor excused.
        """
        missing = {}
        for name, item in ITEMS.items():
            if item.notebook == self.notebook and name not in self.made:
                reason = lacking(item.needs, self.profile)
                if not reason:
                    raise StudyError(f"{self.notebook}: {name} is registered but was not made; run every cell in order")
                missing[name] = reason
        record = {"notebook": self.notebook, "profile": as_dict(self.profile), "made": self.made, "missing": missing}
        content = json.dumps(record, indent=1, sort_keys=True).encode()
        write_atomically(records_folder(self.profile.name) / f"{self.notebook}.json", content)
        lines = [f"{self.notebook} ({self.profile.name}): {len(self.made)} figures and tables made"]
        for reason in sorted(set(missing.values())):
            lines.append(f"{sum(r == reason for r in missing.values())} not attempted, because {reason}")
        print("\n".join(lines))

    def _item(self, name: Callable | str, known: dict[str, Item]) -> Item:
        if not isinstance(name, str):
            name = name.item.name
        if name not in known or known[name].notebook != self.notebook:
            names = ", ".join(key for key, item in known.items() if item.notebook == self.notebook)
            raise StudyError(f"{name!r} is not registered for {self.notebook}; registered are {names}")
        return known[name]

    def _keep(self, item: Item, files: dict[str, bytes], alt: str, data: tuple[Artifact, ...]) -> None:
        for file, content in files.items():
            write_atomically(records_folder(self.profile.name) / "files" / file, content)
        self.made[item.name] = {
            "files": {file: digest(content) for file, content in files.items()},
            "alt": alt,
            "steps": lineage(data, self.store),
            "source": item.source,
        }


def lineage(data: tuple[Artifact, ...], store: Store) -> list[dict[str, Any]]:
    """Every step that the data rest on, nearest first: its name, version, configuration, key and inputs' keys."""
    found: dict[str, dict] = {}
    waiting = list(data)
    while waiting:
        artifact = waiting.pop(0)
        meta = artifact.meta
        if artifact.key not in found:
            kept = ("step", "module", "version", "config", "inputs")
            found[artifact.key] = {"key": artifact.key, **{name: meta[name] for name in kept}}
            waiting += [Artifact(path) for key in meta["inputs"] for path in store.root.glob(f"*/{key}")]
    return list(found.values())


def _watch_needs(profile: Profile) -> None:
    """Have IPython replace a cell that needs what cannot be had by a line that says so."""
    shell = get_ipython()
    if shell is None:
        return

    def excuse(lines: list[str]) -> list[str]:
        needs = re.match(r"# needs: ([\w ]+)", lines[0]) if lines else None
        missing = [need for need in needs[1].split() if lacking(need, profile)] if needs else []
        if not missing:
            return lines
        return [f"print('not attempted: no {', no '.join(missing)} here (see the top of this notebook)')\n"]

    transformers = shell.input_transformers_cleanup
    transformers[:] = [known for known in transformers if getattr(known, "__name__", "") != excuse.__name__] + [excuse]
