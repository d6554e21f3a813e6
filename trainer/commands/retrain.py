"""``retrain``: train, calibrate, evaluate, export, quantize, compile, verify, sign, release, each once.

In: a configuration, a signing key, a store. Out: a signed bundle in the store, with the channel
(canary) at it; ``retrain.json`` in the run's folder. Killed anywhere and started again, it goes on
where it was. Errors: those of the steps; a bundle that the gate refuses stays in the run's folder.
"""

import argparse
import getpass
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from engines.bundle.keys import Trust, key_id, read_private_key
from engines.bundle.manifest import manifest_sha256
from engines.bundle.signatures import (
    read_signatures,
    sign_manifest,
    with_signature,
    write_signatures,
)
from engines.bundle.verify import load_bundle, verified_manifest_bytes
from engines.release.channels import Asked, promote
from engines.release.cli import add_gate_options, margins_of, timing_of
from engines.release.records import current, parse_channel
from engines.release.store import open_store
from trainer.bundle.development import EVALUATION
from trainer.commands import calibrate, evaluate, export, train
from trainer.commands.calibrate import CALIBRATION
from trainer.commands.options import Environment, Parsers, configured
from trainer.config import Config
from trainer.data.dataset import scan
from trainer.retraining.ledger import Done, RetrainError, Step, carry_out
from trainer.retraining.precisions import (
    add_precision_options,
    compile_arguments,
    judged_by,
    quantize_arguments,
    refuse_unjudged,
)
from trainer.training import checkpoint
from trainer.training.checkpoint import flat_config

