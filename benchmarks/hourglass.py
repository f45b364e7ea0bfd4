"""Images per second of the released Taskonomy networks, beside PyTorch's in the same run.

Run:    python -m benchmarks.hourglass [--batch 1] [--repeats 9]
Prints: medians; both on the same device, weights random, torch where it is installed
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounds
from vcmjax.nets import hourglass

DECODERS = ("segment_semantic", "normal", "class_scene")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (options.batch, 256, 256, 3), np.uint8)
    works: dict[str, dict[str, Callable[[], object]]] = {}
    for name in DECODERS:
        network = hourglass.released(name)
        params = jax.jit(lambda network=network: network.init(jax.random.key(0), 256))()
        feature = network.encode(params, image)
        rows = {"encoder": (network.encode, image)} if name == DECODERS[0] else {}
        rows[f"{name} decoder"] = (network.decode, feature)
        for row, (function, inputs) in rows.items():
            works[row] = {
                str(dtype or "float32"): _jax_work(function, params, inputs, dtype)
                for dtype in (None, "bfloat16")
            } | _torch_work(name, row, options.batch)
    each = {(row, kind): work for row, kinds in works.items() for kind, work in kinds.items()}
    seconds = rounds.medians(each, options.repeats)
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, batch {options.batch}")
    kinds = list(next(iter(works.values())))
    print("| images per second, 256×256 |" + "".join(f" {kind} |" for kind in kinds) + " ratio |")
    print("| --- |" + " ---: |" * (len(kinds) + 1))
    for row in works:
        speed = {kind: options.batch / seconds[row, kind] for kind in kinds}
        ratio = f"{speed['float32'] / speed['torch']:.2f}" if "torch" in speed else "–"
        print(f"| {row} |" + "".join(f" {v:.1f} |" for v in speed.values()) + f" {ratio} |")


def _jax_work(function, params, inputs, dtype) -> Callable[[], object]:
    inputs = jnp.asarray(inputs)
    compiled = jax.jit(lambda params, x: function(params, x, dtype))
    return lambda: compiled(params, inputs).block_until_ready()


def _torch_work(name: str, row: str, batch: int) -> dict[str, Callable[[], object]]:
    try:
        import torch
        from visualpriors import taskonomy_network as release
    except ImportError:
        return {}
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    if row == "encoder":
        module, inputs = release.TaskonomyEncoder(normalize_outputs=False), (3, 256, 256)
    else:
        head = hourglass.RELEASED[name]
        mlp = head.kind == "mlp"
        module = release.TaskonomyDecoder(head.channels, is_decoder_mlp=mlp, apply_tanh=head.tanh)
        inputs = (8, 16, 16)
    module, x = module.to(device), torch.rand(batch, *inputs, device=device)

    def work() -> None:
        with torch.no_grad():
            module(x)
        if device == "cuda":
            torch.cuda.synchronize()

    return {"torch": work}


if __name__ == "__main__":
    main()
