"""What is evaluated: a run's chosen weights, or a bundle, behind one face.

In: nothing but values. Out: ``Subject`` (what a report says of it) and ``Judged`` (how to ask it).
No errors. Both are put together in ``trainer.commands.judged``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from engines.bundle.manifest import GeneratorMetric, PreprocessSpec
from trainer.detector import Detector
from trainer.evaluation.families import Infer
from trainer.evaluation.metrics import Seen
from trainer.evaluation.shipped import Shipped


@dataclass(frozen=True)
class Subject:
    """Who is judged.

    Attributes:
        kind: a run of this trainer, or an exported bundle.
        name: its folder's name, or the bundle's name and version.
        sha256: of best.pt, or of the bundle's manifest (which names every file by its digest).
        code_commit: what it was trained by.
        training_data_digest: of the files it was trained and tuned on.
        teacher_id: whose noise it learnt.
        explained_variance: of that noise, on held-out crops; None where none was learnt.
        seen_fake: selectors of the generated folders that it was trained on.
        seen_regenerators: families whose pairs it was trained on.
    """

    kind: Literal["run", "bundle"]
    name: str
    sha256: str
    code_commit: str
    training_data_digest: str
    teacher_id: str
    explained_variance: float | None
    seen_fake: tuple[str, ...]
    seen_regenerators: tuple[str, ...]

    def saw(self, family: str) -> bool:
        """Whether it was trained on images of a generator."""
        return seen_by(self.seen_fake)(family)

    def saw_pairs(self, family: str) -> bool:
        """Whether it was trained on regenerations of a family."""
        return seen_by(self.seen_regenerators)(family) or self.saw(family)


@dataclass(frozen=True)
class Judged:
    """A detector, ready to be asked.

    Attributes:
        subject: what it is.
        infer: uint8 crops [N, S, S, 3] -> logits [N].
        spec: how a worker crops for it.
        shipped: its calibration and thresholds; None before ``calibrate``.
        detector: with its noise head, for attention maps; None for a bundle, which has none.
        card: what a bundle's manifest says was measured; empty for a run.
    """

    subject: Subject
    infer: Infer
    spec: PreprocessSpec
    shipped: Shipped | None
    detector: Detector | None
    card: tuple[GeneratorMetric, ...]


def seen_by(selectors: Sequence[str]) -> Seen:
    """Whether a folder is among selectors such as ``sd*`` or ``sd1[:-40]``."""
    patterns = [one.split("[", 1)[0] for one in selectors]
    return lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)
