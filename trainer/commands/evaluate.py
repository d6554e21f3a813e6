"""``evaluate``: writes evaluate-SPLIT.json."""

import argparse

from rich.console import Console

from trainer.commands.chosen import chosen_detector, split
from trainer.commands.options import Environment, Parsers, configured, write_json
from trainer.evaluation.families import evaluate
from trainer.training.console import report_table
from trainer.training.loop import export_spec


def add(parsers: Parsers, common: argparse.ArgumentParser) -> None:
    """Register the command."""
    parser = parsers.add_parser("evaluate", parents=[common], help="measure on a split")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, environment: Environment, console: Console) -> None:
    """Measure the chosen weights."""
    config = configured(options, environment)
    infer, _ = chosen_detector(config, options.output)
    found = evaluate(infer, split(config, options.split, console), export_spec(config))
    write_json(options.output / f"evaluate-{options.split}.json", found.as_json())
    console.print(report_table(found, f"{options.split}, {options.output}"))
