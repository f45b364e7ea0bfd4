import numpy as np
import pytest
from PIL import Image

from experiments import task_data
from vcmjax.data import dataset
from vcmjax.errors import DataError


def test_the_option_that_leaves_bad_examples_out_is_advised_where_there_is_one(tmp_path):
    for split in dataset.SPLITS:
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / split / name / "1.png")
    (tmp_path / "train/a/1.png").write_bytes(b"no image")
    data = dataset.directory(tmp_path, 8)
    task = data.tasks["class_scene"]
    with pytest.raises(DataError, match=r"a/1.png: image: .* Replace it\.$"):
        task_data.Reader(data, tmp_path, 0).source(task, "train")[0]
    reader = task_data.Reader(data, tmp_path, 0, remedy="Or use --skip-bad.")
    with pytest.raises(DataError, match=r"a/1.png: image: .* Replace it\. Or use --skip-bad\.$"):
        reader.source(task, "train")[0]
    reader = task_data.Reader(data, tmp_path, 0, skip_bad=True, remedy="Or use --skip-bad.")
    assert len(reader.source(task, "train")) == 1 and len(reader.skipped) == 1
