"""A torchvision classifier of ImageNet's classes, split at its layers as `nets.split` splits ours.

In front of a split the layer's output is taken from torchvision's own forward pass; behind it, that
output is replaced in the same pass. Needs the extra ``[torch]`` and torchvision beside it.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vcmjax.errors import DataError, UsageError
from vcmjax.nets.split import Layer

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, by which every classifier of torchvision was trained."""


class Classifier:
    """A network on the CPU, in evaluation mode.

    Args:
      name: As torchvision registers it, such as ``resnet50``.
      weights: A file of its ``state_dict``, as torchvision distributes them.

    Raises:
      UsageError: torch or torchvision are not installed, or know no classifier of this name.
      DataError: The file is missing, damaged or of another network.
    """

    def __init__(self, name: str, weights: Path):
        """Builds and loads; arguments and errors as the class says."""
        try:
            import torch
            from torchvision import models
        except (ImportError, RuntimeError) as error:  # of a torchvision for another torch
            raise UsageError(
                f"--torchvision {name}: {error}. It needs pip install 'vcmjax[torch]' torchvision, "
                "of versions that belong together."
            ) from None
        known = models.list_models(module=models)
        if name not in known:
            raise UsageError(f"--torchvision {name}: expected one of {', '.join(known)}.")
        self.name = name
        self._torch, self._network = torch, models.get_model(name, weights=None).eval()
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            self._network.load_state_dict(state)
        except FileNotFoundError:
            raise DataError(f"{weights}: no such file. Check --weights.") from None
        except Exception as error:  # torch raises anything on a damaged file
            raise DataError(
                f"{weights}: expected the state_dict of {name}: {str(error)[:300]}"
            ) from None

    def __call__(self, images: Any) -> np.ndarray:
        """uint8 images (B, H, W, 3) to logits (B, classes)."""
        return self._run(images, {})

    def layers(self, size: tuple[int, int]) -> list[Layer]:
        """The direct submodules whose output has positions, in the order they run.

        Args:
          size: (H, W) of the images.
        """
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str, output: Any) -> None:
            if output.ndim == 4:
                shapes[name] = (*output.shape[2:], output.shape[1])

        visits = {name: note for name, _ in self._network.named_children()}
        self._run(np.zeros((1, *size, 3), np.uint8), visits)
        return [self._layer(name, shape, size) for name, shape in shapes.items()]

    def _layer(self, name: str, shape: tuple[int, ...], size: tuple[int, int]) -> Layer:
        def front(images: Any) -> Any:
            seen: list[Any] = []
            self._run(images, {name: lambda _, output: seen.append(output)})
            return seen[0].permute(0, 2, 3, 1).contiguous().numpy()

        def back(feature: Any) -> Any:
            received = self._torch.from_numpy(np.array(feature, np.float32)).permute(0, 3, 1, 2)
            blank = np.zeros((len(feature), *size, 3), np.uint8)
            return self._run(blank, {name: lambda _, output: received})

        return Layer(name, shape, front, back)

    def _run(self, images: Any, visits: Mapping[str, Callable[[str, Any], Any]]) -> np.ndarray:
        """The forward pass; what a visit returns, if anything, replaces its submodule's output."""
        pixels = (np.asarray(images, np.float32) / 255 - _MEAN) / _DEVIATION
        x = self._torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
        with contextlib.ExitStack() as stack, self._torch.inference_mode():
            for name, visit in visits.items():
                hook = lambda _module, _inputs, output, n=name, v=visit: v(n, output)  # noqa: E731
                stack.enter_context(self._network.get_submodule(name).register_forward_hook(hook))
            return self._network(x).numpy()
