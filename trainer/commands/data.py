"""``data``: write a manifest and divide it, pack shards, gather real pictures, check what a run reads."""

import argparse
import re
from collections import Counter
from pathlib import Path

from rich.console import Console

from engines.preprocess import ImageError
from trainer.cli import Environment, Parsers, add_common, configured
from trainer.config import SPLITS, read_config, read_toml
from trainer.data.dataset import divide, scan
from trainer.data.files import Source, list_roots, write_shards
from trainer.data.gather import GatherConfig, gather
from trainer.data.manifest import (
    SIDECAR,
    assign_last,
    deal,
    describe,
    read_manifest,
    read_origins,
    write_lines,
    write_manifest,
)
from trainer.errors import DataError

_MIB = 2**20
_NO_IMAGE = "no image in --data; expected real/SOURCE/* and fake/GENERATOR/* there"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parts = parser.add_subparsers(dest="part", required=True)
    roots = argparse.ArgumentParser(add_help=False)
    roots.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        help="folders with real/* and fake/*, or *.tar",
    )
    check = parts.add_parser("check", help="report what a configuration reads")
    add_common(check)
    check.set_defaults(run_part=_check)
    manifest = parts.add_parser(
        "manifest", parents=[roots], help="write a CSV with a row for each image"
    )
    manifest.add_argument("-o", "--output", type=Path, required=True, help="a .csv file")
    manifest.add_argument(
        "--config", type=Path, help="fill the split column by the splits of this configuration"
    )
    manifest.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="REGEX",
        help="find (?P<prompt>...) in a file's path of origin, or in its own path",
    )
    manifest.add_argument("--strict", action="store_true", help="stop at a corrupt image")
    manifest.set_defaults(run_part=_manifest)
    _add_split(parts)
    shards = parts.add_parser("shards", parents=[roots], help="pack the images into tar files")
    shards.add_argument("-o", "--output", type=Path, required=True, help="a new folder")
    shards.add_argument("--shard-mib", type=int, default=256, help="size of a shard (default 256)")
    shards.set_defaults(run_part=_shards)
    gathered = parts.add_parser("gather", help="collect real pictures from a tree of files")
    gathered.add_argument("--config", type=Path, required=True, help="a TOML file")
    gathered.add_argument(
        "--tree", type=Path, required=True, help="unpacked packages, or any folder"
    )
    gathered.add_argument("-o", "--output", type=Path, required=True, help="the data set's folder")
    gathered.set_defaults(run_part=_gather)


