"""entrypoint.memory and activations: what is in memory, part by part, by arithmetic."""

import resource
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from entrypoint.activations import Load, Switches, sizes_of
from entrypoint.hardware import Build
from entrypoint.memory import IMPORTED_BYTES, Footprint, footprint
from entrypoint.methods import NF4_BYTES
from entrypoint.models.published import published
from entrypoint.settings import Settings

MODELS = published()
SMALL = MODELS["meta-llama/Llama-3.2-1B"]
LOAD = Load(tokens=2048, cells=2048, labels=1024)
PACKED = Switches(window=2048)


def needs(
    *, model: Any = SMALL, teacher: Any = None, load: Load = LOAD, switches: Switches = PACKED,
    device: str = "cuda", dtype: str = "bf16", processes: int = 1, build: Build = "cpu",
    **settings: Any,
) -> Footprint:  # fmt: skip
    return footprint(
        Settings(**settings), model, teacher,
        device=device, dtype=dtype, processes=processes, load=load, switches=switches, build=build,
    )  # fmt: skip


def test_on_a_cpu_a_torch_that_was_built_for_cuda_takes_more():
    extra = IMPORTED_BYTES["cuda"] - IMPORTED_BYTES["cpu"]
    plain, larger = (needs(device="cpu", build=build) for build in ("cpu", "cuda"))
    assert larger.total - plain.total == extra
    assert needs(build="cuda") == needs()


def test_weights_gradients_and_optimizer_are_those_of_the_method():
    full, lora, qlora = (needs(method=method) for method in ("full", "lora", "qlora"))
    assert full.weights == full.gradients == SMALL.parameters * 2
    assert full.optimizer == 2 * full.gradients
    assert lora.weights == SMALL.parameters * 2
    assert lora.adapters == lora.gradients < lora.weights / 50
    in_layers = SMALL.parameters - 128_256 * 2048 - 33 * 2048
    assert lora.weights - qlora.weights == pytest.approx(in_layers * (2 - NF4_BYTES), rel=1e-6)


def test_frozen_weights_in_fp32_have_hidden_states_in_fp32_beside_them():
    wide = replace(PACKED, frozen_dtype="fp32")
    found, plain = needs(device="cpu", switches=wide), needs(device="cpu")
    assert found.weights == SMALL.parameters * 4 == 2 * plain.weights
    assert (found.adapters, found.optimizer) == (plain.adapters, plain.optimizer)
    exact = needs(device="cpu", dtype="fp32")
    passing = [one.activations + one.gradients for one in (found, exact, plain)]
    assert passing[0] == passing[1] > passing[2]
    # nothing is frozen there
    assert needs(method="full", switches=wide) == needs(method="full")


def test_processes_divide_weights_and_gather_those_of_a_layer():
    alone, among_four = needs(method="full"), needs(method="full", processes=4)
    assert among_four.state * 4 == alone.state
    assert alone.gather == 0 < among_four.gather
    assert among_four.activations >= alone.activations


def test_a_reference_or_a_teacher_is_in_memory_once_more():
    copies = needs(objective="dpo", method="full")
    assert copies.second == SMALL.parameters * 2
    assert needs(objective="dpo", method="full", precompute_reference=True).second == 0
    assert needs(objective="dpo").second == 0
    teacher = MODELS["meta-llama/Llama-3.1-8B"]
    assert needs(objective="kd", teacher=teacher).second == teacher.parameters * 2
    in_fp32 = replace(PACKED, second_dtype="fp32")
    assert needs(objective="kd", teacher=teacher, switches=in_fp32).second == teacher.parameters * 4
    assert needs(objective="kd", teacher=SMALL).second == 0


def test_activations_grow_with_tokens_and_shrink_when_they_are_computed_again():
    half = needs(load=replace(LOAD, tokens=1024, cells=1024))
    assert needs().activations == pytest.approx(2 * half.activations, rel=0.05)
    again = needs(switches=replace(PACKED, checkpointing=True))
    assert again.activations < needs().activations / 3


def test_logits_exist_a_chunk_at_a_time():
    assert needs().logits < needs(switches=replace(PACKED, chunked=False)).logits / 3
    assert needs(load=replace(LOAD, labels=16)).logits < needs().logits / 3


def test_on_a_cpu_logits_of_two_models_are_in_fp32_for_few_tokens_at_a_time():
    on_cpu, on_gpu = (
        needs(objective="kd", teacher=SMALL, device=device).logits for device in ("cpu", "cuda")
    )
    assert on_cpu < on_gpu / 4
    assert on_cpu > needs(device="cpu").logits * 1.3


def test_the_sum_is_of_all_parts():
    found = needs(method="full", device="cpu")
    parts = found.as_dict()
    assert parts.pop("total") == sum(parts.values()) == found.total
    assert found.least < found.total


@pytest.mark.parametrize("name", MODELS)
def test_every_published_model_has_its_sizes(name: str):
    sizes = sizes_of(MODELS[name])
    assert sizes.layers == MODELS[name].arguments["num_layers"]
    assert sizes.head_dim in (64, 80, 96, 128, 256)
    assert sizes.vocab >= 32_000


def test_a_70b_plan_takes_seconds_and_no_torch():
    code = (
        "import sys; from entrypoint.models.published import published\n"
        "from tests.unit.test_memory import needs\n"
        "model = published()['meta-llama/Llama-3.3-70B-Instruct']\n"
        "assert needs(model=model, method='full').total > 500e9\n"
        "sys.exit('torch' in sys.modules)"
    )
    began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run((sys.executable, "-c", code), check=True)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began < 5
