"""``loss-scoring losses``: the table of losses."""

from rich.table import Table

from loss_scoring.core import LOSSES
from loss_scoring.service.cli.console import table_console


def losses() -> None:
    """List the losses, their parameters and formulas (y target, p prediction, T elements)."""
    table = Table("name", "loss of a series", "gradient of an element", "parameters")
    for loss in LOSSES.values():
        parameters = ", ".join(f"{name}={value}" for name, value in loss.parameters.items())
        table.add_row(loss.name, f"{loss.title}:\n{loss.formula}", loss.gradient, parameters)
    table_console().print(table)
