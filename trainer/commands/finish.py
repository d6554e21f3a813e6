"""``finish``: from a trained run to a bundle: calibrate, evaluate, export, verify, and sign with --key.

In: a configuration, a run's folder, the images. Out: a bundle; ``finish.json`` in the run's folder. A step
whose inputs have not changed is skipped. Errors: those of the steps.
"""

import argparse
import shutil
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from engines.bundle.keys import key_id, read_private_key
from engines.bundle.manifest import MANIFEST_FILE, SIGNATURES_FILE, weights_file
from engines.bundle.signatures import (
    read_signatures,
    sign_manifest,
    with_signature,
    write_signatures,
)
from engines.bundle.verify import load_bundle, verified_manifest_bytes
from trainer.bundle.model_card import EVALUATION
from trainer.cli import Environment, add_common, configured
from trainer.commands import calibrate, evaluate, export
from trainer.config import Config
from trainer.data.dataset import scan
from trainer.stamps import Step, digests, read_stamps, run_steps
from trainer.training import checkpoint
from trainer.training.checkpoint import CALIBRATION, flat_config

_STAMPS = "finish.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.description = (
        "From a trained run to a bundle. A step whose inputs have not changed is skipped."
    )
    add_common(parser)
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle's directory")
    parser.add_argument("--key", type=Path, help="a private key (PEM) that signs the bundle")


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Run every step that is not done."""
    config = configured(options, environment)
    bundle: Path = options.bundle
    steps = [
        *bundle_steps(config, bundle, options, environment, console),
        Step("verify", {}, (bundle,), (), lambda: verify(bundle)),
    ]
    if options.key is not None:
        steps.append(sign_step(bundle, options.key))
    run_steps(steps, options.output / _STAMPS, lambda text: console.print(text, highlight=False))
    console.print(f"{bundle}: {config.export.name} {config.export.version}", highlight=False)


def bundle_steps(
    config: Config,
    bundle: Path,
    options: argparse.Namespace,
    environment: Environment,
    console: Console,
    *,
    owned: bool = False,
) -> list[Step]:
    """Calibrate, evaluate and export a run, which must be trained by the time that they run.

    Args:
        config: of the run.
        bundle: the directory that export writes.
        options: of the command, ``output`` among them; the steps run with these.
        environment: for ``${NAME}`` in the configuration.
        console: where the steps print.
        owned: whether the bundle's directory belongs to the job, which may then replace it; else only a
            bundle that this command stamped is replaced.
    """
    best, makes = options.output / checkpoint.BEST, (bundle, weights_file(bundle))
    calibration, evaluation = options.output / CALIBRATION, options.output / EVALUATION
    flat, data = flat_config(config), scan(config.data).digest
    fitting = {name: value for name, value in flat.items() if not name.startswith("evaluation.")}

    def do_calibrate() -> None:
        export.refuse_if_strict(config, checkpoint.load_best(options.output, config)[0])
        calibrate.run(options, environment, console)

    def do_evaluate() -> None:
        chosen = argparse.Namespace(
            **vars(options) | {"split": "test", "bundle": None, "report": None}
        )
        evaluate.run(chosen, environment, console)

    def do_export() -> None:
        made = read_stamps(options.output / _STAMPS).get("export", {}).get("made")
        _make_room(bundle, replace=owned or bool(made and made == digests(makes)))
        export.run(argparse.Namespace(**vars(options) | {"bundle": bundle}), environment, console)

    return [
        Step("calibrate", fitting | {"data": data}, (best,), (calibration,), do_calibrate),
        Step("evaluate", flat | {"data": data}, (best, calibration), (evaluation,), do_evaluate),
        Step(
            "export",
            {**flat, "card": config.export.card.model_dump(), "bundle": str(bundle)},
            (best, calibration, evaluation),
            makes,
            do_export,
        ),
    ]


def _make_room(bundle: Path, *, replace: bool) -> None:
    if replace:
        shutil.rmtree(bundle, ignore_errors=True)
    bundle.parent.mkdir(parents=True, exist_ok=True)


def verify(bundle: Path) -> None:
    """Check every digest and the golden outputs."""
    load_bundle(bundle).runtime.close()


def sign_step(bundle: Path, key: Path) -> Step:
    """The step that signs a bundle's manifest."""
    public = key_id(read_private_key(key).public_key())
    return Step(
        "sign",
        {"key": public},
        (bundle / MANIFEST_FILE,),
        (bundle / SIGNATURES_FILE,),
        lambda: _sign(bundle, key),
    )


def _sign(bundle: Path, key: Path) -> None:
    added = sign_manifest(verified_manifest_bytes(bundle), read_private_key(key), datetime.now(UTC))
    write_signatures(bundle, with_signature(read_signatures(bundle), added))
