"""The released Taskonomy weights: PyTorch `.pth` files to Flax parameters, and back.

    vcmjax convert WEIGHTS --out NETWORKS [--task normal ...]

A network of the release is two files, ``NAME_encoder-SHA256.pth`` and ``NAME_decoder-SHA256.pth``.
Needs the extra ``[torch]``: PyTorch reads the files, and `visualpriors` tells what they are called
and where they are to be had. Its batch norms, which in evaluation are an affine map of each
channel, are folded into the convolution or dense layer before them.
"""

import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vcmjax.errors import DataError, UsageError
from vcmjax.io import atomic
from vcmjax.nets import hourglass, pretrained
from vcmjax.tasks import ROOMS

Half = Literal["encoder", "decoder"]
_EPSILON = 1e-5
"""Added to a batch norm's variance, PyTorch's default, which the release keeps."""
_EXTRA = "pip install 'vcmjax[torch]'"


class Layer(NamedTuple):
    """Where PyTorch keeps a layer: the names of its convolution and of the batch norm after it."""

    linear: str
    norm: str | None


def layer(path: Sequence[str]) -> Layer:
    """PyTorch's place of the Flax layer at `path`, e.g. ``("layer1_0", "conv1")``."""
    *block, name = path
    prefix = block[0].replace("_", ".") + "." if block else ""
    if name == "downsample":
        return Layer(f"{prefix}downsample.0", f"{prefix}downsample.1")
    if name == "compress1":
        return Layer(name, "compress_bn")
    if name == "decoder_output":
        return Layer(f"{name}.0", None)
    if name in ("fc0", "fc2"):
        return Layer(name, "bn0" if name == "fc0" else None)
    if name.startswith("deconv"):
        return Layer(f"{name}.1", f"{name}.3")
    if block or name == "conv1":  # of the encoder; the decoder's convolutions start at 2
        return Layer(prefix + name, prefix + name.replace("conv", "bn"))
    return Layer(f"{name}.0", f"{name}.1")


def from_torch(like: Any, state: Mapping[str, np.ndarray]) -> Any:
    """Flax parameters of one half, batch norms folded.

    Args:
      like: ``{"params": ...}`` of arrays or shapes, as from `jax.eval_shape` of `Hourglass.init`.
      state: The PyTorch module's state dict, as arrays.

    Raises:
      KeyError: `state` lacks an entry.
      ValueError: An entry has another shape.
    """
    folded = {}
    for path, shapes in _layers(like["params"]):
        at = layer(path)
        kernel = _kernel_from_torch(path[-1], state[f"{at.linear}.weight"])
        bias = state.get(f"{at.linear}.bias", np.zeros(kernel.shape[-1], np.float32))
        if at.norm:
            scale = state[f"{at.norm}.weight"].astype(np.float64)
            scale /= np.sqrt(state[f"{at.norm}.running_var"] + _EPSILON)
            kernel = kernel * scale
            bias = (bias - state[f"{at.norm}.running_mean"]) * scale + state[f"{at.norm}.bias"]
        if kernel.shape != shapes["kernel"].shape:
            expected = shapes["kernel"].shape
            raise ValueError(f"{at.linear}.weight is {kernel.shape}; expected {expected}")
        folded[path] = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return {"params": _nested(folded)}


def to_torch(params: Any) -> dict[str, np.ndarray]:
    """The PyTorch state dict of one half; its batch norms add the bias and change nothing else."""
    state: dict[str, np.ndarray] = {}
    for path, leaves in _layers(params["params"]):
        at = layer(path)
        bias = np.asarray(leaves["bias"])
        state[f"{at.linear}.weight"] = _kernel_to_torch(path[-1], np.asarray(leaves["kernel"]))
        if at.norm is None:
            state[f"{at.linear}.bias"] = bias
            continue
        state[f"{at.norm}.weight"] = np.ones_like(bias)
        state[f"{at.norm}.bias"] = bias
        state[f"{at.norm}.running_mean"] = np.zeros_like(bias)
        # So that variance + ε is one.
        state[f"{at.norm}.running_var"] = np.full_like(bias, 1 - _EPSILON)
        state[f"{at.norm}.num_batches_tracked"] = np.zeros((), np.int64)
    return state


def _kernel_from_torch(name: str, weight: np.ndarray) -> np.ndarray:
    if weight.ndim == 2:
        return weight.T
    # (out, in, h, w) of a convolution, (in, out, h, w) of a transposed one.
    return weight.transpose((2, 3, 0, 1) if name.startswith("deconv") else (2, 3, 1, 0))


def _kernel_to_torch(name: str, kernel: np.ndarray) -> np.ndarray:
    if kernel.ndim == 2:
        return kernel.T
    return kernel.transpose((2, 3, 0, 1) if name.startswith("deconv") else (3, 2, 0, 1))