_DESCRIPTION = """Everything from images to a signed bundle in a channel. Started again, it does what
is not done."""


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser(
        "retrain", parents=[common], help="train and release", description=_DESCRIPTION
    )
    parser.add_argument("--key", type=Path, required=True, help="the private key that signs (PEM)")
    parser.add_argument("--store", required=True, help="a directory, or s3://BUCKET/PREFIX")
    parser.add_argument("--channel", default="canary", help="default: %(default)s")
    add_precision_options(parser)
    parser.add_argument("--reason", default="retrained", help="stands in the channel's history")
    add_gate_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Do every step that is not done."""
    config = configured(options, environment)
    refuse_unjudged(options)
    read_private_key(options.key)  # a key that cannot be read must not cost a training first
    options.output.mkdir(parents=True, exist_ok=True)

    def tell(done: Done) -> None:
        how = "done before" if done.before else f"done in {done.seconds:.1f} s"
        console.print(f"[bold]{done.name}[/]: {how}", highlight=False)

    carry_out(_steps(config, options, environment, console), options.output, tell)
    console.print(f"{options.channel} of {options.store} is at {_stem(config)}", highlight=False)


def _stem(config: Config) -> str:
    return f"{config.export.name}-{config.export.version}"


def _steps(
    config: Config, options: argparse.Namespace, environment: Environment, console: Console
) -> list[Step]:
    output: Path = options.output
    # Nothing of a bundle changes once it is signed: each stage of it has a directory of its own.
    exported, quantized, signed = (
        output / stage / _stem(config) for stage in ("exported", "quantized", "signed")
    )
    flat = flat_config(config)
    fitting = {name: value for name, value in flat.items() if not name.startswith("evaluation.")}
    training = {name: value for name, value in fitting.items() if not name.startswith("export.")}

    def command(run: Callable[[argparse.Namespace, Environment, Console], None]) -> None:
        run(options, environment, console)

    return [
        Step(
            "train",
            {"config": training, "data": scan(config.data).digest},
            (output / checkpoint.BEST, output / "run.json"),
            lambda: _train(options, environment, console),
            repeats=False,
        ),
        Step("calibrate", fitting, (output / CALIBRATION,), lambda: command(calibrate.run)),
        Step("evaluate", flat, (output / EVALUATION,), lambda: _evaluate(options, command)),
        Step("export", flat, (exported,), lambda: _export(exported, options, command)),
        *_quantize_step(exported, quantized, config.export.version, options),
        *_releasing_steps(quantized if options.quantize else exported, signed, options),
    ]


def _releasing_steps(source: Path, signed: Path, options: argparse.Namespace) -> list[Step]:
    """From a bundle as it was exported, or quantized, to a channel."""
    return [
        Step(
            "compile",
            _asked_of_compile(options),
            (signed / "manifest.json",),
            lambda: _compile(source, signed, options.compile, compile_arguments(options)),
        ),
        Step("verify", {}, (), lambda: _verify(signed)),
        Step(
            "sign",
            {"key": key_id(read_private_key(options.key).public_key())},
            (signed / "signatures.json",),
            lambda: _sign(signed, options.key),
        ),
        Step(
            "release",
            {"store": options.store, "channel": options.channel},
            (),
            lambda: _release(signed, options),
        ),
    ]


def _train(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    options.resume = (options.output / checkpoint.LAST).exists()
    train.run(options, environment, console)


def _evaluate(
    options: argparse.Namespace,
    command: Callable[[Callable[[argparse.Namespace, Environment, Console], None]], None],
) -> None:
    options.split, options.bundle, options.report = "test", None, None
    command(evaluate.run)


def _export(
    target: Path,
    options: argparse.Namespace,
    command: Callable[[Callable[[argparse.Namespace, Environment, Console], None]], None],
) -> None:
    # What a run that was cut off left here was never signed, and nobody has it.
    shutil.rmtree(target, ignore_errors=True)
    options.bundle = target
    command(export.run)


def _quantize_step(
    exported: Path, target: Path, version: str, options: argparse.Namespace
) -> list[Step]:
    """The step, where it is asked for: most machines run fp32 well."""
    if not options.quantize:
        return []

    def run() -> None:
        shutil.rmtree(target, ignore_errors=True)
        more = quantize_arguments(options, version)
        _engines("quantize", str(exported), "--out", str(target), *more)

    asked = {
        "precisions": options.quantize,
        "runtimes": options.quantize_runtimes,
        **judged_by(options),
    }
    return [Step("quantize", asked, (target,), run)]


def _asked_of_compile(options: argparse.Namespace) -> dict[str, object]:
    """Without plans nothing but a copy is made, whatever the other options say."""
    if not options.compile:
        return {"targets": []}
    return {
        "targets": options.compile,
        "precisions": options.compile_precisions,
        **judged_by(options),
    }


def _compile(exported: Path, target: Path, plans: Sequence[str], more: Sequence[str]) -> None:
    """The bundle with its plans, in a directory of its own; without plans, a copy."""
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    source = exported
    for number, plan in enumerate(plans):
        last = number == len(plans) - 1
        into = target if last else target.with_name(f"{target.name}.{plan}")
        shutil.rmtree(into, ignore_errors=True)
        _engines("compile", str(source), "--target", plan, "--out", str(into), *more)
        source = into
    if not plans:
        shutil.copytree(exported, target)


def _engines(*arguments: str) -> None:
    """A command of the engines, in a process of its own: it may bring a GPU's libraries."""
    done = subprocess.run([sys.executable, "-m", "engines", *arguments], check=False)  # noqa: S603  our own
    if done.returncode:
        raise RetrainError(
            f"python -m engines {' '.join(arguments)} ended with status {done.returncode}: its "
            "message is above; put it right and start again"
        )


def _verify(bundle: Path) -> None:
    load_bundle(bundle).runtime.close()


def _sign(bundle: Path, key_file: Path) -> None:
    key = read_private_key(key_file)
    added = sign_manifest(verified_manifest_bytes(bundle), key, datetime.now(UTC))
    write_signatures(bundle, with_signature(read_signatures(bundle), added))


def _release(bundle: Path, options: argparse.Namespace) -> None:
    """Promote; a promotion whose answer was lost is found in the channel, and not made twice."""
    store, channel = open_store(options.store), parse_channel(options.channel)
    before = current(store, channel)
    if before is not None and before.after.manifest_sha256 == manifest_sha256(bundle):
        return
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    asked = Asked(who, datetime.now(UTC), options.reason)
    public = read_private_key(options.key).public_key()
    trust = Trust({key_id(public): public})
    promote(store, channel, bundle, asked, trust, margins_of(options), timing_of(options))
