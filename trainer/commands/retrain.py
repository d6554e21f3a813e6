"""``retrain``: train, calibrate, evaluate, export, quantize, compile, verify, sign and release, each once.

In: a configuration, a signing key, a store. Out: a signed bundle in the store, and the channel (canary) at
it; ``retrain.json`` in the run's folder. A job that was killed continues where it was. Errors: those of the
steps; a bundle that the gate refuses stays in the run's folder.
"""

import argparse
import getpass
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from rich.console import Console

from engines.bundle.keys import Trust, key_id, read_private_key
from engines.bundle.manifest import Precision, manifest_sha256, weights_file
from engines.compile.quantize import INT8_FILES, LowerPrecision, refuse_machine
from engines.release.channels import PromotionRequest, promote
from engines.release.cli import add_gate_options, margins_of, timing_of
from engines.release.records import current, parse_channel
from engines.release.store import open_store
from engines.runtime.machine import this_machine
from trainer.cli import Environment, add_common, configured
from trainer.commands import train
from trainer.commands.finish import bundle_steps, sign_step, verify
from trainer.config import Config
from trainer.data.dataset import scan
from trainer.errors import TrainerError
from trainer.stamps import Step, run_steps
from trainer.training import checkpoint
from trainer.training.checkpoint import flat_config

_STAMPS = "retrain.json"


class RetrainError(TrainerError):
    """A retraining that cannot start or continue; the message says what to do."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = (
        "Everything from images to a signed bundle in a channel. A step that is done is skipped."
    )
    add_common(parser)
    parser.add_argument("--key", type=Path, required=True, help="the private key that signs (PEM)")
    parser.add_argument("--store", required=True, help="a directory, or s3://BUCKET/PREFIX")
    parser.add_argument("--channel", default="canary", help="default: %(default)s")
    parser.add_argument(
        "--reason",
        default="retrained",
        help="recorded in the channel's history (default: %(default)s)",
    )
    _add_precisions(parser)
    add_gate_options(parser)


def _add_precisions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "lower precisions", "options of synthgate engines quantize and compile; default: fp32 only"
    )
    add = group.add_argument
    add("--quantize", nargs="+", default=[], choices=get_args(LowerPrecision), metavar="PRECISION",
        help=f"precisions to add for CPUs: {', '.join(get_args(LowerPrecision))}")  # fmt: skip
    add("--quantize-runtimes", nargs="+", default=["onnxruntime-cpu"], choices=list(INT8_FILES),
        metavar="RUNTIME", help="runtimes of the int8 graph (default: onnxruntime-cpu)")  # fmt: skip
    add("--compile", nargs="+", default=[], metavar="TARGET",
        help="plans for GPUs: tensorrt, tensorrt-rtx")  # fmt: skip
    add("--compile-precisions", nargs="+", default=["fp32"], choices=get_args(Precision),
        metavar="NAME", help="precisions of the plans, the preferred one first (default: fp32)")  # fmt: skip
    add("--calibration", type=Path, metavar="DIR", help="calibration images for int8")
    add("--evaluation", type=Path, metavar="DIR",
        help="labelled images in real/NAME/* and fake/NAME/*, to compare precisions with fp32")  # fmt: skip


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Run every step that is not done."""
    config = configured(options, environment)
    # What is missing must not cost a training first.
    refuse_incomplete(options)
    read_private_key(options.key)
    options.output.mkdir(parents=True, exist_ok=True)
    run_steps(
        _steps(config, options, environment, console),
        options.output / _STAMPS,
        lambda text: console.print(text, highlight=False),
    )
    console.print(f"{options.channel} of {options.store} is at {_stem(config)}", highlight=False)


def refuse_incomplete(options: argparse.Namespace) -> None:
    """Refuse precisions that could not be compared with fp32.

    Raises:
        RetrainError: names the option that is missing.
    """
    lower = set(options.quantize)
    if options.compile:
        lower |= set(options.compile_precisions) - {"fp32"}
    if lower and options.evaluation is None:
        raise RetrainError(
            f"{' and '.join(sorted(lower))} must be compared with fp32: name --evaluation DIR with "
            "labelled pictures"
        )
    if "int8" in lower and options.calibration is None:
        raise RetrainError("int8 needs ranges: name --calibration DIR with pictures as uploaded")
    for name in ("calibration", "evaluation"):
        folder: Path | None = getattr(options, name)
        if folder is not None and not folder.is_dir():
            raise RetrainError(f"{folder} is not a directory: name one with pictures (--{name})")
    refuse_machine(options.quantize, options.quantize_runtimes, this_machine())


def _stem(config: Config) -> str:
    return f"{config.export.name}-{config.export.version}"


