"""A notebook's run: its profile, its stored steps, its figures and tables, and the record that the report is made from.

    run = start_run("02_benchmark_rewards", profile="mini")     # pipeline.py
    table = run.step(summarise, per_prompt, resamples=run.profile.bootstrap.resamples)
    run.table(metric_comparison, table)
    run.finish()

Steps are lazy: nothing is computed before a figure, a table or ``table.value`` asks for it, and what comes with the
repository in ``results/`` is read instead of being computed (``force`` computes it).

A cell whose first line is ``# needs: tia2`` runs only where that resource can be had (see ``pipeline.RESOURCES``).
Elsewhere it says that it was not attempted, and why, and the rest of the notebook still runs. A cell may need several.
"""

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from IPython import get_ipython
from IPython.display import Image, display

from textnorm_lib.study.config import DEFAULT_PROFILE, Profile, as_dict, load_profile
from textnorm_lib.study.drawing import house_style, render, settle, shrink, stamp
from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.items import FIGURES, TABLES, Item
from textnorm_lib.study.printed import Tables, as_csv, as_markdown, as_tex
from textnorm_lib.study.store import (
    CHECKOUT,
    RESULTS,
    Artifact,
    Keyed,
    Store,
    artifacts_folder,
    digest,
    step,
    write_atomically,
)

Resource = Callable[[Profile], str]  # why it cannot be had for a profile, empty if it can


def report_folder(profile: str) -> Path:
    """``papers_figures/`` for the default profile, ``papers_figures/<profile>/`` for another."""
    folder = CHECKOUT / "papers_figures"
    return folder if profile == DEFAULT_PROFILE else folder / profile


def records_folder(profile: str) -> Path:
    """Where each notebook's run leaves its record, and the files of its figures and tables."""
    return artifacts_folder() / "runs" / profile


def results_of(profile: Profile) -> bool:
    """Whether the results in ``results/`` are those of this profile as it is now."""
    path = RESULTS / "profile.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(as_dict(profile)))


def begin_run(notebook: str, profile: str, *, force: bool, resources: Mapping[str, Resource]) -> "Run":
    """See ``pipeline.start_run``, which knows the resources."""
    known, anew = load_profile(profile), os.environ.get("TEXTNORM_ANEW")
    since = time.time() if force else float(anew or 0)
    results = RESULTS if results_of(known) else None
    store = Store(artifacts_folder() / "steps", results, prefer=anew is None, since=since)
    run = Run(notebook, known, store, resources)
    pd.set_option("display.max_colwidth", None)  # whole sentences in tables
    _watch_needs(run)
    for reason in sorted({run.lacking(item.needs) for item in run.items.values()} - {""}):
        print(f"Not all of this notebook can be run here: {reason}.")
    return run


