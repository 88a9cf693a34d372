"""What tests of the command line share: a way to call it, a cache of kernels, a bundle.

Takes nothing; gives `tessera`, which runs a command in this process and gives its exit code and both outputs.
Invariant: each call goes through the same group as a person's; only the process is shared.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tessera_build.cli.main import main
from tests.driver.models import mlp

Tessera = Callable[..., Result]


@pytest.fixture(scope="session")
def tessera(tmp_path_factory: pytest.TempPathFactory) -> Tessera:
    """Run `tessera ...`; the cache of kernels is the session's."""
    environment = {"TESSERA_CACHE": str(tmp_path_factory.getbasetemp() / "kernels")}

    def run(*words: object) -> Result:
        return CliRunner(env=environment).invoke(main, [str(word) for word in words], prog_name="tessera")

    return run


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as an ONNX file."""
    path = tmp_path_factory.mktemp("model") / "mlp.onnx"
    path.write_bytes(mlp().SerializeToString(deterministic=True))
    return path


@pytest.fixture(scope="session")
def bundle_file(tessera: Tessera, model_file: Path) -> Path:
    """Its bundle, beside it; tests must not change it."""
    path = model_file.with_suffix(".tessera")
    done = tessera("build", model_file, "--target", "x86-64-v3,x86-64-v2", "-o", path)
    assert done.exit_code == 0, done.output
    return path
