"""The config blob: what is read is what was written, and everything else is refused with its JSON path."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from bundle_format.canonical import canonical_bytes
from bundle_format.config_json import config_bytes, parse_config
from bundle_format.dims import parse_dim
from bundle_format.errors import BundleError
from bundle_format.schema import Config, DataSize, Guard, Value
from tests.runtime.sample import sample_config

Tree = dict[str, Any]


def sample() -> Config:
    return sample_config("x86-64-v3", ("avx2", "fma"), "x86_64")


def changed(change: Callable[[Tree], object]) -> bytes:
    """The bytes of a sound config after a change."""
    tree: Tree = copy.deepcopy(json.loads(config_bytes(sample())))
    change(tree)
    return canonical_bytes(tree)


def give_results(tree: Tree, *rows: tuple[str, str, str]) -> None:
    """Results of one output each, without labels."""
    results = [{"name": name, "kind": kind, "outputs": [output], "labels": []} for name, kind, output in rows]
    tree["entries"][0].update(results=results)


@pytest.mark.unit
def test_config_when_printed_then_parses_to_itself() -> None:
    config = sample()._replace(
        numerics={"level": "reproducible", "ulp": 1.5, "relaxed": False, "note": None},
        sources={"model": sample().weights[0].source},
        ignorable=("hotness",),
    )
    data = config_bytes(config)
    assert parse_config(data) == config
    assert config_bytes(parse_config(data)) == data


REFUSALS: list[tuple[str, str, Callable[[Tree], object]]] = [
    ("CONFIG_INCONSISTENT", "$.entries[0].outputs", lambda tree: tree["entries"][0].update(outputs=[])),
    ("FIELD_UNKNOWN", "$.speed", lambda tree: tree.update(speed=1)),
    ("FIELD_UNKNOWN", "$.entries[0].inputs[0].stride", lambda tree: tree["entries"][0]["inputs"][0].update(stride=1)),
    ("FIELD_MISSING", "$.weights[1].layout", lambda tree: tree["weights"][1].pop("layout")),
    ("FIELD_MISSING", "$.ignorable", lambda tree: tree.pop("ignorable")),
    ("FIELD_TYPE", "$.weights[0].bytes", lambda tree: tree["weights"][0].update(bytes="12")),
    ("FIELD_TYPE", "$.weights[0].bytes", lambda tree: tree["weights"][0].update(bytes=True)),
    ("FIELD_TYPE", "$.weights[0].bytes", lambda tree: tree["weights"][0].update(bytes=-1)),
    ("FIELD_TYPE", "$.weights[0].bytes", lambda tree: tree["weights"][0].update(bytes=2**63)),
    ("FIELD_TYPE", "$.nodes[1]", lambda tree: tree["nodes"].__setitem__(1, None)),
    ("FIELD_TYPE", "$.nodes", lambda tree: tree.update(nodes="ab")),
    ("FIELD_TYPE", "$.numerics.level", lambda tree: tree["numerics"].update(level=[1])),
    ("FIELD_TYPE", "$.target", lambda tree: tree.update(target=[])),
    ("FIELD_UNSUPPORTED", "$.abi", lambda tree: tree.update(abi=2)),
    ("FIELD_UNSUPPORTED", "$.abi", lambda tree: tree.update(abi=True)),
    (
        "FIELD_UNSUPPORTED",
        "$.entries[0].inputs[0].dtype",
        lambda tree: tree["entries"][0]["inputs"][0].update(dtype="f33"),
    ),
    ("FIELD_UNSUPPORTED", "$.guards[0].relation", lambda tree: tree["guards"][0].update(relation="~")),
    (
        "FIELD_OVERSIZE",
        "$.entries[0].inputs[0].shape",
        lambda tree: tree["entries"][0]["inputs"][0].update(shape=[1] * 33),
    ),
    ("VERSION_UNSUPPORTED", "$.format.major", lambda tree: tree["format"].update(major=2)),
    (
        "DIGEST_MALFORMED",
        "$.weights[0].digest",
        lambda tree: tree["weights"][0].update(digest="sha256:../../etc/passwd"),
    ),
    ("DIM_MALFORMED", "$.guards[0].left", lambda tree: tree["guards"][0].update(left="N %")),
    ("WEIGHT_MISALIGNED", "$.weights[1].offset", lambda tree: tree["weights"][1].update(offset=65)),
    ("CONFIG_INCONSISTENT", "$.entries", lambda tree: tree.update(entries=[])),
    ("CONFIG_INCONSISTENT", "$.entries", lambda tree: tree["entries"].append(tree["entries"][0])),
    ("CONFIG_INCONSISTENT", "$.entries[0].inputs[0].shape", lambda tree: tree["entries"][0].update(dims=[])),
    ("CONFIG_INCONSISTENT", "$.entries[0].dims[0]", lambda tree: tree["entries"][0]["dims"][0].update(max=0)),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[1].states[0]",
        lambda tree: tree["entries"][1]["states"][0].update(output="none"),
    ),
    ("FIELD_TYPE", "$.entries[1].states[0].in_place", lambda tree: tree["entries"][1]["states"][0].update(in_place=1)),
    ("CONFIG_INCONSISTENT", "$.guards[0].at", lambda tree: tree["guards"][0].update(at="")),
    ("CONFIG_INCONSISTENT", "$.entries[0].workspace", lambda tree: tree["entries"][0].update(workspace="64*Q")),
    ("FIELD_TYPE", "$.entries[0].workspace", lambda tree: tree["entries"][0].update(workspace=-1)),
    ("CONFIG_INCONSISTENT", "$.guards[0].right", lambda tree: tree["guards"][0].update(right="Q")),
    ("CONFIG_INCONSISTENT", "$.entries[0].sizes", lambda tree: tree["entries"][0].update(sizes=[])),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[0].dims",
        lambda tree: tree["entries"][0].update(sizes=[{"name": "N", "max": None}]),
    ),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[0].sizes[0].max",
        lambda tree: tree["entries"][0].update(sizes=[{"name": "found", "max": "2*M"}]),
    ),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[0].inputs[0].shape",
        lambda tree: (
            tree["entries"][0].update(sizes=[{"name": "found", "max": None}]),
            tree["entries"][0]["inputs"][0].update(shape=["found"]),
        ),
    ),
    ("CONFIG_INCONSISTENT", "$.entries[0].results", lambda tree: tree["entries"][0].update(results=[])),
    ("CONFIG_INCONSISTENT", "$.entries[0].results", lambda tree: give_results(tree, ("a", "tensor", "y"))),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[0].results",
        lambda tree: give_results(tree, ("a", "tensor", "y"), ("a", "tensor", "last")),
    ),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[0].results[1]",
        lambda tree: give_results(tree, ("a", "tensor", "y"), ("b", "words", "last")),
    ),
    (
        "CONFIG_INCONSISTENT",
        "$.entries[0].results[1]",
        lambda tree: give_results(tree, ("a", "sequence", "y"), ("b", "nothing", "last")),
    ),
    (
        "FIELD_UNSUPPORTED",
        "$.entries[0].results[0].kind",
        lambda tree: give_results(tree, ("a", "table", "y"), ("b", "tensor", "last")),
    ),
]


@pytest.mark.errors
@pytest.mark.parametrize(("code", "where", "change"), REFUSALS, ids=[f"{code}-{where}" for code, where, _ in REFUSALS])
def test_config_when_a_field_is_wrong_then_names_its_path(
    code: str, where: str, change: Callable[[Tree], object]
) -> None:
    with pytest.raises(BundleError) as caught:
        parse_config(changed(change))
    assert (caught.value.code, caught.value.where) == (code, where)


@pytest.mark.unit
def test_config_when_a_newer_minor_adds_ignorable_fields_then_they_are_skipped() -> None:
    def add(tree: Tree) -> None:
        tree["format"]["minor"] = 7
        tree["ignorable"] = ["hotness"]
        tree["weights"][0]["hotness"] = 3

    config = parse_config(changed(add))
    assert config.format.minor == 7
    assert config.weights == sample().weights


@pytest.mark.errors
def test_config_when_a_known_field_is_called_ignorable_then_it_is_still_checked() -> None:
    def break_dtype(tree: Tree) -> None:
        tree["ignorable"] = ["dtype"]
        tree["weights"][0]["dtype"] = "f33"

    with pytest.raises(BundleError, match="FIELD_UNSUPPORTED"):
        parse_config(changed(break_dtype))


@pytest.mark.errors
def test_config_when_inconsistent_then_is_not_written() -> None:
    guard = Guard(parse_dim("Z"), "==", parse_dim("1"), "no such dim")
    with pytest.raises(BundleError, match="CONFIG_INCONSISTENT"):
        config_bytes(sample()._replace(guards=(guard,)))


@pytest.mark.unit
def test_config_when_shapes_depend_on_data_then_parses_to_itself_and_names_the_outputs() -> None:
    entry = sample().entries[0]
    sizes = (DataSize("found", parse_dim("2*N")), DataSize("kept", 7), DataSize("open"))
    outputs = (*entry.outputs, Value("rows", "f32", (3, parse_dim("found+1"))), Value("all", "f32", (parse_dim("N"),)))
    data = config_bytes(sample()._replace(entries=(entry._replace(outputs=outputs, sizes=sizes),)))
    again = parse_config(data).entries[0]
    assert (again.sizes, again.dynamic_outputs) == (sizes, (2,))
    assert b'"sizes"' not in config_bytes(sample())


@pytest.mark.unit
def test_config_when_a_state_is_written_in_place_then_parses_to_itself_and_keeps_its_shape() -> None:
    entry = sample().entries[1]
    (state,) = entry.states
    in_place = entry._replace(states=(state._replace(in_place=True),))
    entries = list(sample().entries)
    entries[1] = in_place
    again = parse_config(config_bytes(sample()._replace(entries=tuple(entries))))
    assert [state.in_place for state in again.entries[1].states] == [True]
    assert b'"in_place"' not in config_bytes(sample())
    longer = in_place._replace(outputs=(in_place.outputs[0], in_place.outputs[1]._replace(shape=(4,))))
    entries[1] = longer
    with pytest.raises(BundleError, match="changes its shape"):
        config_bytes(sample()._replace(entries=tuple(entries)))


@pytest.mark.unit
def test_config_when_workspaces_and_places_are_told_then_parses_to_itself_and_leaves_them_out_elsewhere() -> None:
    entry, guard = sample().entries[0], sample().guards[0]
    entries = (entry._replace(workspace=parse_dim("64*N+128")), *sample().entries[1:-1])
    entries += (sample().entries[-1]._replace(workspace=0),)
    told = sample()._replace(entries=entries, guards=(guard._replace(at="model.py:7:5"),))
    again = parse_config(config_bytes(told))
    assert again == told
    assert [entry.workspace for entry in again.entries][1:-1] == [None] * (len(entries) - 2)
    assert not any(name in config_bytes(sample()) for name in (b'"workspace"', b'"at"'))
