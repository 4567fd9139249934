"""Which matrices are measured together, with which type, and what is chosen of what was measured."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.cli.optimize_output import by_kind
from localai.errors import UsageError
from localai.optimization import choosing, kept, measuring
from localai.optimization.choosing import MEASURED_ERROR, choose, costs, looked_at, probe
from localai.optimization.groups import LEAST_BANDS, Group, groups
from localai.optimization.kept import Key, Measured
from models.ggml_types import TENSOR_TYPES, WRITABLE
from quantize.protocol import Errors

KINDS = ("attn_q.weight", "ffn_down.weight", "ffn_up.weight")
ONE, OTHER = "blk.0.ffn_down.weight", "blk.1.ffn_down.weight"


def tensors(layers: int) -> list[str]:
    return ["token_embd.weight", *(f"blk.{layer}.{kind}" for layer in range(layers) for kind in KINDS)]


def errors(name: str, by_type: dict[str, float], weights: int = 2560) -> Errors:
    numbers = {WRITABLE[kind]: error for kind, error in by_type.items()}
    sizes = {number: int(choosing.bits(number) * weights) // 8 for number in numbers}
    return Errors(name, weights, numbers, sizes)


def test_a_size_that_no_types_reach_is_refused_before_anything_is_measured() -> None:
    read = {name: errors(name, {"Q8_0": 0.01, "Q4_K": 0.1, "IQ2_XXS": 0.5}) for name in (ONE, OTHER)}
    least = 2 * 2560 * 66 // 256
    choosing.require_room(read, least)
    with pytest.raises(UsageError, match="too small by"):
        choosing.require_room(read, least - 1)


# -------------------------------------------------------------------------------------------------- groups


@given(st.integers(1, 90), st.integers(0, 400))
def test_each_matrix_is_in_one_group_of_its_kind(layers: int, most: int) -> None:
    found = groups(tensors(layers), most)
    assert sorted(name for group in found for name in group.tensors) == sorted(tensors(layers))
    for group in found:
        assert len({name.split(".", 2)[-1] for name in group.tensors}) == 1
        numbers = [int(name.split(".")[1]) for name in group.tensors if name.startswith("blk")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else len(group.tensors) == 1
    assert len(found) <= max(most, 1 + LEAST_BANDS * len(KINDS))


def test_the_first_and_the_last_layer_are_alone() -> None:
    named = [group.name for group in groups(tensors(30), 20)]
    assert {"token_embd", "ffn_down 0", "ffn_down 29", "attn_q 0"} <= set(named)
    assert [len(g.tensors) for g in groups(tensors(30), 20) if g.name.startswith("ffn_up")] == [
        1,
        7,
        7,
        7,
        7,
        1,
    ]


def test_with_enough_time_all_are_alone() -> None:
    assert all(len(group.tensors) == 1 for group in groups(tensors(12), 37))


# ------------------------------------------------------------------------------------------------ the probe


def test_a_group_is_measured_with_the_error_of_four_bits() -> None:
    known = {ONE: errors(ONE, {"Q8_0": 3e-5, "Q5_K": 0.0013, "Q4_K": 0.0051, "Q2_K": 0.09})}
    assert probe(Group("", (ONE,)), known) == WRITABLE["Q4_K"]


def test_a_type_that_takes_nothing_tells_nothing() -> None:
    """Weights that were once in Q4_1."""
    known = {ONE: errors(ONE, {"Q4_1": 0.0, "Q5_1": 4e-8, "Q5_0": 0.0015, "Q8_0": 3e-5})}
    assert probe(Group("", (ONE,)), known) == WRITABLE["Q5_0"]


def test_a_type_that_one_of_them_cannot_be_is_no_probe() -> None:
    known = {
        ONE: errors(ONE, {"Q4_K": MEASURED_ERROR, "Q4_0": 0.01}),
        OTHER: errors(OTHER, {"Q4_0": 0.01}),
    }
    assert probe(Group("", (ONE, OTHER)), known) == WRITABLE["Q4_0"]


def test_without_a_type_that_all_can_have_there_is_one_line() -> None:
    known = {ONE: errors(ONE, {"Q4_K": 0.01}), OTHER: errors(OTHER, {"Q4_0": 0.01})}
    with pytest.raises(UsageError, match="no type that all its matrices can have"):
        probe(Group("attn_q 0-1", (ONE, OTHER)), known)


def test_what_the_text_did_not_use_keeps_bits_where_there_is_room() -> None:
    known = {ONE: errors(ONE, {"Q8_0": 3e-5, "Q2_K": 0.08})}
    found = costs(Group("", (ONE,)), known, WRITABLE["Q2_K"], 0.0)
    assert choose(known, found, 10**9).types == {ONE: "Q8_0"}


def test_the_loss_of_a_group_is_that_of_its_matrices() -> None:
    known = {ONE: errors(ONE, {"Q4_0": 0.01}), OTHER: errors(OTHER, {"Q4_0": 0.03})}
    found = costs(Group("", (ONE, OTHER)), known, WRITABLE["Q4_0"], 0.2)
    assert sum(found[name] * known[name].errors[WRITABLE["Q4_0"]] for name in known) == pytest.approx(0.2)


# ----------------------------------------------------------------------------------------------- the choice


def test_what_matters_most_keeps_most_bits() -> None:
    by_type = {"Q8_0": 3e-5, "Q4_K": 0.005, "Q2_K": 0.08}
    known = {ONE: errors(ONE, by_type), OTHER: errors(OTHER, by_type)}
    room = known[ONE].sizes[WRITABLE["Q8_0"]] + known[ONE].sizes[WRITABLE["Q2_K"]]
    assert choose(known, {ONE: 100.0, OTHER: 1.0}, room).types == {ONE: "Q8_0", OTHER: "Q2_K"}
    assert choose(known, {ONE: 1.0, OTHER: 1.0}, room).types == {ONE: "Q4_K", OTHER: "Q4_K"}


@given(st.lists(st.tuples(st.floats(0.1, 50), st.integers(1, 40)), min_size=1, max_size=4), st.floats(0.3, 1))
def test_nothing_better_fits(matrices: list[tuple[float, int]], share: float) -> None:
    by_type = {"Q8_0": 3e-5, "Q5_K": 0.0013, "IQ4_XS": 0.006, "Q3_K": 0.02}
    known = {f"blk.{n}.x": errors(f"blk.{n}.x", by_type, 256 * rows) for n, (_, rows) in enumerate(matrices)}
    cost = {name: matrix[0] for name, matrix in zip(known, matrices, strict=True)}
    sizes = [known[name].sizes for name in known]
    room = int(sum(max(one.values()) for one in sizes) * share)
    best = min(
        (
            sum(cost[name] * known[name].errors[kind] for name, kind in zip(known, kinds, strict=True))
            for kinds in product(*sizes)
            if sum(one[kind] for one, kind in zip(sizes, kinds, strict=True)) <= room
        ),
        default=None,
    )
    if best is None:
        with pytest.raises(UsageError, match="too small"):
            choose(known, cost, room)
        return
    found = choose(known, cost, room)
    assert found.nbytes <= room
    assert found.kl == pytest.approx(best)
    assert found.kl == pytest.approx(
        sum(cost[name] * known[name].errors[WRITABLE[kind]] for name, kind in found.types.items())
    )


def test_a_size_that_nothing_has_is_told_by_how_much() -> None:
    known = {ONE: errors(ONE, {"Q4_0": 0.01}, 2_560_000)}
    with pytest.raises(UsageError, match=r"--max-size is too small by 0\.4 MB"):
        choose(known, {ONE: 1.0}, 1_000_000)


def test_types_that_are_far_too_coarse_are_not_looked_at() -> None:
    def named(bits: float) -> set[str]:
        return {TENSOR_TYPES[number].name for number in looked_at(int(bits * 1e6 / 8), 1_000_000)}

    assert "Q2_K" in named(4.6)
    assert not {"Q2_K", "IQ2_XXS"} & named(6.5)
    assert {"Q4_K", "IQ4_XS", "Q8_0"} <= named(8.4)


# ---------------------------------------------------------------------------------------- what is kept, shown


def test_what_was_measured_is_found_again_also_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.losses"
    one, other = Measured((ONE, OTHER), 2, 0.5, 0.1), Measured((ONE,), 3, 0.0, 0.0)
    kept.add(path, one)
    with path.open("ab") as file:
        file.write(b'{"tensors": ["blk.')
    kept.add(path, other)
    with path.open("ab") as file:
        file.write(b'\n{"tensors": ["a"], "type": 1, "kl": -1, "kl_stderr": 0}\nnull\n\xff')
    assert kept.load(path) == (0, {((ONE, OTHER), 2): one, ((ONE,), 3): other})
    kept.add(path, kept.Begun(57))
    assert kept.load(path).most == 57
    assert path.parent.stat().st_mode & 0o077 == 0
    assert kept.load(tmp_path / "none") == (0, {})


def test_it_is_kept_by_all_that_it_depends_on() -> None:
    whole = {"base": "a", "text": "b", "context": 512, "chunks": 2, "imatrix": "c", "llama_cpp_commit": "d"}
    paths = {
        Key(**{**whole, field: 3 if isinstance(value, int) else "x"}).path for field, value in whole.items()
    }
    assert len({Key(**whole).path, *paths}) == 7


@pytest.mark.parametrize(
    ("affordable", "before", "most"), [(92, 0, 92), (92, 57, 57), (30, 57, 57), (120, 57, 120)]
)
def test_a_busier_machine_measures_the_same_groups(affordable: int, before: int, most: int) -> None:
    """Else nothing that was measured would count."""
    assert measuring._most(affordable, before) == most


def test_types_are_shown_by_layers() -> None:
    types = {f"blk.{n}.ffn_up.weight": "Q4_K" if n < 3 else "Q6_K" for n in range(5)}
    types |= {"token_embd.weight": "Q8_0", "blk.0.attn_q.weight": "Q5_K", "blk.1.attn_q.weight": "Q4_K"}
    assert by_kind(types) == [
        ("ffn_up", "Q4_K 0-2, Q6_K 3-4"),
        ("token_embd", "Q8_0"),
        ("attn_q", "Q5_K 0, Q4_K 1"),
    ]
