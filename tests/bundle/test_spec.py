"""SPEC.md against the code: what one names, the other names too."""

import re
from pathlib import Path

import pytest

from bundle_format import canonical, fields, media, reader, schema, store, tar_layout

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "bundle_format" / "SPEC.md").read_text()


def raised_codes() -> set[str]:
    """The codes of every `BundleError` that the two packages make, `StorageError` included."""
    sources = [*(ROOT / "bundle_format").rglob("*.py"), *(ROOT / "tessera_runtime").rglob("*.py")]
    text = "\n".join(path.read_text() for path in sources)
    return set(re.findall(r'(?:Bundle|Storage)Error\(\s*"([A-Z_]+)"', text))


@pytest.mark.unit
def test_error_codes_when_compared_with_the_specification_then_are_the_same() -> None:
    table = SPEC.partition("## 8.")[2]
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", table)) == raised_codes()


@pytest.mark.unit
def test_media_types_when_compared_with_the_specification_then_are_the_same() -> None:
    ours = {media.BUNDLE, media.CONFIG, media.PROOF, *media.LAYERS}
    assert set(re.findall(r"application/vnd\.tessera\.[\w.+]+", SPEC)) == ours


@pytest.mark.unit
def test_config_fields_when_compared_with_the_specification_then_are_the_same() -> None:
    table = SPEC.partition("| field | value |")[2].partition("**Entry**")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(schema.Config._fields)
    for record in (schema.Entry, schema.Value, schema.Weight):
        assert f"**{record.__name__}** `{{{', '.join(record._fields)}}}`" in SPEC
    dtypes = re.search(r"dtype: `([^`]+)`", SPEC)
    relations = re.search(r"relation `([^`]+)`", SPEC)
    assert dtypes is not None
    assert relations is not None
    assert set(dtypes[1].split()) == schema.DTYPES
    assert set(relations[1].split()) == schema.RELATIONS


@pytest.mark.unit
def test_numbers_when_compared_with_the_specification_then_are_the_same() -> None:
    assert f"format {schema.FORMAT_MAJOR}.{schema.FORMAT_MINOR}" in SPEC.splitlines()[0]
    assert f"multiple of {tar_layout.ALIGNMENT:,} bytes" in SPEC
    limits = (
        f"{store.MAX_FILES:,} files, {reader.MAX_VARIANTS:,} variants, {reader.MAX_LAYERS:,} layers a variant, "
        f"{canonical.MAX_JSON_BYTES >> 20} MiB for a JSON blob, {fields.MAX_ITEMS:,} items in a list"
    )
    assert limits in SPEC
