"""Every notebook runs from its first cell to its last, and is kept without outputs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert cells
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs the extra [notebooks]")
    nbformat = pytest.importorskip("nbformat")
    if "torch_weights" in path.read_text():
        pytest.importorskip("visualpriors", reason="needs the extra [torch]")
    monkeypatch.setenv("VCMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=place).execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert any(out.get("output_type") in ("execute_result", "display_data") for out in shown)
    if "plateau.png" in path.read_text():
        assert sum("image/png" in out.get("data", {}) for out in shown) == 2
