"""All benchmarks of speed in one command.

Measures what target space costs compared with weight space, what the estimators cost
compared with a bare loop and scikit-learn, and how long training takes to reach a
stated accuracy.  Prints every table; with ``--out`` it also writes ``results.json`` and
``tables.md``, which the documentation shows and plots.

    python examples/benchmarks/run_all.py [--quick] [--threads 1] [--device cpu]
        [--out DIR] [--only PART ...] [--data DIR]

On one thread it takes more than half an hour, with ``--quick`` two minutes.  Run it on
an idle machine; ``--data`` names a folder with ``mnist.npz``.  With ``--only``, the
other results in DIR are kept, if they were measured in the same environment.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import bench_accuracy
import bench_convolution
import bench_dense
import bench_estimators
import bench_recurrent
from measuring import (
    Row,
    environment,
    markdown,
    options,
    run_parts,
    settings_of,
    shown,
    write_json,
)

PARTS = {
    **bench_dense.PARTS,
    **bench_convolution.PARTS,
    **bench_recurrent.PARTS,
    **bench_estimators.PARTS,
    **bench_accuracy.PARTS,
}


def tables(content: dict[str, Any]) -> str:
    """Render all results as one page of tables."""
    where = [f"{name} {shown(value)}" for name, value in content["environment"].items()]
    parts = [f"Measured with: {', '.join(where)}."]
    for name, rows in content["results"].items():
        title = name[0].upper() + name[1:]
        parts += [f"### {title}", markdown(rows)]
    return "\n\n".join(parts) + "\n"


def render(folder: Path) -> None:
    """Write tables.md from results.json."""
    content = json.loads((folder / "results.json").read_text("utf-8"))
    (folder / "tables.md").write_text(tables(content), "utf-8")


def others(folder: Path, where: Row) -> dict[str, list[Row]]:
    """Read the results that a folder already holds, so that some can be replaced."""
    path = folder / "results.json"
    if not path.exists():
        return {}
    content = json.loads(path.read_text("utf-8"))
    if content["environment"] != where:
        raise SystemExit(
            f"the results in {path} were measured with other versions, threads or on "
            "another machine: give --out another folder, or omit --only"
        )
    results: dict[str, list[Row]] = content["results"]
    return results


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_argument(
        "--render", action="store_true", help="only rewrite tables.md from results.json"
    )
    arguments = parser.parse_args()
    start, out = time.perf_counter(), arguments.out
    if arguments.render and out is None:
        parser.error("--render needs --out")
    if arguments.render:
        render(out)
        return
    settings = settings_of(arguments)
    where = environment(settings)
    print(", ".join(f"{name} {shown(value)}" for name, value in where.items()))

    before = others(out, where) if out and arguments.only else {}

    def keep(results: dict[str, list[Row]]) -> None:
        """Write after every part, so that nothing is lost if a later one fails."""
        if out:
            out.mkdir(parents=True, exist_ok=True)
            known = before | results
            known = {name: known[name] for name in PARTS if name in known}
            write_json(out / "results.json", where, known)
            render(out)

    run_parts(PARTS, settings, arguments.only, keep)
    print(f"\n{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
