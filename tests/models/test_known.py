"""What is known of a model: measured here, told by the catalogue, or known from others of its types."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from models import catalog, figure_words, measured
from models.figures import Answers, Figures
from models.known import Known
from tests.known_figures import ORIGINAL, known, loss, speed

NANO = catalog.find("r1-nano")
Q8, Q4 = (next(one for one in NANO.measured if one.file_type == kind) for kind in ("Q8_0", "Q4_K_M"))


def test_the_catalogue_tells_what_nobody_measured_here():
    found = Known([]).of(Q8.sha256)
    assert found is not None
    assert found.loss == Q8.loss
    assert found.speed is None


def test_what_was_measured_here_comes_first():
    mine = loss(0.5)
    measured.keep(known(Q8.sha256, loss=mine))
    measured.keep(known(Q4.sha256, speed=speed(40)))
    everything = Known([Q8.sha256, Q4.sha256])
    first, second = everything.of(Q8.sha256), everything.of(Q4.sha256)
    assert first is not None
    assert first.loss == mine
    assert second is not None
    assert (second.loss, second.speed) == (Q4.loss, speed(40))


def test_nothing_is_known_of_other_files():
    assert Known().of("e" * 64) is None
    assert Known().of("") is None


def test_a_type_that_is_shipped_is_known_before_it_is_made():
    found = Known([]).of_type(NANO, "Q4_K_M")
    assert found is not None
    assert found.loss == Q4.loss
    assert Known([]).of_type(NANO, "IQ4_NL") is None


def test_a_ready_made_file_is_known_by_its_digest_alone():
    entry = catalog.find("smollm2:135m")
    assert Known().of_type(entry, "Q4_1") is None
    measured.keep(known("c" * 64, file_type="Q4_1", loss=loss()))
    assert Known().of_type(entry, "Q4_1", ["c" * 64]) is None  # another file of that type
    ready = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    measured.keep(known(ready, file_type="Q4_1", speed=speed(46)))
    found = Known().of_type(entry, "Q4_1")
    assert found is not None
    assert found.speed == speed(46)


def test_types_of_a_comparison_are_known_by_one_that_is_here():
    """All have the same original. With a matrix they are other files than those that `pull` makes."""
    entry = catalog.find("smollm2:135m")
    here, its, with_matrix, another = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
    measured.keep(known(here, file_type="Q8_0", loss=loss(0.001)))
    measured.keep(known(with_matrix, file_type="Q4_K_M", loss=loss(0.04), imatrix=True))
    measured.keep(known(another, file_type="Q4_K_M", loss=loss(0.9, original="f" * 64)))
    assert Known().of_type(entry, "Q4_K_M", [here]) is None
    measured.keep(known(its, file_type="Q4_K_M", loss=loss(0.07)))
    found = Known().of_type(entry, "Q4_K_M", [here])
    assert found is not None
    assert found.loss == loss(0.07)
    assert Known().of_type(entry, "Q4_K_M") is None  # nobody knows that it is the same model
    assert found.loss.reference_sha256 == ORIGINAL


def test_damaged_figures_are_told(home: Path):
    measured.keep(known(Q8.sha256, loss=loss(0.5)))
    path = home / "data" / "models" / "figures" / f"{Q8.sha256}.json"
    path.write_text("{}", "utf-8")
    everything = Known([Q8.sha256])
    assert everything.damaged == (path,)
    found = everything.of(Q8.sha256)
    assert found is not None
    assert found.loss == Q8.loss


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.842, "84 %"),
        (0.9949, "99 %"),
        (0.997, "99.7 %"),
        (0.99999, "99.9 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
    ],
)
def test_a_share_is_never_rounded_to_all(share: float, text: str):
    assert figure_words.percent(share) == text


def test_what_is_said():
    found = known(loss=loss(), speed=speed(41.4), answers=Answers(set="sums", right=97, asked=100))
    assert figure_words.sentences(found) == (
        "Measured here: 41 tokens/s. Goes on as the original does in 84 % of places (KL 0.070 +- 0.004). "
        "97 of 100 answers right (sums)."
    )
    assert figure_words.sentences(known()) == ""
    assert figure_words.sentences(known(speed=speed(0.84))) == "Measured here: 0.8 tokens/s."


def test_what_is_compared_with_a_quantization_is_not_called_the_original():
    said = figure_words.likeness(loss(reference="Q8_0"))
    assert said.startswith("Goes on as its Q8_0 does in 84 % of places")


def test_no_catalogue_tells_a_speed():
    with_speed = msgspec.structs.replace(Q8, speed=speed(40))
    with pytest.raises(ValueError, match="depends on the machine"):
        msgspec.structs.replace(NANO, measured=(with_speed,)).__post_init__()


def test_the_built_in_figures_are_of_files_against_one_original():
    for entry in catalog.entries():
        told: tuple[Figures, ...] = entry.measured
        assert len({one.file_type for one in told}) == len(told)
        assert len({one.loss.reference_sha256 for one in told if one.loss}) <= 1
        assert all(one.loss and one.size > entry.weights[one.file_type] for one in told)
