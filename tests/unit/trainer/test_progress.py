"""A long command says how far it is, on a terminal and in a file."""

import io

import pytest
from rich.console import Console

from trainer.progress import ProgressBar, in_words


def test_in_a_file_a_line_comes_only_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time that is left, judged by what was done since the start."""
    now_s = [0.0]
    monkeypatch.setattr("trainer.progress.time.monotonic", lambda: now_s[0])
    out = io.StringIO()
    with ProgressBar(Console(file=out, width=200), "training", line_every_s=30) as bar:
        bar.begin(100, 200)  # resumed: the first hundred say nothing of the speed
        for done, now in ((110, 20.0), (120, 40.0), (125, 50.0)):
            now_s[0] = now
            bar.show(done, 200, f"step {done}/200 [x]")
    assert out.getvalue().splitlines() == ["step 120/200 [x], 3 min left"]


def test_notes_are_printed_as_they_are() -> None:
    """Brackets are those of a path, never markup."""
    out = io.StringIO()
    with ProgressBar(Console(file=out, width=200), "training") as bar:
        bar.note("skipped real/[red]/x.jpg")
        bar.warn("not ANL:", "[7 %] learnt")
    assert out.getvalue().splitlines() == ["skipped real/[red]/x.jpg", "not ANL: [7 %] learnt"]


def test_a_terminal_is_shown_the_bar() -> None:
    """The name, the text and the time left, which a file is not given at every step."""
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with ProgressBar(console, "training") as bar:
        bar.show(0, 4, "loss 0.7")
        bar.show(2, 4, "loss 0.5")
    assert "training" in out.getvalue()
    assert "loss 0.5" in out.getvalue()


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [(12, "12 s"), (59.4, "59 s"), (90, "2 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_a_time_is_said_in_words(duration_s: float, words: str) -> None:
    assert in_words(duration_s) == words
