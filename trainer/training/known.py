"""Which generators a run has seen, and whose regenerations: those of the runs that it starts from among them.

In: what a run trains on, or the lineage beside a checkpoint. Out: ``Known``. No errors.

An evaluation counts as unseen what is not here, so a list that is empty for "all of them" must become the names
while training still knows them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.config import Config, DataConfig
from trainer.evaluation.judged import seen_by

GENERATORS, REGENERATORS = "known_generators", "known_regenerators"


@dataclass(frozen=True)
class Known:
    """What a line of runs was trained on.

    Attributes:
        generators: selectors of generated folders, such as ``sd1[:-40]`` or ``sd*``.
        regenerators: families of regenerations; patterns where a run is older than the list.
    """

    generators: frozenset[str]
    regenerators: frozenset[str]

    def saw(self, generator: str) -> bool:
        """Whether training drew from a generator's folder, whole or in part."""
        return seen_by(sorted(self.generators))(generator)

    def and_before(self, earlier: "Known") -> "Known":
        """With what the run knew that this one starts from."""
        return Known(self.generators | earlier.generators, self.regenerators | earlier.regenerators)

    def as_lineage(self) -> dict[str, str]:
        """For a checkpoint or a manifest: two JSON lists."""
        return {
            GENERATORS: json.dumps(sorted(self.generators)),
            REGENERATORS: json.dumps(sorted(self.regenerators)),
        }


def known_by(lineage: Mapping[str, str]) -> Known:
    """What a checkpoint's run knows; of one that is older than the lists, what its configuration tells."""
    if GENERATORS in lineage and REGENERATORS in lineage:
        lists = (json.loads(lineage[name]) for name in (GENERATORS, REGENERATORS))
        return Known(*(frozenset(names) for names in lists))
    data = Config.model_validate_json(lineage["config"]).data
    return Known(frozenset(data.splits.train.fake), frozenset(_regenerators(data)))


def _regenerators(data: DataConfig) -> tuple[str, ...]:
    """Patterns; a set of pairs without a choice of families may be any of them."""
    kinds = tuple(one.kind for one in data.regenerators)
    return (*kinds, *(data.pair_families or ("*",))) if data.pairs else kinds