def _layers(params: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inside in params.items():
        if "kernel" in inside:
            yield (*path, name), inside
        else:
            yield from _layers(inside, (*path, name))


def _nested(layers: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*block, name), leaves in layers.items():
        inside = tree.setdefault(block[0], {}) if block else tree
        inside[name] = leaves
    return tree


# Files


def find(weights: Path, name: str, half: Half) -> Path:
    """The file of one half of the release's network `name` in the folder `weights`.

    Raises:
      DataError: No such folder or file; says what is missing and where it is to be had. Or the
        folder holds a TensorFlow checkpoint.
      UsageError: The extra ``[torch]`` is not installed.
    """
    if not weights.is_dir():
        raise DataError(f"{weights}: no such folder; expected one with the release's .pth files.")
    found = sorted(weights.glob(f"{name}_{half}-*.pth"))
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"{weights}: expected one {name}_{half}-SHA256.pth, found {len(found)}.")
    if any(weights.rglob("*ckpt*.index")) or any(weights.rglob("checkpoint")):
        raise DataError(
            f"{weights}: a TensorFlow checkpoint, which is not read here; expected the .pth files "
            f"of the PyTorch release, such as {_urls()[f'{name}_{half}']}"
        )
    url = _urls()[f"{name}_{half}"]
    raise DataError(f"{weights}: {url.rsplit('/', 1)[1]} is missing; download it from {url}")


def read(path: Path) -> dict[str, np.ndarray]:
    """The state dict in a `.pth` file, after its SHA-256 has been checked against its name.

    Raises:
      DataError: Another SHA-256, or not a file of the release.
      UsageError: The extra ``[torch]`` is not installed.
    """
    named = re.fullmatch(r".*-([0-9a-f]{8,64})\.pth", path.name)
    if named is None:
        raise DataError(f"{path}: expected a name that ends in -SHA256.pth, as it was released.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(named[1]):
        raise DataError(
            f"{path}: its SHA-256 is {digest}, not that of its name: damaged, or not the release's "
            "file. Download it again."
        )
    torch = _torch()
    others = [url for url in _urls().values() if url.endswith(f"-{digest}.pth")]
    if others and not others[0].endswith(path.name):
        raise DataError(f"{path}: is the release's {others[0].rsplit('/', 1)[1]}, renamed.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        return {key: value.numpy() for key, value in state.items()}
    except (RuntimeError, OSError, EOFError, KeyError, TypeError, AttributeError, ValueError,
            pickle.UnpicklingError, zipfile.BadZipFile) as error:  # fmt: skip
        reason = str(error).split("\n")[0]
        raise DataError(
            f"{path}: expected a PyTorch file with a state_dict of tensors ({reason})."
        ) from None


def parameters(weights: Path, task: str) -> dict[str, Any]:
    """Parameters of the network that was released for the domain `task`, from files in `weights`.

    Raises:
      DataError: See `find` and `read`; or a file does not hold the network that it is named for.
      UsageError: The release has no decoder for `task`.
    """
    name = hourglass.release_name(task)
    network = hourglass.released(name)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), hourglass.SIZE))
    params = {}
    for half, ours in (("encoder", "encoder"), ("decoder", "head")):
        path = find(weights, name, half)  # type: ignore[arg-type]
        state = read(path)
        try:
            params[ours] = from_torch(like[ours], state)
        except KeyError as error:
            raise DataError(f"{path}: has no {error.args[0]}; not the {half} of {name}.") from None
        except ValueError as error:
            raise DataError(f"{path}: {error}; not the {half} of {name}.") from None
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params[ours])):
            raise DataError(f"{path}: weights that are not finite. Download it again.")
    return params


def convert(weights: Path, out: Path, tasks: Sequence[str] = ()) -> list[Path]:
    """Write each task's network to ``out/TASK``, where ``--networks`` finds it.

    Args:
      weights: Folder of the release's files.
      out: Folder to write into; created.
      tasks: Domains, such as ``principal_curvature``; none for the six of CVR as far as there is
        a file for them.

    Raises:
      DataError, UsageError: As `parameters`; what has been written by then is whole.
    """
    there = [t for t in ROOMS if any(weights.glob(f"{hourglass.release_name(t)}_*.pth"))]
    written = []
    for task in tasks or there or ROOMS:
        path = out / task
        network = hourglass.released(hourglass.release_name(task))
        pretrained.save(path, network, parameters(weights, task), {})
        written.append(path)
    return written


def write(params: Any, weights: Path, name: str) -> list[Path]:
    """Inverse of `parameters`: the two files of ``{"encoder": ..., "head": ...}`` in `weights`.

    Raises:
      DataError: They cannot be written.
    """
    torch = _torch()
    with atomic.naming(weights, "written"):
        weights.mkdir(parents=True, exist_ok=True)
    written = []
    for half, ours in (("encoder", "encoder"), ("decoder", "head")):
        state = {key: torch.from_numpy(a.copy()) for key, a in to_torch(params[ours]).items()}
        content = io.BytesIO()  # whole, as its digest is part of the name
        torch.save({"state_dict": state}, content)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        written.append(weights / f"{name}_{half}-{digest}.pth")
        atomic.write(written[-1], content.getvalue())
    return written


def _urls() -> dict[str, str]:
    """Where each file is to be had, by ``NAME_encoder`` or ``NAME_decoder``."""
    _torch()
    try:
        from visualpriors import taskonomy_network
    except ImportError:
        raise UsageError(f"PyTorch weights need the extra: {_EXTRA}") from None
    return taskonomy_network.TASKONOMY_PRETRAINED_URLS


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise UsageError(f"PyTorch weights need the extra: {_EXTRA}") from None
    return torch
