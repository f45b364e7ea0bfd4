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
    "conditioned, network": "plateau_{}.json",
    "conditioned, labels": "recipe_{}_labels.json",
    "separate, labels (as in the paper)": "recipe_{}_separate_labels.json",
}
SHARE = 0.95


def recipes(name: str) -> str:
    """Markdown: bits per image of Ours at 95 % of the uncompressed score, by recipe and seed."""
    lines = [
        f"| recipe | bits per image at {SHARE:.0%} of the uncompressed score: mean (each seed) |",
        "|---|---|",
    ]
    for recipe, pattern in RECIPES.items():
        path = RESULTS / pattern.format(name)
        if path.exists():
            lines.append(f"| {recipe} | {_cell(tables.read(path))} |")
    return "\n".join(lines)


def _cell(results: dict) -> str:
    rows = [r for r in results["rows"] if r["split"] == "val" and r["task"] == "segment_semantic"]
    (wanted,) = (
        r["metrics"]["miou"] for r in rows if r["method"] == "original" and r["seed"] is None
    )
    bits = []
    for seed in results["seeds"]:
        curve = [r for r in rows if r["method"] == "ours" and r["seed"] == seed]
        points = [(r["bpp_real"] * r["height"] * r["width"], r["metrics"]["miou"]) for r in curve]
        bits.append(bits_at(points, SHARE * wanted))
    each = ", ".join("not reached" if np.isnan(b) else f"{b:.0f}" for b in bits)
    mean = "not reached by every seed" if np.isnan(bits).any() else f"{np.mean(bits):.0f}"
    return f"{mean} ({each})"


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

    def block(match: re.Match) -> str:
        kind, name = match.groups()
        made = (
            recipes(name)
            if kind == "recipes"
            else tables.markdown(tables.read(RESULTS / f"{name}.json"))
        )
        return f"<!-- {kind}: {name} -->\n{made}\n<!-- end -->"

    path.write_text(_BLOCK.sub(block, path.read_text()))


if __name__ == "__main__":
    main()
