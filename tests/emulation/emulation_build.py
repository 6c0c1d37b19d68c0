"""Builds the emulation test with g++: `python tests/emulation/emulation_build.py FOLDER`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
COMPILER = os.environ.get("CXX", "g++")

COMMON = ["-std=c++17", "-g1", "-w", f"-I{CSRC}", f"-I{CSRC / 'common'}", f"-I{HERE}"]
# Without optimisation the address sanitizer's build takes a fifth of the time, and the code under test runs briefly.
SANITIZERS = {
    "address": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-O1", "-fsanitize=thread"],
}


def why_not() -> str | None:
    """The reason why nothing can be built here, if there is one."""
    if shutil.which(COMPILER) is None:
        return f"no C++ compiler ({COMPILER}) was found"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("int main() {}")
        for name, flags in SANITIZERS.items():
            command = [COMPILER, *flags, str(source), "-o", str(source.with_suffix(""))]
            if subprocess.run(command, capture_output=True).returncode:
                return f"{COMPILER} has no {name} sanitizer"
    return None


def build(folder: Path, jobs: int = 2) -> dict[str, Path]:
    """Compiles into `folder` and links an executable for each sanitizer; returns them by its name."""
    emulated = [*sorted((CSRC / "ops").glob("*.cu")), HERE / "emulation_test.cpp"]
    baseline = [*sorted((CSRC / "ops").glob("*.cpp")), CSRC / "common" / "parallel.cpp"]
    commands, objects = [], {name: [] for name in SANITIZERS}

    def compile_later(source: Path, flags: list[str], tag: str, names: list[str]) -> None:
        target = folder / f"{source.name}.{tag}.o"
        commands.append([COMPILER, *COMMON, *flags, "-x", "c++", "-c", str(source), "-o", str(target)])
        for name in names:
            objects[name].append(str(target))

    for name, flags in SANITIZERS.items():
        for source in emulated:
            compile_later(source, [*flags, "-DPR_EMULATE_CUDA"], name, [name])
    for source in baseline:
        compile_later(source, ["-O1", "-fopenmp-simd"], "plain", list(SANITIZERS))
    compile_later(HERE / "cuda_emulation.cpp", ["-O1"], "plain", list(SANITIZERS))
    run_all(commands, jobs)
    programs = {name: folder / f"emulation_test_{name}" for name in SANITIZERS}
    run_all(
        [
            [COMPILER, *SANITIZERS[name], *objects[name], "-ldl", "-pthread", "-o", str(programs[name])]
            for name in programs
        ],
        jobs,
    )
    return programs


def run_all(commands: list[list[str]], jobs: int) -> None:
    with ThreadPoolExecutor(jobs) as pool:
        for done in pool.map(lambda command: subprocess.run(command, capture_output=True, text=True), commands):
            if done.returncode:
                raise RuntimeError(f"{' '.join(done.args)}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(*build(target).values(), sep="\n")
