"""What a figure or a table of the study is: a function with an entry (caption, words for those who cannot see it, ...).

@figure("fig52_gold_and_proxy", "04_best_of_n", "Gold and proxy of ...", alt=describe, needs="labels")
def gold_and_proxy(means: pd.DataFrame, fits: pd.DataFrame) -> Figure: ...

run.figure(gold_and_proxy, means, fits)     # in the notebook
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Item:
    """A figure or table: who makes it, from what, and what the paper has in its place.

    ``build`` takes the steps' results and returns a matplotlib figure or the table as it is printed; ``describe`` takes
    the same and returns one or two sentences for those who cannot see it. ``needs`` names resources (with blanks
    between) without which it is not attempted. ``paper_item`` and ``paper_value`` are what the paper shows; None where
    the item is our own.
    """

    name: str
    notebook: str
    caption: str
    build: Callable[..., Any]
    describe: Callable[..., str]
    needs: str | None = None
    paper_item: str | None = None
    paper_value: str | None = None

    @property
    def module(self) -> ModuleType:
        """The module that builds it."""
        return inspect.getmodule(getattr(self.build, "func", self.build))

    @property
    def source(self) -> str:
        """Digest of the module that builds it: what is made by other code is out of date."""
        return hashlib.sha256(inspect.getsource(self.module).encode()).hexdigest()


FIGURES: dict[str, Item] = {}
TABLES: dict[str, Item] = {}


def figure(name: str, notebook: str, caption: str, *, alt: Callable[..., str], **entry: str | None) -> Callable:
    """Enter a function that draws as the figure ``name`` of a notebook; the function itself stays what it is.

    ``alt`` takes the same data and returns one or two sentences for those who cannot see the figure. ``entry`` are
    ``Item``'s needs, paper_item and paper_value.
    """
    return _enter(FIGURES, name, notebook, caption, alt, entry)


def table(name: str, notebook: str, caption: str, *, alt: Callable[..., str], **entry: str | None) -> Callable:
    """Enter a function that lays out as the table ``name`` of a notebook, as ``figure`` does."""
    return _enter(TABLES, name, notebook, caption, alt, entry)


def _enter(
    items: dict[str, Item], name: str, notebook: str, caption: str, alt: Callable, entry: dict[str, str | None]
) -> Callable:
    def enter(build: Callable) -> Callable:
        build.item = items[name] = Item(name, notebook, caption, build, alt, **entry)
        return build

    return enter
