"""Who takes part in ``python -m bench suite``: every attack of ours, and the same attack of each peer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
_ONE = {"search_steps": 1, "abort_early": False}  # one constant, so that all take the same number of steps
_FEW = {"gamma": 0.002}  # of the values are changed
_BINARY = {"binary_search_steps": 1, "abort_early": False}

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One attack in one norm.

    Attributes:
        attack: a name in `pyrobust.attacks`.
        norm: in which it runs; budget attacks get its radius of `EPS`.
        options: of ours, beside ``norm``, ``eps`` and ``steps``.
        peers: the same attack elsewhere, "adv_lib:ddn", and its options.
        variant: tells rows of the same attack and norm apart.
        first_order: it takes one gradient or so a step: its wall time has a bar.
        targeted: all run towards the next class.
    """

    attack: str
    norm: str
    options: Options = field(default_factory=dict)
    peers: Mapping[str, Options] = field(default_factory=dict)
    variant: str = ""
    first_order: bool = True
    targeted: bool = False

    @property
    def name(self) -> str:
        return " ".join(part for part in (self.attack, self.norm, self.variant) if part)


def _as_they_are(*names: str) -> dict[str, Options]:
    return {name: {} for name in names}


FIRST_ORDER = (
    Entry(
        "fgm", "linf",
        peers=_as_they_are("foolbox:LinfFastGradientAttack", "torchattacks:FGSM", "art:FastGradientMethod"),
    ),
    Entry("fgm_clipped", "linf"),
    Entry(
        "pgd", "linf",
        peers=_as_they_are("adv_lib:pgd_linf", "foolbox:LinfPGD", "torchattacks:PGD", "art:ProjectedGradientDescent"),
    ),
    Entry(
        "pgd", "l2",
        peers=_as_they_are("foolbox:L2PGD", "torchattacks:PGDL2", "art:ProjectedGradientDescent"),
    ),
    Entry("pgd", "l1", peers=_as_they_are("foolbox:L1PGD", "art:ProjectedGradientDescent")),
    Entry(
        "bim", "linf",
        peers=_as_they_are("foolbox:LinfBasicIterativeAttack", "torchattacks:BIM", "art:BasicIterativeMethod"),
    ),
    Entry("mim", "linf", peers=_as_they_are("torchattacks:MIFGSM", "art:MomentumIterativeMethod")),
    Entry("slide", "l1", peers=_as_they_are("foolbox:SparseL1DescentAttack")),
    Entry("slide", "l1", {"quantile": (0.8, 0.99)}, variant="drawn"),
    Entry("daa", "linf", {"particles": 4}),
    Entry(
        "apgd", "linf",
        peers=_as_they_are("adv_lib:apgd", "torchattacks:APGD", "art:AutoProjectedGradientDescent", "autoattack:apgd-ce"),
    ),
    Entry(
        "apgd", "l2",
        peers=_as_they_are("adv_lib:apgd", "torchattacks:APGD", "art:AutoProjectedGradientDescent", "autoattack:apgd-ce"),
    ),
    Entry("apgd", "l1", peers=_as_they_are("adv_lib:apgd", "autoattack:apgd-ce")),
    Entry(
        "deepfool", "l2",
        peers=_as_they_are("adv_lib:df", "foolbox:L2DeepFoolAttack", "torchattacks:DeepFool", "art:DeepFool"),
    ),
    Entry("deepfool", "linf", peers=_as_they_are("adv_lib:df", "foolbox:LinfDeepFoolAttack")),
    Entry("superdeepfool", "l2", peers=_as_they_are("adv_lib:sdf")),
    Entry("sparsefool", "l1"),
    Entry("fab", "linf", peers=_as_they_are("adv_lib:fab", "torchattacks:FAB")),
    Entry("fab", "l2", peers=_as_they_are("adv_lib:fab", "torchattacks:FAB")),
    Entry("fab", "l1", peers=_as_they_are("adv_lib:fab")),
    Entry(
        "carlini_wagner", "l2", _ONE,
        {
            "adv_lib:carlini_wagner_l2": _BINARY,
            "foolbox:L2CarliniWagnerAttack": _BINARY,
            "torchattacks:CW": {},
            "art:CarliniL2Method": {"binary_search_steps": 1},
        },
    ),
    Entry("carlini_wagner", "linf", _ONE),
    Entry(
        "ead", "l1", _ONE,
        {"foolbox:EADAttack": _BINARY, "torchattacks:EADL1": _BINARY, "art:ElasticNet": {"binary_search_steps": 1}},
    ),
    Entry("lbfgs", "l2", _ONE),
    Entry("ddn", "l2", peers=_as_they_are("adv_lib:ddn", "foolbox:DDNAttack")),
    Entry("alma", "l2", peers={"adv_lib:alma": {"init_lr_distance": 0.1}}),
    Entry("alma", "l1", peers={"adv_lib:alma": {"init_lr_distance": 0.5}}),
    Entry("fmn", "linf", peers=_as_they_are("adv_lib:fmn", "foolbox:LInfFMNAttack")),
    Entry("fmn", "l2", peers=_as_they_are("adv_lib:fmn", "foolbox:L2FMNAttack")),
    Entry("fmn", "l1", peers=_as_they_are("adv_lib:fmn", "foolbox:L1FMNAttack")),
    Entry("fmn", "l0", {"grouping": "value"}, _as_they_are("adv_lib:fmn", "foolbox:L0FMNAttack")),
    Entry("sigma_zero", "l0", {"grouping": "value"}, _as_they_are("adv_lib:sigma_zero")),
    Entry("high_confidence", "l2"),
    Entry("confident_ascent", "l2"),
    Entry("feature_adversary", "linf"),
    Entry("pdgd", "l2", peers=_as_they_are("adv_lib:pdgd")),
    Entry("pdpgd", "linf", peers=_as_they_are("adv_lib:pdpgd")),
    Entry("pdpgd", "l2", peers=_as_they_are("adv_lib:pdpgd")),
    Entry("pdpgd", "l1", peers=_as_they_are("adv_lib:pdpgd")),
    Entry("pdpgd", "l0", {"grouping": "value"}, _as_they_are("adv_lib:pdpgd")),
    Entry("minimum_norm", "l2"),
)  # fmt: skip
# The search for a pair of values costs JSMA more than its gradients, and the others take few gradients or none.
OTHERS = tuple(
    replace(entry, first_order=False)
    for entry in (
        Entry("jsma", "l0", _FEW, variant="best of all targets"),
        Entry("jsma", "l0", _FEW, {"art:SaliencyMapMethod": {**_FEW, "theta": 1.0}}, "one target", targeted=True),
        Entry("hop_skip_jump", "l2", {"queries": 10}),
        Entry("simba", "l2"),
        Entry("one_pixel", "l0", {"population": 10}),
        Entry("pixel_swap", "l0"),
        Entry("transfer", "linf"),
    )
)
