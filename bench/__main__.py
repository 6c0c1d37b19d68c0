"""``python -m bench kernels|attacks|suite|strength|training|analysis``: tables on screen, JSON in bench/results/."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from bench import environment, report

NORMS = ("linf", "l2", "l1", "l0", "l0-values")
RESULTS = Path(__file__).resolve().parent / "results"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", choices=("kernels", "attacks", "suite", "strength", "training", "analysis"))
    parser.add_argument(
        "--smoke", action="store_true", help="tiny sizes: does it run; the figures mean nothing, and are not kept"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="write the JSON here (default: bench/results, unless --smoke)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=0,
        help="interleaved rounds (default: 2 with --smoke, else 10 for kernels, 7 for attacks, 5 for the others)",
    )
    kernels = parser.add_argument_group("kernels")
    kernels.add_argument("--dtype", choices=("float32", "float64", "float16", "bfloat16"), default="float32")
    kernels.add_argument("--only", default="", help="ops (or attacks, objectives, analyses) whose name contains this")
    kernels.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes most of the time")
    attacks = parser.add_argument_group("attacks")
    attacks.add_argument("--steps", type=int, default=0, help="of the wall-time race (default 100, of suite 10)")
    attacks.add_argument("--strength-steps", type=int, default=0, help="of the comparison of norms (default 500)")
    attacks.add_argument("--no-strength", action="store_true", help="the wall-time race alone")
    strength = parser.add_argument_group("strength")
    strength.add_argument(
        "--half", choices=("tune", "report"), default="report", help="of the test images: to choose on, or to report"
    )
    strength.add_argument("--samples", type=int, default=100, help="images a network (default 100)")
    strength.add_argument("--norms", nargs="+", default=list(NORMS), choices=NORMS, help="default: all")
    strength.add_argument("--networks", nargs="+", default=[], help="names such as 'mnist linf-at' (default: all)")
    strength.add_argument("--heavy", action="store_true", help="also what takes thousands of gradients a sample")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch sees no GPU", file=sys.stderr)
        return 2
    device = torch.device(args.device)
    # No figure depends on where it is written.
    content = environment.describe(device, {key: value for key, value in vars(args).items() if key != "out"})
    if args.what == "kernels":
        from bench import kernels

        content |= kernels.run(
            device, smoke=args.smoke, dtype=args.dtype, only=args.only, compiled=not args.no_compile, rounds=args.rounds
        )
    elif args.what == "strength":
        from bench import strength

        content |= strength.run(
            device,
            smoke=args.smoke,
            half=args.half,
            samples=args.samples,
            norms=args.norms,
            networks=args.networks,
            only=args.only,
            heavy=args.heavy,
            plots=None if args.smoke else (args.out.parent if args.out else RESULTS),
        )
    elif args.what == "training":
        from bench import training

        content |= training.run(device, smoke=args.smoke, rounds=args.rounds, only=args.only)
    elif args.what == "analysis":
        from bench import analysis

        content |= analysis.run(device, smoke=args.smoke, rounds=args.rounds, only=args.only)
    elif args.what == "suite":
        from bench import suite

        content |= suite.run(device, smoke=args.smoke, steps=args.steps, rounds=args.rounds, only=args.only)
    else:
        from bench import attacks

        content |= attacks.run(
            device,
            smoke=args.smoke,
            steps=args.steps,
            strength_steps=args.strength_steps,
            strength=not args.no_strength,
            rounds=args.rounds,
        )
    out = args.out
    if out is None and not args.smoke:
        what = "strength-tune" if args.what == "strength" and args.half == "tune" else args.what
        out = RESULTS / f"{what}-{args.device}-{environment.slug(environment.processor(device))}.json"
    if out is not None:
        report.save(out, content)
        print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
