"""What every experiment's tests share."""

import numpy as np
import pytest
from PIL import Image

from experiments import harness


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Features and networks are kept apart from the user's, and from those of other workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCMJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def finished(request, tmp_path_factory):
    """(config, folder, results) of the module's EXPERIMENT, run as quickly as it can be."""
    experiment = request.module.EXPERIMENT
    config = experiment.Config(**experiment.QUICK)
    out = tmp_path_factory.mktemp("out")
    return config, out, experiment.run(config, out)


@pytest.fixture
def again(request, finished, monkeypatch):
    """The results of a second run of the module's EXPERIMENT, to which measuring is an error."""

    def measured(*_, **__):
        raise AssertionError("measured twice")

    monkeypatch.setattr("vcmjax.evaluate.measure.reconstruction", measured)
    monkeypatch.setattr("vcmjax.evaluate.measure.conventional_reconstruction", measured)
    config, out, _ = finished
    return request.module.EXPERIMENT.run(config, out)


@pytest.fixture
def drawn(tmp_path):
    """Draws results to a picture, which must not be blank."""

    def of(draw, results):
        draw(results, tmp_path / "figure.png")
        assert np.asarray(Image.open(tmp_path / "figure.png").convert("L")).std() > 5

    return of


@pytest.fixture
def refused(capsys):
    """What a command line says of bad options, which end in status 2."""

    def of(main, given):
        with pytest.raises(SystemExit) as stop:
            harness.main(lambda: main(given))
        assert stop.value.code == 2
        return capsys.readouterr().err

    return of
