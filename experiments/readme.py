"""Write the tables of README.md, and draw its figures, anew from the committed results.

Run:    python -m experiments.readme
Expect: experiments/results/NAME.png for each plateau_*.json there, and an example page where
        NAME_examples.npz lies beside it; in README.md each block from ``<!-- results: NAME -->`` to
        ``<!-- end -->`` holds the table of NAME.json, ``<!-- recipes: DATA -->`` the recipes
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vcmjax.evaluate import plots, tables
from vcmjax.evaluate.plateau import bits_at

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
_BLOCK = re.compile(r"<!-- (results|recipes): (\w+) -->\n.*?<!-- end -->", re.DOTALL)
RECIPES = {
    "one conditioned model, network's output": "recipe_{}_network.json",
    "one conditioned model, labels": "recipe_{}_labels.json",
    "one model per λ, labels (as in the paper)": "recipe_{}_separate.json",
}
SHARE = 0.9


def recipes(name: str) -> str:
    """Markdown: bits per image of Ours at 90 % of the uncompressed score, by recipe and seed."""
    lines = [
        f"| recipe | bits at {SHARE:.0%} of uncompressed mIoU, each seed | most mIoU reached |",
        "|---|---|---|",
    ]
    for recipe, pattern in RECIPES.items():
        path = RESULTS / pattern.format(name)
        if path.exists():
            lines.append(f"| {recipe} | {_cell(tables.read(path))} |")
    return "\n".join(lines)


def _cell(results: dict) -> str:
    """Bits at the share of the uncompressed mIoU, and the best mIoU on the grid, by seed."""
    rows = [r for r in results["rows"] if r["split"] == "val"]
    (whole,) = (
        r["metrics"]["miou"] for r in rows if r["method"] == "original" and r["seed"] is None
    )
    bits, best = [], []
    for seed in results["seeds"]:
        curve = [
            (8 * r["bytes_total"], r["metrics"]["miou"])
            for r in rows
            if r["method"] == "ours" and r["seed"] == seed
        ]
        bits.append(bits_at(curve, SHARE * whole))
        best.append(max(score for _, score in curve) / whole)
    shown = ", ".join("not reached" if np.isnan(b) else f"{b:.0f}" for b in bits)
    return f"{shown} | {', '.join(f'{b:.1%}' for b in best)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite README.md in place and redraw its figures."""
    del arguments
    for results in sorted(RESULTS.glob("plateau_*.json")):
        content = tables.read(results)
        plots.rate_performance(content, results.with_suffix(".png"))
        examples = results.with_name(f"{results.stem}_examples.npz")
        if examples.exists():
            plots.examples(examples, content, examples.with_suffix(".png"))
    path = ROOT / "README.md"
    path.write_text(filled(path.read_text()))


def filled(text: str) -> str:
    """`text` with every block holding the table of its results."""

    def block(match: re.Match) -> str:
        kind, name = match.groups()
        results = RESULTS / f"{name}.json"
        made = recipes(name) if kind == "recipes" else tables.markdown(tables.read(results))
        return f"<!-- {kind}: {name} -->\n{made}\n<!-- end -->"

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    main()
