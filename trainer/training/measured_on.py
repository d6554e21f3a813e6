"""What results were measured on, and of what: a file of them is refused where the configuration names other things.

In: a configuration, a file of results and its content. Out: what the file keeps of the configuration.
Errors: ``CheckpointError``, which says what differs and what to run again.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.config import Config
from trainer.training import checkpoint
from trainer.training.inference import export_spec

_SPLITS = "splits"
_SCORING = "scoring"


def files_of(config: Config, *splits: str) -> dict[str, object]:
    """What a file of results keeps of the files that it was measured on: the selectors of the splits."""
    return {_SPLITS: _files(config, splits)}


def scoring_of(config: Config) -> dict[str, object]:
    """What it keeps of how a run's weights made logits of pictures: the crops and the gate."""
    return {_SCORING: _scoring(config)}


def refuse_other_files(
    content: Mapping[str, object], config: Config, path: Path, splits: Sequence[str], again: str
) -> None:
    """Results of an earlier choice of files say nothing of those that the configuration names now."""
    found = content.get(_SPLITS)
    if not isinstance(found, dict):
        found = _files(_trained(path), splits)
    asked = _files(config, splits)
    other = [name for name in splits if found.get(name) != asked[name]]
    if other:
        raise checkpoint.CheckpointError(
            f"{path} was measured on other files than data.splits names now ({', '.join(other)}): {again}"
        )


def refuse_other_scoring(
    content: Mapping[str, object], config: Config, path: Path, again: str
) -> None:
    """Logits of other crops have other thresholds: more crops of an image, less noise in their mean."""
    found = content.get(_SCORING)
    if not isinstance(found, dict):
        found = _scoring(_trained(path))
    asked = _scoring(config)
    other = [f"{key} {found.get(key)} there" for key in asked if found.get(key) != asked[key]]
    if other:
        raise checkpoint.CheckpointError(
            f"{path} was measured with other crops or another graph than [export] asks for now "
            f"({', '.join(other)}): {again}"
        )


def _files(config: Config, splits: Sequence[str]) -> dict[str, object]:
    return {name: getattr(config.data.splits, name).model_dump(mode="json") for name in splits}


def _scoring(config: Config) -> dict[str, object]:
    crops = export_spec(config).model_dump(mode="json")
    return {key: crops[key] for key in ("crop_policy", "crop_px", "max_crops")} | {
        "gate": config.export.gate
    }


def _trained(path: Path) -> Config:
    """The configuration of the training: that of results which are older than what they keep today."""
    _, lineage = checkpoint.read_best(path.parent)
    return Config.model_validate_json(lineage["config"])
