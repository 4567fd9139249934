"""The live proof: it passes here, and fails for a worker with a hole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from localai.audit import proof
from tests.localai.kernels import needs_landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox that is proved is Linux's")

LEAKY = Path(__file__).with_name("leaky_worker.py")


@pytest.fixture(scope="module")
def passed(nano: Path) -> proof.Proof:
    return proof.prove(proof.Request(model=str(nano)))


@needs_landlock
def test_a_real_answer_from_the_full_sandbox(passed: proof.Proof) -> None:
    assert passed.passed, passed.reason
    assert passed.sandbox.level == "full"
    assert passed.tokens > 0
    assert passed.generated
    assert passed.changed == ()


@needs_landlock
def test_attacks_that_work_without_the_sandbox_fail_within_it(passed: proof.Proof) -> None:
    provable = [one for one in passed.attacks if one.provable]
    assert len(provable) >= proof.FEWEST
    assert [one for one in passed.attacks if not one.denied] == []
    assert {"network", "read", "write"} <= {one.concern for one in provable}


def test_no_packet_and_a_counter_that_sees_one(passed: proof.Proof) -> None:
    if not passed.namespace:
        pytest.skip("this system allows no network of its own")
    assert passed.packets == 0
    assert passed.control_packets > 0


@pytest.mark.parametrize("layer", ["seccomp", "landlock"])
def test_a_hole_is_found(nano: Path, layer: str) -> None:
    leaky = (sys.executable, "-P", str(LEAKY), layer)
    found = proof.prove(proof.Request(model=str(nano), command=leaky))
    assert not found.passed
    assert found.tokens > 0
    assert any(one.provable and not one.denied for one in found.attacks)
    assert "attacks succeeded from within the worker" in found.reason


def test_a_worker_that_lies_is_found_out_by_what_it_changed(nano: Path) -> None:
    liar = (sys.executable, "-P", str(LEAKY), "landlock,rlimits,seccomp", "lie")
    found = proof.prove(proof.Request(model=str(nano), command=liar))
    assert found.sandbox.level == "full"
    assert all(one.denied for one in found.attacks)
    assert not found.passed
    assert found.reason.startswith("the worker changed ")
    assert found.changed


def test_a_sandbox_that_is_off_is_no_proof(nano: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_SANDBOX", "off")
    assert not proof.prove(proof.Request(model=str(nano))).passed


def test_a_model_that_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (broken := tmp_path / "broken.gguf").write_bytes(b"GGUF")
    found = proof.prove(proof.Request(model=str(broken)))
    assert not found.passed
    assert "broken.gguf" in found.reason
    assert found.attacks == ()
