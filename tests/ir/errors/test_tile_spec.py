"""One small misuse a rule of Tile IR, each refused by that rule.

Takes the text of a legal function and one change to it. Invariant: the unchanged text is legal, so it is the change
that is refused.
"""

from pathlib import Path

import pytest

from tessera_build.ir.core.spec import SpecError
from tessera_build.ir.tile.spec import LEVEL, verify
from tessera_build.ir.tile.text import parse_function

pytestmark = pytest.mark.errors

LEGAL = Path(__file__).with_name("legal_tile.mlir").read_text()

# rule -> (what stands in the legal text, what stands there instead)
MISUSES: dict[str, tuple[str, str]] = {
    "function_dims": ('dims = ["N"]', 'dims = ["N", "N"]'),
    "argument_symbols": ('shapes = [[[#tessera.dim<"N">', 'shapes = [[[#tessera.dim<"Q">'),
    "dims_in_scope": ('left = #tessera.dim<"N">', 'left = #tessera.dim<"i">'),
    "fresh_index": ('index = "i"', 'index = "N"'),
    "binding_names": ('scope = "serial"', 'scope = "threads"'),
    "view_axes": ("{axis = 0, step = 1, checked = true}", "{axis = 2, step = 1, checked = true}"),
    "view_bounds": ("extent = 8, step = 2", "extent = 10, step = 2"),
    "view_gather": ("gather_axis = 0", "gather_axis = 3"),
    "view_shape": ('offsets = [#tessera.dim<"N">, 0]', 'offsets = [#tessera.dim<"N">]'),
    "pad_fits": ("pad = 1.0", "pad = 128.0"),
    "wait_pending": ("pending = 0", "pending = -1"),
    "for_step": ("extent = 8, step = 2", "extent = 8, step = 0"),
    "for_carried": ('"ttile.yield"(%13) : (vector<8x8xf32>)', '"ttile.yield"() : ()'),
    "if_regions": ('"ttile.yield"(%11) : (vector<8x8xf32>)', '"ttile.yield"(%7) : (vector<8x8xi8>)'),
    "if_relation": ('relation = "lt"', 'relation = "gt"'),
    "contract_spec": ("mk,kn->mn", "mk,kn->mnq"),
    "contract_types": ("(%12, %5, %3) <{spec", "(%12, %5, %2) <{spec"),
    "contract_order": ('order = "seq"', 'order = "fast"'),
    "map_program": ("mul(%0, %1) : f32", "mul(%0, %1) : f64"),
    "reduce_program": ("add(%0, %1) : f32", "add(%0, %3) : f32"),
    "reduce_shapes": ("axes = [1], combine", "axes = [0], combine"),
    "reduce_order": ("tree(4)", "tree(3)"),
    "permute_shape": ("permutation = [1, 0]", "permutation = [1, 1]"),
    "iota_type": ('iota"() <{axis = 0', 'iota"() <{axis = 2'),
    "store_view": ('"ttile.store"(%4, %18)', '"ttile.store"(%2, %18)'),
    "copy_views": ('"ttile.copy"(%4, %3)', '"ttile.copy"(%4, %2)'),
    "load_view": ('"ttile.load"(%3)', '"ttile.load"(%2)'),
    "arguments_are_buffers": ("%9: memref<4xi64>", "%9: tensor<4xi64>"),
}
# rule -> nodes that break it on their own; %0 is a buffer of 8x8xf32
VIEW = '"ttile.view"(%0) <{offsets = [0, 0], axes = [{axis = 1, step = 1, checked = false}], gather_axis = -1}>'
SNIPPETS: dict[str, str] = {
    "map_shapes": """
        %1 = "ttile.iota"() <{axis = 0, offset = 0}> : () -> vector<4x2xi64>
        %2 = "ttile.map"(%1) <{program = ["%0 = input : i64", "return %0"]}> : (vector<4x2xi64>) -> vector<4x4xi64>""",
    "let_value": """
        %1 = "ttile.iota"() <{axis = 0, offset = 0}> : () -> vector<2xi64>
        "ttile.let"(%1) <{index = "i", extent = 4}> ({
          "ttile.yield"() : () -> ()
        }) : (vector<2xi64>) -> ()""",
    "let_results": """
        %1 = "ttile.iota"() <{axis = 0, offset = 0}> : () -> vector<1xi64>
        %2 = "ttile.let"(%1) <{index = "i", extent = 4}> ({
          "ttile.yield"() : () -> ()
        }) : (vector<1xi64>) -> vector<1xi64>""",
    "view_of_buffer": f"""
        %1 = {VIEW} : (memref<8x8xf32>) -> memref<8xf32>
        %2 = {VIEW.replace("%0", "%1").replace("[0, 0]", "[0]").replace("axis = 1", "axis = 0")}
          : (memref<8xf32>) -> memref<8xf32>""",
    "alloc_static": '%1 = "ttile.alloc"() : () -> vector<4xf32>',
    "results_are_tiles": '%1 = "ttile.iota"() <{axis = 0, offset = 0}> : () -> tensor<4xi64>',
}


def rules_broken(text: str) -> set[str]:
    with pytest.raises(SpecError) as caught:
        verify(parse_function(text), {"fma"})
    return {violation.rule for violation in caught.value.violations}


def test_function_when_unchanged_then_is_legal() -> None:
    verify(parse_function(LEGAL), {"fma"})


@pytest.mark.parametrize("rule", MISUSES)
def test_tile_function_when_misused_then_rule_refuses(rule: str) -> None:
    before, after = MISUSES[rule]
    assert before in LEGAL
    assert rule in rules_broken(LEGAL.replace(before, after, 1))


@pytest.mark.parametrize("rule", SNIPPETS)
def test_tile_nodes_when_misused_then_rule_refuses(rule: str) -> None:
    body = f'^bb0(%0: memref<8x8xf32>):\n{SNIPPETS[rule]}\n"ttile.return"() : () -> ()'
    assert rules_broken(f'"ttile.func"() <{{sym_name = "f"}}> ({{\n{body}\n}}) : () -> ()') == {rule}


def test_rules_when_listed_then_each_has_a_misuse() -> None:
    rules = {rule.__name__ for row in LEVEL.rules.values() for rule in row}
    rules |= {rule.__name__ for rule in LEVEL.function_rules}
    assert rules <= MISUSES.keys() | SNIPPETS.keys()


def test_violations_when_several_then_all_are_reported_at_once() -> None:
    text = LEGAL.replace('scope = "serial"', 'scope = "threads"').replace("tree(4)", "tree(3)")
    assert rules_broken(text) == {"binding_names", "reduce_order"}


def test_instruction_when_not_in_the_table_then_is_refused() -> None:
    function = parse_function(LEGAL)
    verify(function)
    with pytest.raises(SpecError, match="'fma' is not in the machine's table"):
        verify(function, {"vnni"})
