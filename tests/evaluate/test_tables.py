import io
import json
import os
import subprocess
import sys

import pytest
import rich.console

from vcmjax.errors import DataError
from vcmjax.evaluate import tables


def row(text, task, method):
    """The cells of one method's line in the Markdown table."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    named = ""
    for line in lines:
        named = (line[0] or named) if line else named
        if line and named.startswith(task) and line[1] == method:
            return line
    raise AssertionError(f"no line {task}, {method}")


def console(results):
    out = io.StringIO()
    rich.console.Console(file=out, width=80).print(tables.table(results))
    return out.getvalue()


def test_cells_are_the_plateaus_with_intervals_and_bytes(results):
    text = tables.markdown(results)
    line = row(text, "Semantic segmentation (mIoU, % ↑)", "Ours")
    assert line[2:5] == ["34.5 [32.8, 35.9]", "0.0240 [0.0230, 0.0252]", "49.2 [47.2, 51.6]"]
    assert line[-1] == "reached"
    line = row(text, "Surface normals (L1 distance ↓)", "Control Group")
    assert line[2:5] == ["0.0710 [0.0674, 0.0738]", "–", "–"]


def test_missed_and_diverged_methods_say_so(results):
    assert row(tables.markdown(results), "Reshading", "Hyperprior")[-1] == "not reached"
    for each in results["rows"]:
        if each["task"] == "normal" and each["method"] == "ours":
            each["status"] = "diverged"
        if each["task"] == "class_scene" and each["lam"] == 12.0 and each["method"] == "ours":
            each.update(status="diverged", metrics={}, ci={}, bpp_real=None)
    results["plateau"] = [
        entry
        for entry in results["plateau"]
        if (entry["task"], entry["method"]) != ("normal", "ours")
    ]
    text = tables.markdown(results)
    assert row(text, "Surface normals", "Ours")[2:] == ["–"] * 6 + ["diverged"]
    assert row(text, "Scene class", "Ours")[-1] == "reached; diverged at λ = 12"
    assert "diverged" in console(results)


def test_table_fits_80_columns_and_agrees_with_markdown(results):
    text = console(results)
    assert max(map(len, text.splitlines())) <= 80
    for cell in ("34.5 [32.8, 35.9]", "49.2 [47.2, 51.6]", "not reached"):
        assert cell in text and cell in tables.markdown(results)


def test_caption_counts_images_and_seeds(results):
    text = tables.caption(results)
    assert "200 validation images at 128×128, 300 test images" in text
    assert "3 training seeds" in text and "over images and seeds" in text
    assert "cannot rank" not in text
    results["seeds"] = [0]
    assert "1 training seed." in tables.caption(results)
    assert "over images. " in tables.caption(results)
    assert "One seed cannot rank the methods" in tables.caption(results)


@pytest.mark.parametrize(
    ("reference", "name"), [("control", "the Control Group"), ("original", "Original")]
)
def test_caption_names_what_the_plateau_is_relative_to(results, reference, name):
    for spec in results["tasks"].values():
        spec["reference"] = reference
    assert f"% of {name} on the validation split" in tables.caption(results)


def test_only_rows_pooled_over_seeds_are_read(results):
    before = tables.markdown(results)
    results["rows"] += [row | {"seed": 0, "metrics": {}} for row in results["rows"]]
    results["plateau"] += [entry | {"seed": 0, "reached": False} for entry in results["plateau"]]
    assert tables.markdown(results) == before


def test_command_prints_markdown(tmp_path, capsys, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert tables.main([str(path)]) == 0
    assert capsys.readouterr().out == tables.markdown(results)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot be read"), ("{", "not JSON"), ("[]", "schema 1"), ('{"schema": 1}', "lacks")],
)
def test_unusable_results_are_refused_in_one_line_with_status_2(tmp_path, capsys, text, message):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        tables.read(path)
    assert tables.main([str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\xfa", "is not JSON"),
        (b'{"schema": NaN}', "NaN is no number"),
        (b'{"schema": -Infinity}', "-Infinity is no number"),
        (b'{"schema": 1e400}', "1e400 is no number"),
        (b"1" * 5000, "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b"", "is not JSON"),
        (b'{"a": 1} {"b": 2}', "is not JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_the_reason(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json: .*{message}"):
        tables.load(tmp_path / "a.json")


def test_json_of_any_encoding_of_unicode_is_read(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        (tmp_path / "a.json").write_text('{"λ": [0.1, 1e300, 3]}', encoding=encoding)
        assert tables.load(tmp_path / "a.json") == {"λ": [0.1, 1e300, 3]}


def test_a_folder_a_pipe_and_a_device_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # whose opening would wait for a writer
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(DataError, match=f"{path}: is no file"):
            tables.load(path)


@pytest.mark.parametrize("module", ["tables", "plots"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plateau": None}, "cannot be shown as results of experiments.plateau: TypeError"),
        ({"rows": [{}]}, "lacks 'seed'"),
        ({"seeds": 1, "tasks": []}, "r.json: "),
    ],
)
def test_commands_end_in_one_line_that_names_the_file_and_what_it_lacks(
    tmp_path, results, module, change, message
):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(results | change))
    command = [sys.executable, "-m", f"vcmjax.evaluate.{module}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path}: ") and message in line


def test_the_table_is_printed_on_a_terminal_of_ascii(tmp_path, results):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(results))
    command = [sys.executable, "-m", "vcmjax.evaluate.tables", str(path)]
    plain = {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=os.environ | plain)
    assert done.returncode == 0, done.stderr
    assert "mIoU, % (up)" in done.stdout.decode("ascii")
