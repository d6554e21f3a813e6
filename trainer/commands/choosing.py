"""What the commands share that choose by ranking: the pictures that may, and how a candidate is shown.

In: names of splits, ``Ranked``. Out: ``Material``, rows of a table, plain values. Errors:
``EvaluationError`` where the splits lack a class.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from trainer.config import Config
from trainer.data.dataset import Dataset, Picture
from trainer.data.pairs import Pair
from trainer.evaluation.apart import set_apart
from trainer.evaluation.errors import EvaluationError
from trainer.evaluation.metrics import Bootstrap
from trainer.evaluation.ranking import Candidate, Material, Ranked, ranked
from trainer.progress import ProgressBar
from trainer.training.setup import pictures_of, stored_pairs

# Training has seen its own pictures, and the test split decides nothing.
_SPLITS = ("validation", "calibration", "threshold")


def add_splits(parser: argparse.ArgumentParser) -> None:
    """The option that names the splits."""
    parser.add_argument(
        "--split", choices=_SPLITS, nargs="+", default=["validation"], help="(validation)"
    )


def material(splits: Sequence[str], config: Config, dataset: Dataset, console: Console) -> Material:
    """The pictures of these splits, the pairs of such photographs, and what stands apart."""

    def notify(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    pictures: list[Picture] = []
    pairs: list[Pair] = []
    for name in dict.fromkeys(splits):
        pictures += pictures_of(dataset.splits[name], config.data, notify, None)
        if dataset.pairs.get(name):
            pairs += stored_pairs(dataset, config, name, notify)
    kept, apart = set_apart(pictures, config.evaluation.apart)
    named = " and ".join(splits)
    if {one.source.label for one in kept} != {0, 1}:
        raise EvaluationError(
            f"the {named} split lacks real or generated pictures: name another --split, or several"
        )
    kinds = f", and {len(apart)} real ones of other kinds" if apart else ""
    notify(f"{len(kept)} pictures and {len(pairs)} pairs of the {named} split{kinds}")
    return Material(kept, pairs, apart)


def sizes(judged_by: Material) -> dict[str, int]:
    """How much of each there is, for a file."""
    return {
        "pictures": len(judged_by.pictures),
        "pairs": len(judged_by.pairs),
        "apart": len(judged_by.apart),
    }


def in_turn(
    candidates: Sequence[Candidate], judged_by: Material, config: Config, console: Console
) -> list[Ranked]:
    """What each candidate makes of it, with a bar, since each takes a while."""
    bootstrap = Bootstrap(config.evaluation.resamples, config.seed)
    found: list[Ranked] = []
    with ProgressBar(console, "candidates") as bar:
        for one in ranked(candidates, judged_by, bootstrap):
            found.append(one)
            bar.show(len(found), len(candidates), one.name)
    return found


def table_of(title: str, first_column: str) -> Table:
    """The columns that ``lines`` fills."""
    table = Table(title=title, box=None, padding=(0, 2, 0, 0), title_justify="left")
    table.add_column(first_column, overflow="fold")
    for name in ("what", "[95 %]", "less the first's [95 %]"):
        table.add_column(name, no_wrap=True)  # an interval over two lines is hard to read
    return table


def lines(one: Ranked, *, first: bool) -> list[tuple[str, str, str, str]]:
    """A candidate's rows; its name stands in the first of them."""
    shown = {"aligned": f"aligned {one.aligned_px} px"}
    rows = [
        (
            shown.get(name, name),
            auc.shown(),
            "" if first else one.less_first[name].shown("+.3f"),
        )
        for name, auc in one.auc.items()
    ]
    if one.caught_at_1 is not None:
        rows.append(("TPR at FPR 1 %", one.caught_at_1.shown(), ""))
    for rate, share in one.flagged.items():
        less = "" if first else one.flagged_less_first[rate].shown("+.3f")
        rows.append((f"other kinds at FPR {rate}", share.shown(), less))
    return [("" if index else one.name, *row) for index, row in enumerate(rows)]


def plain(one: Ranked) -> dict[str, object]:
    """For a file."""
    return {**asdict(one), "figure": one.figure, "spec": one.spec.model_dump(mode="json")}
