"""What ``evaluate`` shows a person."""

import io

from rich.console import Console

from trainer.commands.evaluate import result_table
from trainer.evaluation.metrics import FamilyResult, SplitResult


def test_the_results_fit_80_columns_with_whole_headers() -> None:
    """A generator's name of usual length included; the mean and the worst have rows of their own."""
    families = tuple(
        FamilyResult(name, condition, 1234, 10_000, 0.9, 0.8, 0.7, 0.6, 0.5)
        for name in ("stable-diffusion-3", "dalle3")
        for condition in ("native", "aligned")
    )
    by_condition = {"native": 0.9, "aligned": 0.9}
    result = SplitResult(
        families, by_condition, by_condition, dict.fromkeys(by_condition, "dalle3")
    )
    console = Console(file=io.StringIO(), width=80)
    console.print(result_table(result, "test, run mine"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    headers = "generator condition fake real AUC AP acc acc real acc fake"
    assert " ".join(lines[1].split()) == headers
    assert "worst: dalle3" in "\n".join(lines)
    assert "…" not in "\n".join(lines)
