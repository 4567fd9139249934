"""The options of `localai quantize --optimize` and `--recipe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import UsageError

if TYPE_CHECKING:
    from models.mixture import Mixture


@dataclasses.dataclass(frozen=True)
class Optimizing:
    """A type for each tensor."""

    optimize: Annotated[
        bool,
        typer.Option(
            "--optimize",
            help="Measure how much each matrix matters, and choose the type of every one for the least loss "
            "within --max-size.",
        ),
    ] = False
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="FILE|NAME",
            help="Take the types that --optimize has found: from its recipe, or as a model in the store has "
            "them. Also for another model of the same architecture.",
            show_default=False,
        ),
    ] = None

    def require_alone(self, others: Mapping[str, object]) -> None:
        """UsageError for --optimize with one of `others`, the options that choose types, by name."""
        given = [name for name, value in others.items() if value and name != "--max-size"]
        if self.optimize and given:
            raise UsageError(f"--optimize and {given[0]} exclude each other", "Leave one of them out")
        if self.optimize and not others["--max-size"]:
            raise UsageError(
                "--optimize needs to know how large the file may be", "Add --max-size, such as 4GB"
            )

    def mixtures(self, others: Mapping[str, object], *, with_imatrix: bool) -> tuple[Mixture, ...]:
        """What --recipe names; none without it. `others`: the options that choose types, by name.

        UsageError if one of them is given, too; the errors of reading a recipe, and of the store.
        """
        if self.recipe is None:
            return ()
        given = [name for name, value in {"--optimize": self.optimize, **others}.items() if value]
        if given:
            raise UsageError(f"--recipe and {given[0]} exclude each other", "Leave one of them out")
        return (_mixture(self.recipe, with_imatrix=with_imatrix),)


def _mixture(text: str, *, with_imatrix: bool) -> Mixture:
    """The mixture in the recipe file `text`, or of the model of the store that is called so."""
    from models.local_path import is_path
    from models.names import is_name
    from models.origins import Checkpoint
    from models.store import Store
    from quantize import recipe

    path = options.path(text)
    if path.exists() or is_path(text) or not is_name(text):
        found = recipe.read(path)
        _advise(found.imatrix_sha256, with_imatrix)
        return found.mixture
    source = Store().get(text).source
    if not isinstance(source, Checkpoint) or source.mixture is None:
        raise UsageError(
            f"the model {text} was not made with a recipe", "Name one that was, or a file of --optimize"
        )
    _advise(source.imatrix_sha256, with_imatrix)
    return source.mixture


def _advise(imatrix_sha256: str, with_imatrix: bool) -> None:
    if imatrix_sha256 and not with_imatrix:
        output.note("The recipe was found with an importance matrix: with --imatrix auto it loses less")
