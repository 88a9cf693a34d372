"""docs/serving.md, run: its commands start servers, its requests are answered, its programs end well."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

import tessera_build
from tessera_runtime.serve.settings import OPTIONS
from tests.models.bundles import DIGITS, digits_images

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader would stand: the model, its bundle, a request."""
    found = tmp_path_factory.mktemp("document")
    shutil.copy(DIGITS / "digits.onnx", found)
    tessera_build.build(found / "digits.onnx", ["native"], found / "digits.tessera", verify=False, workers=1)
    image = digits_images(1)
    tensor = {"name": "image", "shape": list(image.shape), "datatype": "FP32", "data": image.tolist()}
    (found / "request.json").write_text(json.dumps({"id": "42", "inputs": [tensor]}))
    return found


@pytest.fixture(scope="module", params=["tessera serve", "python -m tessera_runtime.serve"])
def port(request: pytest.FixtureRequest, folder: Path) -> Generator[int]:
    """The server of one of the two commands, on a free port."""
    (line,) = (block.strip() for block in blocks("console") if block.startswith(request.param))
    module = "from tessera_build.cli.main import main; main()"
    starts = {"tessera": ["-c", module], "python": []}
    first, *words = shlex.split(line.replace("--port 8000", "--port 0"))
    command = [sys.executable, *starts[first], *words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        found = 0
        for text in process.stderr:
            facts = json.loads(text)
            if facts["event"] == "listening":
                found = int(facts["port"])
            if facts["event"] == "ready":
                break
        yield found
        process.terminate()
        process.stderr.read()
        assert process.wait(30) == 0


@pytest.mark.cli
def test_requests_of_the_document_when_sent_then_are_answered(port: int, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (script,) = blocks("sh")
    answers: list[str] = []
    for line in script.splitlines():
        command = shlex.split(line.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
        answers.append(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    ready, metadata, answer, counters = answers
    assert json.loads(ready) == {"ready": True}
    assert json.loads(metadata)["inputs"][0]["shape"] == [-1, 1, 8, 8]
    assert json.loads(answer)["id"] == "42"
    assert sum(json.loads(answer)["outputs"][0]["data"]) == pytest.approx(1, abs=1e-5)
    assert 'tessera_http_requests_total{route="infer",status="200"} 1' in counters


@pytest.mark.numerics
@pytest.mark.parametrize("program", blocks("python"), ids=["logs", "limits", "compat"])
def test_programs_of_the_document_when_run_then_end_well(program: str, folder: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "tessera_loads_total" in done.stdout or "array(" in done.stdout


@pytest.mark.unit
def test_document_when_it_names_options_and_json_then_they_exist() -> None:
    named = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert {"--max-request-bytes", "--deadline", "--workers"} <= named
    assert named <= {option.flag for option in OPTIONS}
    assert [json.loads(block)["id"] for block in blocks("json")] == ["42"]
