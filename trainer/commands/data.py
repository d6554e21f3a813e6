"""``data``: gathers a data set, writes its manifest or shards, or says what a run would read."""

import argparse
import re
from pathlib import Path

from rich.console import Console

from engines.preprocess import ImageError
from trainer.commands.options import Environment, Parsers, configured
from trainer.config.gather import GatherConfig
from trainer.config.toml import read_toml
from trainer.data.errors import DataError
from trainer.data.gathering import gather
from trainer.data.lines import write_lines
from trainer.data.listing import File, list_roots
from trainer.data.manifest import SIDECAR, describe, read_origins
from trainer.data.near import check_near
from trainer.data.packing import write_shards
from trainer.data.pairs import photographs_of
from trainer.data.sources import Source, load, scan

_MIB = 2**20


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command and its four parts."""
    parser = parsers.add_parser("data", help="manifests, shards and checks of a data set")
    parts = parser.add_subparsers(dest="part", required=True)
    roots = argparse.ArgumentParser(add_help=False)
    roots.add_argument("--data", type=Path, nargs="+", required=True, help="folders, or shards")
    gathered = parts.add_parser("gather", help="take real pictures out of a tree of files")
    gathered.add_argument("--config", type=Path, required=True, help="a TOML file")
    gathered.add_argument(
        "--tree", type=Path, required=True, help="a folder with one for each package"
    )
    gathered.add_argument("-o", "--output", type=Path, required=True, help="the data set's folder")
    gathered.set_defaults(run=_gather)
    manifest = parts.add_parser(
        "manifest", parents=[roots], help="write down every file with its digest"
    )
    manifest.add_argument("-o", "--output", type=Path, required=True, help="a .jsonl file")
    manifest.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="REGEX",
        help="finds (?P<prompt>...) in a file's path of origin or its own",
    )
    manifest.add_argument("--strict", action="store_true", help="a corrupt image stops it")
    manifest.set_defaults(run=_manifest)
    shards = parts.add_parser("shards", parents=[roots], help="pack the files into tar files")
    shards.add_argument("-o", "--output", type=Path, required=True, help="a folder; must not exist")
    shards.add_argument("--shard-mib", type=int, default=256, help="how large a shard grows")
    shards.set_defaults(run=_shards)
    check = parts.add_parser("check", parents=[common], help="say what a configuration would read")
    check.set_defaults(run=_check)


def _gather(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    config = read_toml(GatherConfig, options.config, environment)
    skipped: list[Path] = []

    def on_skip(path: Path, error: ImageError) -> None:
        skipped.append(path)
        console.print(f"skipped {path}: {error}", markup=False, soft_wrap=True)

    done = gather(config, options.tree, options.output, on_skip)
    for one in done:
        small = f", {one.small} left out as too small" if one.small else ""
        console.print(f"real/{one.name}: {one.images}{small}")
    console.print(
        f"{options.output}: {sum(one.images for one in done)} pictures, {len(skipped)} skipped"
    )


def _manifest(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    del environment  # no configuration, no variables

    def on_skip(file: File, error: ImageError) -> None:
        if options.strict:
            raise DataError(f"{file.key}: {error}; remove it, or drop --strict") from error
        console.print(f"skipped {file.key}: {error}")

    prompts = [_pattern(text) for text in options.prompt]
    found = describe(list_roots(options.data), read_origins(options.data), prompts, on_skip)
    if not found.rows:
        raise DataError(
            "no image found: --data names folders that hold real/NAME/* and fake/NAME/*"
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_lines(options.output, found.rows)
    repos, named = {row.repo for row in found.rows if row.repo}, [row.prompt for row in found.rows]
    console.print(
        f"{options.output}: {len(found.rows)} files, {found.skipped} skipped; {len(repos)} "
        f"repositories, {len(set(named) - {None})} prompts of {len(named) - named.count(None)} files"
    )


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"--prompt {text!r} is no regular expression: {error}") from error
    if "prompt" not in pattern.groupindex:
        raise DataError(
            f"--prompt {text!r} has no group (?P<prompt>...): say which part is the prompt"
        )
    return pattern


def _shards(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    del environment  # no configuration, no variables
    files = sorted(list_roots(options.data).files(), key=lambda file: file.key)
    if not files:
        raise DataError("no file found: --data names folders that hold real/NAME/* and fake/NAME/*")
    origins = read_origins(options.data)
    images, shards = write_shards(files, options.output, max(1, options.shard_mib) * _MIB)
    if origins:
        write_lines(options.output / SIDECAR, origins.values())
    console.print(f"{options.output}: {images} files in {shards} shards")


def _check(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    config = configured(options, environment).data
    dataset = scan(config)
    skipped: list[str] = []

    def on_skip(source: Source, error: ImageError) -> None:
        skipped.append(source.key)
        console.print(f"skipped {source.key}: {error}")

    for name, sources in dataset.splits.items():
        fakes = sum(one.label for one in sources)
        paired = len(photographs_of(dataset.pairs[name]))
        pairs = f", {paired} photographs with pairs" if config.pairs else ""
        console.print(f"{name}: {len(sources) - fakes} real, {fakes} fake{pairs}")
        load(sources, strict=config.strict, region_px=1, on_skip=on_skip)
    for note in (*dataset.notes, *check_near(dataset, options.cache, strict=config.strict)):
        console.print(note)
    console.print(
        f"{dataset.duplicates} duplicates left out, {len(skipped)} files skipped; "
        f"digest {dataset.digest}"
    )
