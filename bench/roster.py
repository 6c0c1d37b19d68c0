"""Who takes part in ``python -m bench strength``: every minimum-norm attack of ours and of the peers, and their parameters.

The list is pinned: A*, the best of all, is taken over those of its rows that are not heavy, so a row that is added or taken
away changes the optimality of all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

BALLS = ("linf", "l2", "l1")
ALL = (*BALLS, "l0")
BUDGETS = (
    10,
    20,
    50,
    100,
    200,
    500,
    1000,
)  # of minimum_norm: a peer is compared with the largest that spends no more than it


@dataclass(frozen=True)
class Entry:
    """One attack.

    Attributes:
        attack: a name in `pyrobust.attacks`, or of a peer's attack, "adv_lib:ddn".
        norms: in which it takes part.
        variants: its options by name: "default" are its own; "1000" are about 1000 gradients a sample.
        heavy: variants that take thousands of gradients or minutes of compilation; they run with ``--heavy`` alone.
    """

    attack: str
    norms: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    heavy: tuple[str, ...] = ()

    @property
    def peer(self) -> bool:
        return ":" in self.attack


def _steps(large: int, *, heavy: bool = False, **options: Any) -> dict[str, Any]:
    """The default, and about 1000 gradients by so many steps."""
    variants = {"default": {}, "1000": {"steps": large, **options}}
    return {"variants": variants, "heavy": ("default",) if heavy else ()}


OURS = (
    Entry("minimum_norm", ALL, {str(budget): {"budget": budget} for budget in BUDGETS}),
    Entry("pdpgd", ALL, **_steps(1000)),
    Entry("pdgd", ("l2",), **_steps(1000)),
    Entry("deepfool", ("linf", "l2")),
    Entry("superdeepfool", ("l2",)),
    Entry("sparsefool", ("l1", "l0")),
    Entry("fab", BALLS, **_steps(111)),
    Entry("ddn", ("l2",), **_steps(1000)),
    Entry("fmn", ALL, **_steps(1000)),
    Entry("alma", ("l2", "l1"), {"100": {"steps": 100, "alpha": 0.5}, "default": {}}),
    Entry("carlini_wagner", ("linf", "l2"), **_steps(111, heavy=True)),
    Entry("ead", ("l1",), **_steps(111, heavy=True)),
    Entry("lbfgs", ("l2",)),
    Entry("jsma", ("l0",)),
    Entry("sigma_zero", ("l0",), {"100": {"steps": 100}, "default": {}}),
)
# AttackBench's parameters where adv-lib's defaults are known to be weak: the initial step of ALMA, σ-zero's peers' ⅔ prox,
# DDN without quantisation.
PEERS = (
    Entry("adv_lib:alma", ("l1",), {"default": {}, "1000": {"init_lr_distance": 0.5}}),
    Entry("adv_lib:alma", ("l2",), {"default": {}, "1000": {"init_lr_distance": 0.1}}),
    Entry("adv_lib:carlini_wagner_l2", ("l2",), **_steps(111, heavy=True)),
    Entry("adv_lib:carlini_wagner_linf", ("linf",), **_steps(50, heavy=True)),
    Entry("adv_lib:ddn", ("l2",), **_steps(1000, levels=None)),
    Entry("adv_lib:df", ("linf", "l2")),
    Entry("adv_lib:fab", BALLS, **_steps(111)),
    Entry("adv_lib:fga", ("l0",)),
    Entry("adv_lib:fmn", ALL, **_steps(1000)),
    Entry("adv_lib:minimal_apgd", ("linf",), **_steps(100, heavy=True, binary_search_steps=10, max_eps=0.5)),
    Entry("adv_lib:minimal_apgd", ("l2",), **_steps(100, heavy=True, binary_search_steps=10, max_eps=5.0)),
    Entry("adv_lib:minimal_apgd", ("l1",), **_steps(100, heavy=True, binary_search_steps=10, max_eps=50.0)),
    Entry("adv_lib:pdgd", ("l2",), **_steps(1000)),
    Entry("adv_lib:pdpgd", BALLS, **_steps(1000)),
    Entry("adv_lib:pdpgd", ("l0",), **_steps(1000, proximal_operator=23)),
    Entry("adv_lib:sdf", ("l2",)),
    Entry("adv_lib:sigma_zero", ("l0",), {"100": {"steps": 100}, "default": {}}),
    Entry("adv_lib:tr", ("linf", "l2")),
    Entry("adv_lib:vfga", ("l0",)),
    Entry("foolbox:DDNAttack", ("l2",), **_steps(1000)),
    Entry("foolbox:EADAttack", ("l1",), **_steps(111, heavy=True, decision_rule="L1")),
    Entry("foolbox:L2CarliniWagnerAttack", ("l2",), **_steps(111, heavy=True)),
    Entry("foolbox:L2DeepFoolAttack", ("l2",)),
    Entry("foolbox:LinfDeepFoolAttack", ("linf",)),
    Entry("foolbox:LInfFMNAttack", ("linf",), **_steps(1000)),
    Entry("foolbox:L2FMNAttack", ("l2",), **_steps(1000)),
    Entry("foolbox:L1FMNAttack", ("l1",), **_steps(1000)),
    Entry("foolbox:L0FMNAttack", ("l0",), **_steps(1000)),
    Entry("foolbox:LinfinityBrendelBethgeAttack", ("linf",), heavy=("default",)),
    Entry("foolbox:L2BrendelBethgeAttack", ("l2",), heavy=("default",)),
    Entry("foolbox:L1BrendelBethgeAttack", ("l1",), heavy=("default",)),
    Entry("foolbox:L0BrendelBethgeAttack", ("l0",), heavy=("default",)),
    Entry("torchattacks:CW", ("l2",), **_steps(1000)),
    Entry("torchattacks:DeepFool", ("l2",)),
    Entry("torchattacks:EADL1", ("l1",)),
    Entry("torchattacks:EADEN", ("l2",)),
    Entry("torchattacks:FAB", ("linf", "l2"), **_steps(100)),
    Entry("torchattacks:JSMA", ("l0",)),
    Entry("torchattacks:Pixle", ("l0",)),
    Entry("torchattacks:SparseFool", ("l0",)),
    Entry("art:CarliniL0Method", ("l0",), heavy=("default",)),
    Entry("art:CarliniL2Method", ("l2",)),
    Entry("art:CarliniLInfMethod", ("linf",)),
    Entry("art:DeepFool", ("l2",)),
    Entry("art:ElasticNet", ("l1",)),
    Entry("art:NewtonFool", ("l2",)),
    Entry("art:SaliencyMapMethod", ("l0",)),
)


@dataclass(frozen=True)
class Row:
    """One attack in one norm with one set of options: one line of the tables."""

    attack: str
    norm: str
    variant: str
    options: Mapping[str, Any]
    heavy: bool

    @property
    def name(self) -> str:
        return self.attack if self.variant == "default" else f"{self.attack} {self.variant}"

    @property
    def peer(self) -> bool:
        return ":" in self.attack


def rows(norm: str) -> Iterator[Row]:
    """All lines of the tables of a norm, ours first."""
    for entry in (*OURS, *PEERS):
        if norm in entry.norms:
            for variant, options in entry.variants.items():
                yield Row(entry.attack, norm, variant, options, variant in entry.heavy)