@dataclass
class Run:
    """One notebook at one profile; see the module's example."""

    notebook: str
    profile: Profile
    store: Store
    resources: Mapping[str, Resource] = field(default_factory=dict)
    made: dict[str, dict] = field(default_factory=dict)

    @property
    def labels(self) -> Path:
        """Where people's answers in this notebook are kept, one file per person; no run writes them anew."""
        return artifacts_folder() / "labels" / self.profile.name / self.notebook

    @property
    def shown(self) -> Path:
        """Where the pictures lie that this notebook shows; each run writes them anew."""
        return artifacts_folder() / "shown" / self.profile.name / self.notebook

    @property
    def items(self) -> dict[str, Item]:
        """The figures and tables of this notebook; importing the functions that make them entered them."""
        return {name: item for name, item in {**FIGURES, **TABLES}.items() if item.notebook == self.notebook}

    def lacking(self, needs: str | None) -> str:
        """Why what needs these resources (names with blanks between) cannot be attempted; empty if it can."""
        reasons = [self.resources[need](self.profile) for need in (needs or "").split()]
        return "; ".join(reason for reason in reasons if reason)

    def step(self, function: Callable, *inputs: Keyed, **config: Any) -> Artifact:
        """A handle on a step's result, which is read back or computed once somebody asks for its value."""
        return self.store.step(function, *inputs, **config)

    def figure(self, draw: Callable, *data: Artifact) -> None:
        """Draw a registered figure from stored results, keep it for the report, show it with its alt text."""
        item = self._item(draw)
        drawn = self.step(draw_item, *data, name=item.name, profile=self.profile.name, source=item.source)
        files = {f"{item.name}.{kind}": (drawn.folder / f"{item.name}.{kind}").read_bytes() for kind in ("pdf", "png")}
        alt = drawn.meta["measured"]["alt"]
        self._keep(item, files, alt, data)
        display(Image((drawn.folder / "small.png").read_bytes(), format="png", alt=alt))

    def table(self, lay_out: Callable, *data: Artifact) -> pd.DataFrame:
        """Make a registered table from stored results, keep it for the report, return it for display.

        Each result's numbers are kept in a CSV file of their own: ``name.csv``, ``name_2.csv``, and so on.
        """
        item = self._item(lay_out)
        name = item.name
        values = [artifact.value for artifact in data]
        table = item.build(*values)
        files = {}
        for number, frame in enumerate(values, start=1):
            files[f"{name}.csv" if number == 1 else f"{name}_{number}.csv"] = as_csv(frame)
        files[f"{name}.md"] = as_markdown(table, item.caption, self.profile.name)
        files[f"{name}.tex"] = as_tex(table, item.caption, self.profile.name)
        self._keep(item, files, item.describe(*values), data)
        return table.set_axis([""] * len(table))  # row numbers would say nothing

    def tables(self, names: Iterable[str]) -> Tables:
        """Those of the named tables that this notebook and the others have made at this profile as it is now.

        A table of the default profile that was not made on this machine is read from ``papers_figures/``.
        """
        folder, report = records_folder(self.profile.name), report_folder(self.profile.name)
        now, made = digest(as_dict(self.profile)), set(self.made)
        manifest = report / "manifest.json"
        if manifest.exists() and digest((told := json.loads(manifest.read_bytes()))["profile"]) == now:
            made |= {name for name, entry in told["items"].items() if f"{name}.csv" in entry.get("files", {})}
        for path in folder.glob("*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["notebook"] != self.notebook and digest(record["profile"]) == now:
                made |= set(record["made"])
        return Tables(folder / "files", tuple(name for name in names if name in made), behind=report)

    def finish(self) -> None:
        """Write the record of this run and say what it made and what was not attempted.

        Raises ``StudyError`` if a figure or table that is registered for this notebook was neither made nor excused.
        """
        missing = {}
        for name, item in self.items.items():
            if name not in self.made:
                missing[name] = self.lacking(item.needs)
                if not missing[name]:
                    raise StudyError(f"{self.notebook}: {name} is registered but was not made; run every cell in order")
        record = {
            "notebook": self.notebook,
            "profile": as_dict(self.profile),
            "made": self.made,
            "missing": missing,
            "asked": sorted(self.store.asked),
        }
        content = json.dumps(record, indent=1, sort_keys=True).encode()
        write_atomically(records_folder(self.profile.name) / f"{self.notebook}.json", content)
        lines = [f"{self.notebook} ({self.profile.name}): {len(self.made)} figures and tables made"]
        reasons = sorted(Counter(missing.values()).items())
        lines += [f"{number} not attempted, because {reason}" for reason, number in reasons]
        print("\n".join(lines))

    def _item(self, build: Callable) -> Item:
        name = build.item.name
        if name not in self.items:
            raise StudyError(f"{name!r} is not entered for {self.notebook}; entered are {', '.join(self.items)}")
        return self.items[name]

    def _keep(self, item: Item, files: dict[str, bytes], alt: str, data: tuple[Artifact, ...]) -> None:
        self.store.asked.update(artifact.key for artifact in data)  # also where the drawing was there already
        for file, content in files.items():
            write_atomically(records_folder(self.profile.name) / "files" / file, content)
        self.made[item.name] = {
            "files": {file: digest(content) for file, content in files.items()},
            "alt": alt,
            "steps": lineage(data),
            "source": item.source,
        }


@step(2)
def draw_item(*values: Any, name: str, profile: str, source: str, folder: Path) -> dict[str, str]:
    """The figure ``name`` as PDF, PNG and a small PNG for the notebook; ``source`` is a digest of what draws it."""
    item = FIGURES[name]
    with house_style():
        figure = item.build(*values)
        stamp(figure, profile)
        settle(figure)
        pdf, png = (render(figure, kind) for kind in ("pdf", "png"))
    for file, content in {f"{name}.pdf": pdf, f"{name}.png": png, "small.png": shrink(png)}.items():
        (folder / file).write_bytes(content)
    return {"alt": item.describe(*values)}


def lineage(data: tuple[Artifact, ...]) -> list[dict[str, Any]]:
    """Every step that the data rest on, nearest first: its name, version, configuration, key and inputs' keys."""
    found = {artifact.key: artifact for artifact in data}
    waiting = list(found.values())
    for artifact in waiting:  # which grows
        for one in artifact.inputs:
            if isinstance(one, Artifact) and one.key not in found:
                found[one.key] = one
                waiting.append(one)
    return [{"key": key, **artifact.identity} for key, artifact in found.items()]


def _watch_needs(run: Run) -> None:
    """Have IPython replace a cell that needs what cannot be had by a line that says so."""
    shell = get_ipython()
    if shell is None:
        return

    def excuse(lines: list[str]) -> list[str]:
        needs = re.match(r"# needs: ([\w ]+)", lines[0]) if lines else None
        missing = [need for need in needs[1].split() if run.lacking(need)] if needs else []
        if not missing:
            return lines
        return [f"print('not attempted: no {', no '.join(missing)} here (see the top of this notebook)')\n"]

    transformers = shell.input_transformers_cleanup
    transformers[:] = [known for known in transformers if getattr(known, "__name__", "") != excuse.__name__] + [excuse]
