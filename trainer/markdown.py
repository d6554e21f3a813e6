"""Markdown from the Jinja templates of the trainer's packages."""

import re

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

_TABLES = "trainer.evaluation"  # whose templates hold what all share


def render(package: str, template: str, **values: object) -> str:
    """The text of a template; blank lines that follow each other become one.

    Args:
        package: that holds the folder ``templates``.
        template: a file of that folder; it may import those of ``trainer.evaluation`` too.
        values: by name, as the template uses them. A name that is missing is an error.
    """
    environment = Environment(  # noqa: S701  Markdown, not HTML
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(_TABLES)]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{share:.{digits}%}"
    environment.filters["fixed"] = lambda value, digits=3: f"{value:.{digits}f}"
    text = environment.get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
