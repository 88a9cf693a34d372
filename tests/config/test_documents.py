"""Settings files that are right, and every way in which one can be wrong, with the place that is named."""

from pathlib import Path

import pytest

from tessera_build.config import BuildConfig, ConfigError, DimBounds, load_build, load_precision
from tessera_build.config.resources import resource

PRECISION = """\
name: mine
storage: f32
accumulate: {contract: f64, reduce: f32}
numerics: fast
tolerance: {group: 1e-5, end_to_end: .001, agreement: 1}
winograd: {max_error: 1e-6}
products: {max_error: 2e-6}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_precision(path)
    return caught.value


@pytest.mark.unit
def test_precision_file_when_right_then_every_field_is_read(tmp_path: Path) -> None:
    policy = load_precision(write(tmp_path, PRECISION))
    assert (policy.name, policy.storage, policy.numerics) == ("mine", "f32", "fast")
    assert (policy.accumulate_contract, policy.accumulate_reduce) == ("f64", "f32")
    assert (policy.tolerance.group, policy.tolerance.end_to_end, policy.tolerance.agreement) == (1e-5, 1e-3, 1.0)
    assert (policy.winograd_max_error, policy.products_max_error) == (1e-6, 2e-6)


@pytest.mark.unit
def test_precision_file_when_older_than_other_algorithms_then_is_read_and_keeps_direct_sums(tmp_path: Path) -> None:
    older = PRECISION.replace("winograd: {max_error: 1e-6}\nproducts: {max_error: 2e-6}\n", "")
    policy = load_precision(write(tmp_path, older))
    assert (policy.winograd_max_error, policy.products_max_error) == (0.0, 0.0)


@pytest.mark.unit
def test_standard_precision_when_loaded_by_name_then_is_what_the_project_promises() -> None:
    policy = load_precision("fp32")
    assert (policy.storage, policy.numerics) == ("f32", "reproducible")
    assert policy.tolerance.end_to_end <= 1e-4


@pytest.mark.errors
def test_unknown_key_when_close_to_a_known_one_then_place_and_suggestion_are_given(tmp_path: Path) -> None:
    path = write(tmp_path, PRECISION.replace("numerics:", "numeric:"))
    missing, unknown = refusal(path).problems
    assert missing.code == "CONFIG_KEY_MISSING"
    assert "'numerics'" in missing.message
    assert (unknown.code, unknown.where, unknown.found) == ("CONFIG_KEY_UNKNOWN", f"{path}:4:1", "numeric")
    assert unknown.hint == "did you mean 'numerics'?"


@pytest.mark.errors
def test_unknown_key_when_inside_a_section_then_its_full_name_is_given(tmp_path: Path) -> None:
    path = write(tmp_path, PRECISION.replace("{group:", "{grupo: 1, group:"))
    error = refusal(path)
    assert "'tolerance.grupo'" in error.message
    assert error.where == f"{path}:5:13"
    assert error.hint == "did you mean 'group'?"


@pytest.mark.errors
def test_problems_when_several_then_all_are_told_at_once_in_file_order(tmp_path: Path) -> None:
    text = PRECISION.replace("fast", "no").replace("f64", "f16").replace("1e-5", "2").replace("storage: f32", "s: 1")
    error = refusal(write(tmp_path, text))
    assert [problem.code for problem in error.problems] == [
        "CONFIG_KEY_MISSING",
        "CONFIG_KEY_UNKNOWN",
        "CONFIG_VALUE",
        "CONFIG_VALUE",
        "CONFIG_VALUE",
    ]
    assert error.diagnostics().count("error[") == 5
    assert error.exit_code == 2


@pytest.mark.errors
@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("", "CONFIG_NOT_A_MAPPING", ""),
        ("- f32\n", "CONFIG_NOT_A_MAPPING", ""),
        ("name: [", "CONFIG_SYNTAX", ":1:8"),
        ("name: a\x00b", "CONFIG_SYNTAX", ""),
        ("--- 1\n--- 2\n", "CONFIG_SYNTAX", ":2:1"),
        (PRECISION + "name: again\n", "CONFIG_KEY_DOUBLED", ":8:1"),
        (PRECISION + "? [a, b]\n: 1\n", "CONFIG_KEY", ":8:3"),
        (PRECISION.replace("mine", "12"), "CONFIG_VALUE", ":1:7"),
        (PRECISION.replace("mine", "yes"), "CONFIG_VALUE", ":1:7"),
        (PRECISION.replace("1e-5", "'1e-5'"), "CONFIG_VALUE", ":5:20"),
        (PRECISION.replace("1e-5", "inf"), "CONFIG_VALUE", ":5:20"),
        (PRECISION.replace("{contract: f64, reduce: f32}", "f64"), None, ":1:1"),
    ],
)
def test_file_when_malformed_then_the_first_problem_names_its_place(
    tmp_path: Path, text: str, code: str | None, place: str
) -> None:
    path = write(tmp_path, text)
    error = refusal(path)
    assert error.where == f"{path}{place}"
    assert code is None or error.code == code


@pytest.mark.errors
def test_file_when_absent_or_not_text_then_is_a_config_error(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.yaml").code == "CONFIG_UNREADABLE"
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    assert refusal(tmp_path / "bytes.yaml").code == "CONFIG_UNREADABLE"


@pytest.mark.errors
def test_name_when_unknown_then_the_known_names_and_the_nearest_are_given() -> None:
    with pytest.raises(ConfigError) as caught:
        load_precision("fp23")
    assert caught.value.hint == "did you mean 'fp32'?"
    assert "fp32" in (caught.value.expected or "")


@pytest.mark.unit
def test_build_defaults_when_read_from_the_shown_file_then_are_those_of_the_record() -> None:
    assert load_build("default") == BuildConfig()


@pytest.mark.unit
def test_build_file_when_every_option_is_set_then_every_option_is_read(tmp_path: Path) -> None:
    shown = resource("configs/build/default.yaml").read_text(encoding="utf-8")
    text = shown.replace("# threads", "threads").replace("# dims", "dims").replace("#   batch", "  batch")
    assert load_build(write(tmp_path, text)) == BuildConfig(threads=2, dims=(DimBounds("batch", 1, 64),))


@pytest.mark.errors
@pytest.mark.parametrize(
    "text",
    ["targets: []", "targets: [native, native]", "threads: 0", "levels: [assembly]", "dims: {n: {min: 5, max: 4}}"],
)
def test_build_file_when_a_value_makes_no_sense_then_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_build(write(tmp_path, text))
    assert caught.value.code == "CONFIG_VALUE"
