"""entrypoint.doctor.examine and the checks: what is made of the facts of a machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.doctor import examine
from entrypoint.doctor.devices import serves
from entrypoint.doctor.facts import Facts, Place, Rendezvous, Token
from entrypoint.doctor.judgement import Finding
from entrypoint.hardware import Driver, Gpu
from tests.unit.doctor.machines import A100, CUDA_TORCH, GIB, LAPTOP, laptop, workstation


def found(facts: Facts, check: str) -> Finding:
    matches = [finding for finding in examine.examine(facts) if finding.check == check]
    assert matches
    return max(matches, key=lambda finding: ("ok", "note", "problem").index(finding.level))


def levels(facts: Facts) -> dict[str, str]:
    return {f.check: f.level for f in examine.examine(facts) if f.level != "ok"}


def test_a_machine_with_gpus_on_which_all_is_well_has_nothing_but_good_findings():
    assert levels(workstation()) == {}


def test_a_machine_without_a_gpu_is_no_problem():
    assert levels(laptop()) == {"gpus": "note"}


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (laptop(python="3.13.1"), "python", "3.10 to 3.12"),
        (laptop(requirements=()), "packages", "not installed"),
        (laptop(installed={"torch": "2.13.0"}), "packages", "peft missing (needed: >=0.21)"),
        (laptop(installed={**LAPTOP.installed, "peft": "0.20"}), "packages", "peft 0.20"),
        (laptop(torch=None, torch_error="libcudart.so.12: not found"), "torch", "libcudart"),
        (
            laptop(torch=replace(CUDA_TORCH, version="2.4.1+cu124")),
            "torch",
            "2.4.1+cu124, built for CUDA 12.6",
        ),
        (laptop(wanted_device="cuda"), "gpus", "TRAIN_DEVICE asks for cuda"),
        (workstation(torch=LAPTOP.torch), "gpus", "CPU build"),
        (workstation(torch=replace(CUDA_TORCH, usable_gpus=1)), "gpus", "can use 1 of them"),
        (
            workstation(torch=replace(CUDA_TORCH, architectures=("sm_90",))),
            "gpus",
            "compute capability 8.0",
        ),
        (workstation(driver=Driver(cuda=(11, 8), gpus=(A100, A100))), "driver", "up to 11.8"),
        (workstation(torch=replace(CUDA_TORCH, nccl=None)), "nccl", "cannot train together"),
        (workstation(shared_memory=64 << 20), "shared memory", "NCCL may fail"),
        (laptop(memory_free=GIB), "memory", "1.0 GiB free of 16.0 GiB"),
        (
            laptop(outputs=Place(path=Path("/x"), writable=False, free=GIB)),
            "outputs",
            "/x cannot be written",
        ),
        (laptop(outputs=Place(path=Path("/x"), writable=True, free=GIB)), "outputs", "1.0 GiB"),
        (laptop(scratch=None), "temporary files", "--tmpfs /tmp"),
        (
            laptop(scratch=Place(path=Path("/tmp"), writable=True, free=0)),
            "temporary files",
            "0 MiB free in /tmp",
        ),
        (
            laptop(tokens={"HF_TOKEN": Token(source="environment", clean=False)}),
            "HF_TOKEN",
            "blanks or quotes",
        ),
        (
            laptop(
                rendezvous=Rendezvous(
                    variables={"WORLD_SIZE": "2"},
                    error="MASTER_ADDR is not set\n  where: MASTER_ADDR\n  to do: set it to x",
                )
            ),
            "rendezvous",
            "MASTER_ADDR is not set (WORLD_SIZE=2)",
        ),
        (
            laptop(
                rendezvous=Rendezvous(
                    variables={}, size=2, nodes=2, rank=1, master="gone:29500", master_found=False
                )
            ),
            "rendezvous",
            "gone:29500 has no address",
        ),
    ],
)
def test_what_stops_a_run_is_a_problem_with_a_remedy(facts: Facts, check: str, words: str):
    finding = found(facts, check)
    assert finding.level == "problem"
    assert words in f"{finding.what} {finding.means} {finding.to_do}"
    assert finding.to_do
    assert [f.check for f in examine.examine(facts) if f.level == "problem"] == [check]


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        (laptop(lock=None), "lock", "no requirements.lock"),
        (
            laptop(installed={**LAPTOP.installed, "numpy": "2.3.0"}),
            "lock",
            "numpy 2.3.0 (locked",
        ),
        (workstation(driver=Driver(cuda=(12, 2), gpus=(A100, A100))), "driver", "major version"),
        (
            workstation(driver=Driver(cuda=(12, 8), gpus=()), visible_devices=""),
            "gpus",
            "CUDA_VISIBLE_DEVICES=''",
        ),
        (laptop(shared_memory=64 << 20), "shared memory", "several GPUs need"),
        (laptop(cores_allowed=1.5), "cores", "OMP_NUM_THREADS=1"),
        (laptop(outputs=Place(path=Path("/x"), writable=True, free=5 * GIB)), "outputs", "small"),
        (laptop(offline=True), "hub", "HF_HUB_OFFLINE"),
        (laptop(allocator=None), "allocator", "libtcmalloc-minimal4"),
        (laptop(container=True), "gpus", "docker compose run --rm train"),
    ],
)
def test_what_is_good_to_know_is_a_note(facts: Facts, check: str, words: str):
    finding = found(facts, check)
    assert finding.level == "note"
    assert words in f"{finding.what} {finding.means} {finding.to_do}"
    assert not examine.problems(examine.examine(facts))


def test_several_machines_are_described():
    job = Rendezvous(variables={}, size=2, nodes=2, rank=1, master="node-0:29500")
    finding = found(laptop(rendezvous=job), "rendezvous")
    assert (finding.level, finding.what) == ("ok", "rank 1 of 2, 2 machines")
    assert "node-0:29500" in finding.means


@pytest.mark.parametrize(
    ("architectures", "capability", "expected"),
    [
        (("sm_80",), (8, 0), True),
        (("sm_80",), (8, 6), True),
        (("sm_86",), (8, 0), False),
        (("sm_80",), (9, 0), False),
        (("compute_80",), (9, 0), True),
        (("sm_90a",), (9, 0), True),
        (("sm_100", "sm_120"), (12, 0), True),
        ((), (8, 0), True),
    ],
)
def test_kernels_serve_their_major_version_and_ptx_all_later_ones(
    architectures: tuple[str, ...], capability: tuple[int, int], expected: bool
):
    assert serves(architectures, capability) is expected


def test_the_report_says_what_to_do():
    text = examine.as_text(examine.examine(laptop(wanted_device="cuda", memory_free=0)))
    assert "problem  gpus" in text
    assert "to do: install the NVIDIA driver" in text
    assert "no problems" not in text
    assert max(map(len, text.splitlines())) <= 100
    # all say it in one column, however long the name of a check is
    column = len(examine.INDENT)
    assert all(line[column - 1] == " " != line[column] for line in text.splitlines() if line)
    assert examine.as_text(examine.examine(laptop())).endswith("\nno problems")


def test_the_report_for_programs_has_these_keys():
    report: dict[str, Any] = examine.as_dict(examine.examine(laptop(memory_free=0)))
    assert set(report) == {"version", "ok", "findings"}
    assert report["ok"] is False
    assert {frozenset(f) for f in report["findings"]} == {
        frozenset({"check", "level", "what", "means", "to_do"})
    }


def test_gpus_are_named_with_their_memory():
    small = Gpu(name="Tesla T4", memory=15 * GIB, capability=(7, 5))
    torch = replace(CUDA_TORCH, usable_gpus=1, architectures=("sm_75",))
    facts = workstation(driver=Driver(cuda=(12, 6), gpus=(small,)), torch=torch)
    assert found(facts, "gpus").what == "1: Tesla T4 with 15.0 GiB"