def _add_split(parts: Parsers) -> None:
    parser = parts.add_parser(
        "split",
        help="fill the split column of a manifest",
        description="Divide the images that have no split yet, at random but repeatably: 40% of the "
        "real ones train and 33% set thresholds, 60% of the generated ones train. With --last, "
        "move the last files of each folder instead.",
    )
    parser.add_argument("manifest", type=Path, help="a CSV file, which is changed")
    parser.add_argument(
        "--only", default="*", metavar="GLOB", help="only paths that match, such as 'fake/sd1/*'"
    )
    parser.add_argument(
        "--by",
        choices=("prompt", "repo", "file"),
        default="prompt",
        help="keep images of one prompt or repository together (default: prompt)",
    )
    parser.add_argument(
        "--shares",
        nargs="+",
        metavar="SPLIT=N",
        help="shares of each split, in place of the defaults",
    )
    parser.add_argument(
        "--last", type=int, metavar="N", help="the last N files of each folder, by name"
    )
    parser.add_argument(
        "--to",
        choices=(*SPLITS, "none"),
        metavar="SPLIT",
        help="the split that --last moves them to: " + ", ".join(SPLITS) + " or none",
    )
    parser.set_defaults(run_part=_split)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Run the part that the command line names."""
    options.run_part(options, environment, console)


def _split(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    del environment
    rows = list(read_manifest(options.manifest).values())
    if (options.last is None) != (options.to is None):
        raise DataError("--last and --to belong together: give both, or neither")
    if options.last is not None:
        split = "" if options.to == "none" else options.to
        divided = assign_last(rows, options.only, options.last, split)
    else:
        divided = deal(rows, options.only, options.by, _shares(options.shares))
    write_manifest(options.manifest, divided)
    changed = sum(old.split != new.split for old, new in zip(rows, divided, strict=True))
    for name in (*SPLITS, ""):
        labels = [row.label for row in divided if row.split == name]
        real, fake = labels.count("real"), labels.count("fake")
        console.print(f"{name or 'no split'}: {real} real, {fake} fake", highlight=False)
    console.print(f"{options.manifest}: {changed} of {len(rows)} rows changed")


def _shares(texts: list[str] | None) -> dict[str, float] | None:
    if texts is None:
        return None
    shares: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in SPLITS or not number.replace(".", "", 1).isdigit():
            raise DataError(
                f"--shares {text!r}: expected SPLIT=N with a split of {', '.join(SPLITS)}"
            )
        shares[name] = float(number)
    if not any(shares.values()):
        raise DataError("--shares: one share at least must be over 0")
    return shares


def _gather(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    config = read_toml(GatherConfig, options.config, environment)
    skipped: list[Path] = []

    def on_skip(path: Path, error: ImageError) -> None:
        skipped.append(path)
        console.print(f"skipped {path}: {error}", markup=False, soft_wrap=True)

    folders = gather(config, options.tree, options.output, on_skip)
    for folder in folders:
        small = f", {folder.small} left out as too small" if folder.small else ""
        console.print(f"real/{folder.name}: {folder.images}{small}")
    count = sum(folder.images for folder in folders)
    console.print(f"{options.output}: {count} pictures, {len(skipped)} skipped")


def _manifest(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    skipped: list[str] = []

    def on_skip(file: Source, error: ImageError) -> None:
        if options.strict:
            raise DataError(f"{file.key}: {error}; remove it, or drop --strict") from error
        skipped.append(file.key)
        console.print(f"skipped {file.key}: {error}", markup=False, soft_wrap=True)

    prompts = [_pattern(text) for text in options.prompt]
    files = list_roots(options.data)
    rows = describe(files, read_origins(options.data), prompts, on_skip)
    if not rows:
        raise DataError(_NO_IMAGE)
    if options.config:
        config = read_config(options.config, environment).data
        before = read_manifest(config.manifest) if config.manifest else {}
        split_of = {file.key: split for split, file in divide(files, before, config)}
        rows = [row.model_copy(update={"split": split_of.get(row.path, "")}) for row in rows]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(options.output, rows)
    repos, prompted = (
        {row.repo for row in rows if row.repo},
        [row.prompt for row in rows if row.prompt],
    )
    console.print(
        f"{options.output}: {len(rows)} files, {len(skipped)} skipped; {len(repos)} "
        f"repositories, {len(set(prompted))} prompts of {len(prompted)} files"
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"--prompt {text!r} is not a regular expression: {error}") from error
    if "prompt" not in pattern.groupindex:
        raise DataError(f"--prompt {text!r} has no group (?P<prompt>...): mark the prompt with one")
    return pattern


def _shards(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    del environment
    files = sorted(list_roots(options.data), key=lambda file: file.key)
    if not files:
        raise DataError(_NO_IMAGE)
    origins = read_origins(options.data)
    images, shards = write_shards(files, options.output, max(1, options.shard_mib) * _MIB)
    if origins:
        write_lines(options.output / SIDECAR, origins.values())
    console.print(f"{options.output}: {images} files in {shards} shards")


def _check(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    from trainer.check import full_checks, strictly, table_of  # noqa: PLC0415  loads torch and diffusers

    config = configured(options, environment)
    dataset = scan(config.data)
    rows = strictly(full_checks(config, dataset, options.cache), strict=config.data.strict)
    console.print(table_of(rows))
    counts = Counter(row.status for row in rows)
    console.print(
        f"errors: {counts['error']}, warnings: {counts['warning']}; digest {dataset.digest}",
        soft_wrap=True,
    )
    if counts["error"]:
        raise DataError(
            f"{counts['error']} rows above are errors: do what they say, and check again"
        )
