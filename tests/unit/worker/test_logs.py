"""Logs are JSON, one line an event, from this code and from the libraries beneath it alike."""

import json
import logging

import pytest
import structlog

from worker.logs import configure_logging
from worker.settings import LogSettings

pytestmark = pytest.mark.usefixtures("own_logging")


def test_a_line_is_json_with_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error: standard output belongs to results."""
    configure_logging(LogSettings(), {})
    structlog.get_logger().info("image_event", offset=7)
    written = capsys.readouterr()
    assert written.out == ""
    line = json.loads(written.err)
    assert (line["event"], line["offset"], line["level"]) == ("image_event", 7, "info")
    assert line["timestamp"].endswith("Z")


def test_below_the_level_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither by this code nor by libraries; theirs begin at warnings."""
    configure_logging(LogSettings(level="warning"), {})
    structlog.get_logger().info("quiet")
    logging.getLogger("kafka").info("quiet")
    assert capsys.readouterr().err == ""


def test_a_librarys_warning_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    """So that one parser reads the whole log."""
    configure_logging(LogSettings(), {})
    logging.getLogger("kafka.client").warning("broker %s is away", 7)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"]) == ("broker 7 is away", "warning")


def test_an_error_brings_its_trace_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A trace of many lines would tear the log apart."""
    configure_logging(LogSettings(), {})
    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: invalid literal" in json.loads(line)["exception"]


def test_people_may_have_it_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """The console format is not JSON."""
    configure_logging(LogSettings(format="console"), {})
    structlog.get_logger().info("image_event", offset=7)
    assert "image_event" in capsys.readouterr().err
