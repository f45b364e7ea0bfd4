import re
from pathlib import Path

import numpy as np

from experiments import readme

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_library_example_runs_and_restores_the_shape():
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert names["restored"].shape == names["features"].shape
    assert np.all(np.asarray(names["output"].bits) > 0)
    assert all(isinstance(stream, bytes) for stream in names["streams"])


def test_tables_are_those_of_the_committed_results():
    assert readme.filled(TEXT) == TEXT


def test_pictures_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
        assert (Path(__file__).parents[1] / picture).stat().st_size > 10_000
