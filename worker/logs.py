"""Logging to standard error: JSON, one object per line, or readable lines for people.

kafka-python and redis log through the standard library; their warnings get the same format.
"""

import logging
import sys
from collections.abc import Mapping

import structlog

from worker.settings import LogSettings


def configure_logging(settings: LogSettings, environment: Mapping[str, str]) -> None:
    """Set up structlog and the standard library's logging.

    Args:
        settings: Level and format.
        environment: The process's environment variables: NO_COLOR and FORCE_COLOR are honoured.
    """
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer(colors=_use_colours(environment))
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write per line: with two, a line from the standard library could come between them.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _use_colours(environment: Mapping[str, str]) -> bool:
    """Colours on a terminal only; NO_COLOR wins over FORCE_COLOR (no-color.org, force-color.org)."""
    if environment.get("NO_COLOR"):
        return False
    return bool(environment.get("FORCE_COLOR")) or sys.stderr.isatty()
