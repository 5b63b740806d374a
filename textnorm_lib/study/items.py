"""What a figure or a table of the study is: a function with an entry (caption, words for those who cannot see it, ...).

figure, table = of_notebook("04_best_of_n", needs="labels")

@figure("fig52_gold_and_proxy", "Gold and proxy of ...", alt=describe)
def gold_and_proxy(means: pd.DataFrame, fits: pd.DataFrame) -> Figure: ...

run.figure(gold_and_proxy, means, fits)     # in the notebook
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
        """Digest of the module that builds it and of those beside it: what other code made is out of date."""
        room = self.module.__package__
        used = [one for one in vars(self.module).values() if inspect.ismodule(one) and room and one.__package__ == room]
        return hashlib.sha256("".join(map(inspect.getsource, [self.module, *used])).encode()).hexdigest()


FIGURES: dict[str, Item] = {}
TABLES: dict[str, Item] = {}


def of_notebook(notebook: str, *, needs: str | None = None) -> tuple[Callable, Callable]:
    """The decorators ``figure`` and ``table`` of a notebook, which enter a function and leave it as it is.

    Each takes a name and a caption; ``alt``, which makes of the same data one or two sentences for those who cannot see
    the item (without it, these are the first paragraph of the function's docstring); and, where they differ, ``Item``'s
    needs, paper_item and paper_value.
    """
    return partial(_enter, FIGURES, notebook, needs=needs), partial(_enter, TABLES, notebook, needs=needs)


def _enter(
    items: dict[str, Item], notebook: str, name: str, caption: str, *, alt: Callable | None = None, **entry: str | None
) -> Callable:
    def enter(build: Callable) -> Callable:
        told = inspect.getdoc(getattr(build, "func", build)) or ""
        first = told.split("\n\n")[0].replace("\n", " ")
        build.item = items[name] = Item(name, notebook, caption, build, alt or (lambda *_: first), **entry)
        return build

    return enter