def _steps(
    config: Config, options: argparse.Namespace, environment: Environment, console: Console
) -> list[Step]:
    output: Path = options.output
    # A signed bundle never changes: each stage of it has a directory of its own.
    exported, quantized, signed = (
        output / stage / _stem(config) for stage in ("exported", "quantized", "signed")
    )
    training = {
        name: value
        for name, value in flat_config(config).items()
        if not name.startswith(("evaluation.", "export."))
    }

    def do_train() -> None:
        resume = (output / checkpoint.LAST).exists()
        train.run(argparse.Namespace(**vars(options) | {"resume": resume}), environment, console)

    return [
        Step(
            "train",
            {"config": training, "data": scan(config.data).digest},
            (),
            (output / checkpoint.BEST, output / "run.json"),
            do_train,
            repeats=False,
        ),
        *bundle_steps(config, exported, options, environment, console, owned=True),
        *_quantize_step(exported, quantized, config.export.version, options),
        *_releasing_steps(quantized if options.quantize else exported, signed, options),
    ]


def _quantize_step(
    exported: Path, quantized: Path, version: str, options: argparse.Namespace
) -> list[Step]:
    if not options.quantize:
        return []
    inputs = {"precisions": options.quantize, "runtimes": options.quantize_runtimes}

    def quantize() -> None:
        shutil.rmtree(quantized, ignore_errors=True)
        quantized.parent.mkdir(parents=True, exist_ok=True)
        precisions = ["--precisions", *options.quantize, "--runtimes", *options.quantize_runtimes]
        named = ["--out", str(quantized), "--version", version]
        _engines("quantize", str(exported), *named, *precisions, *_pictures(options))

    reads = (exported, *_picture_folders(options).values())
    return [Step("quantize", inputs, reads, (quantized,), quantize)]


def _releasing_steps(source: Path, signed: Path, options: argparse.Namespace) -> list[Step]:
    """From a bundle as it was exported, or quantized, to a channel."""
    plans = {"targets": options.compile, "precisions": options.compile_precisions}
    pictures = _picture_folders(options).values()
    release = {"store": options.store, "channel": options.channel}
    return [
        Step(
            "compile",
            plans if options.compile else {"targets": []},
            (source, *(pictures if options.compile else ())),
            (signed, weights_file(signed)),
            lambda: _compile(source, signed, options),
        ),
        Step("verify", {}, (signed,), (), lambda: verify(signed)),
        sign_step(signed, options.key),
        Step("release", release, (signed,), (), lambda: _release(signed, options)),
    ]


def _compile(source: Path, target: Path, options: argparse.Namespace) -> None:
    """Write the bundle with its plans into a directory of its own; without plans, copy it."""
    exported = options.output / "exported" / source.name
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    for number, plan in enumerate(options.compile):
        last = number == len(options.compile) - 1
        into = target if last else target.with_name(f"{target.name}.{plan}")
        shutil.rmtree(into, ignore_errors=True)
        more = ["--precision", *options.compile_precisions, *_pictures(options)]
        _engines("compile", str(source), "--target", plan, "--out", str(into), *more)
        source = into
    if not options.compile:
        shutil.copytree(source, target)
    shutil.copyfile(weights_file(exported), weights_file(target))


def _picture_folders(options: argparse.Namespace) -> dict[str, Path]:
    """The folders of pictures that precisions need, by option."""
    folders = {"--calibration": options.calibration, "--evaluation": options.evaluation}
    return {name: folder for name, folder in folders.items() if folder is not None}


def _pictures(options: argparse.Namespace) -> Sequence[str]:
    folders = _picture_folders(options)
    return [text for name, folder in folders.items() for text in (name, str(folder))]


def _engines(*arguments: str) -> None:
    """Run a command of the engines in a process of its own: it may load a GPU's libraries."""
    done = subprocess.run([sys.executable, "-m", "engines", *arguments], check=False)  # noqa: S603  our own
    if done.returncode:
        raise RetrainError(
            f"python -m engines {' '.join(arguments)} ended with status {done.returncode}: its "
            "message is above; correct the cause and start again"
        )


def _release(bundle: Path, options: argparse.Namespace) -> None:
    """Promote; if its answer was lost, the channel shows it, and it is not repeated."""
    store, channel = open_store(options.store), parse_channel(options.channel)
    before = current(store, channel)
    if before is not None and before.after.manifest_sha256 == manifest_sha256(bundle):
        return
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    request = PromotionRequest(who, datetime.now(UTC), options.reason)
    public = read_private_key(options.key).public_key()
    trust = Trust({key_id(public): public})
    promote(store, channel, bundle, request, trust, margins_of(options), timing_of(options))
