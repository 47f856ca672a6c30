"""What `tables.py` runs: chains, their variants, attacks, and the papers' own figures."""

from __future__ import annotations

SMALL, U, P, INVERT = (
    "atclean_cifar10_small", "btidbf_u_cifar10_small", "btidbf_p_cifar10_small", "btidbf_invert_cifar10_small",
)  # fmt: skip
PGBD, NT, ST, TAC, NC, PIXEL = (
    "pgbd_cifar10_small", "pgbd_nt_cifar10_small", "pgbd_st_cifar10_small", "tac_cifar10_small", "nc_cifar10_small",
    "pixel_cifar10_small",
)  # fmt: skip
ADAPTIVE = "pgbd_adaptive_small"
FACES = ("pgbd_faces", "pgbd_nt_faces", "tac_faces")
# The stage whose suspect is the cleaned one, where it is not `clean`.
CLEANED = {U: "unlearn", P: "purify", PGBD: "sanitize", NT: "sanitize", TAC: "tune", NC: "unlearn", PIXEL: "unlearn"}
CLEANED |= {ADAPTIVE: "sanitize"}
CLEANED |= dict(zip(FACES, ("sanitize", "sanitize", "tune"), strict=True))
TARGETS = (0, 2, 4, 6, 8)
GIVEN = ["stages.tune.inputs={model.suspect: victim}"]
# TAC as we read the paper: latents are shifted, no images stamped
SHIFTED = [
    "stages.tune.data.init_args.batch_size=128",
    "stages.tune.trainer.max_epochs=20",
    "stages.tune.model={class_path: lit_backdoor.defenses.tac.TACFineTune, init_args: {program: {margin: 3.0}}}",
    "stages.control.data.init_args.batch_size=128",
    "stages.control.trainer.max_epochs=20",
    "stages.control.model.init_args.batch_norm=train",
    "stages.control.model.init_args.optimizer.init_args.lr=0.005",
]
TIE = [f"stages.{stage}.model.init_args.program.margin=0.0" for stage in ("detect", "tune")]
WINDOWS = ["stages.tune.model.init_args.search={weight: 0.7}", "stages.tune.model.init_args.shift=0"]
TARGET = ["stages.tune.model.init_args.target=0"]
# A chain may carry a variant, CHAIN@VARIANT: more settings for --set.
VARIANTS = {
    "root5": ["data.init_args.split.root=1000"],
    # more steps in each of the shorter epochs; a defender knows the size of the root set
    "root5_batch32": [
        "data.init_args.split.root=1000",
        "stages.unlearn.data.init_args.batch_size=32",
        "stages.unlearn.model.init_args.rounds=2",
        "stages.unlearn.trainer.max_epochs=19",
        "stages.control.data.init_args.batch_size=32",
        "stages.control.trainer.max_epochs=6",
    ],
    # from all to all there is no one class to pull generated images to
    "no_pull": [
        "stages.unlearn.model.init_args.inversion.toward_target=false",
        "stages.unlearn.model.init_args.rounds=5",
        "stages.unlearn.trainer.max_epochs=43",
        "stages.control.trainer.max_epochs=15",
    ],
    # all stamps in windows of a random size, of single pixels, as PGBD's are; no latents shifted
    "windows": WINDOWS,
    # oracles: what the defense would do if it were told
    "given": GIVEN + TARGET,
    "shifted": SHIFTED,
    "given_windows": GIVEN + WINDOWS + TARGET,
    "given_shifted": GIVEN + SHIFTED + TARGET,
    # and the paper's program: the class wins by nothing
    "tie": SHIFTED + TIE,
    "given_tie": GIVEN + SHIFTED + TARGET + TIE,
    "precise": ["sweep=null"],
    "lambda03": ["stages.sanitize.model.init_args.weight=0.3"],
    "victim24": ["stages.victim.trainer.max_epochs=24"],  # three times as long
    "rate1": ["data.init_args.attack.init_args.rate=0.01"],  # PGBD's
    # the paper's loss, on clean images alone
    "plain": [
        "stages.sanitize.model.init_args.search=null",
        "stages.sanitize.model.init_args.weight=40",
        "stages.sanitize.model.init_args.average=9",
    ],
}
# Detection alone, at any target: what comes after it is left out.
AFTER = {INVERT: (), TAC: ("tune", "control"), NC: ("unlearn", "control"), PIXEL: ("unlearn", "control")}
LABELS = {
    "rate1": ", 1 % poisoned",
    "victim24": ", suspects of 24 epochs",
    "lambda03": ", lambda .3",
    ST: ", ST-PGBD",
    ADAPTIVE: ", drawn to clean features (ML-MMDR)",
    NC: ", Neural Cleanse",
    PIXEL: ", Pixel",
    "pgbd_nt_faces": ", NT-PGBD",
    "tac_faces": ", TAC",
    "root5": ", root 5 %",
    "root5_batch32": ", root 5 %, batches of 32, two rounds",
    "given": ", the class given",
    "windows": ", windows stamped alone",
    "given_windows": ", the class given, windows stamped alone",
    "shifted": ", latents shifted",
    "given_shifted": ", latents shifted, the class given",
    "tie": ", latents shifted, no margin",
    "given_tie": ", latents shifted, the class given, no margin",
    "plain": ", no stamps searched",
    "no_pull": ", no pull to a class, five rounds",
}
# BadNets has the small trigger that Neural Cleanse and Pixel look for
DETECTING = [(chain, "badnets") for chain in AFTER] + [(INVERT, "blend"), (TAC, "blend")]
LONG = ("victim24_", "blend")
CLEAN = [(chain, "null") for chain in (TAC, NC, PIXEL)]
PLAN = [
    *((SMALL, attack) for attack in ("badnets", "blend", "sig", "badnets_a2a", "batt", "wanet")),
    *((f"{SMALL}_{kind}", a) for kind in ("untrained", "detector_free", "letter") for a in ("badnets", "blend")),
    *(("atclean_tinyimagenet_small", attack) for attack in ("badnets", "blend")),
    ("collision", "badnets"),
    *((chain, attack) for chain in (U, P) for attack in ("badnets", "blend", "sig", "wanet", "badnets_a2a", "null")),
    *(
        (f"{chain}@{variant}", attack)
        for chain, variant in ((U, "root5"), (U, "root5_batch32"), (P, "root5"))
        for attack in ("badnets", "blend")
    ),
    *((f"{chain}@target{target}", attack) for chain, attack in DETECTING for target in TARGETS),
    *((f"{chain}@target0", attack) for chain, attack in CLEAN),
    *((chain, attack) for chain in (TAC, PGBD, NT) for attack in ("badnets", "blend", "sig")),
    *((chain, "badnets") for chain in (NC, PIXEL, ADAPTIVE)),
    (TAC, "badnets_a2a"),
    *((f"{TAC}@{variant}target{target}", a) for variant, a in (("", "sig"), LONG) for target in TARGETS),
    *((chain, "wanet") for chain in (TAC, PGBD, NT)),
    *((f"{chain}@rate1", attack) for chain in (TAC, PGBD, NT) for attack in ("badnets", "blend")),
    *((ST, attack) for attack in ("badnets", "blend", "sig")),
    (f"{SMALL}_detector_free", "badnets_a2a"),
    *((f"{PGBD}@plain", attack) for attack in ("badnets", "blend", "sig")),
    *(
        (f"{TAC}@{variant}", attack)
        for variant in ("given", "given_windows", "given_shifted", "given_tie")
        for attack in ("blend", "sig")
    ),  # it misses them
    (f"{TAC}@victim24", "blend"),
    *((f"{TAC}@windows", attack) for attack in ("badnets", "badnets_a2a", "wanet")),
    *((f"{TAC}@shifted", attack) for attack in ("badnets", "blend", "sig", "wanet")),
    *((f"{TAC}@tie", attack) for attack in ("badnets", "badnets_a2a")),
    (f"{SMALL}_oracle@precise", "badnets_a2a"),
    *((chain, attack) for chain in (NT, f"{NT}@lambda03") for attack in ("badnets_a2a", "null")),
    (f"{U}@no_pull", "badnets_a2a"),
    *((chain, "sunglasses") for chain in FACES),
    ("demo", "badnets"),
]
EXTRA = {"wanet": ["stages.victim.trainer.max_epochs=30"]}  # its victim takes longer to learn the warp
NAMES = {
    "badnets": "BadNets 5x5", "blend": "Blend .2", "sig": "SIG", "badnets_a2a": "BadNets all-to-all", "batt": "BATT",
    "wanet": "WaNet", "null": "clean model", "sunglasses": "sunglasses",
}  # fmt: skip
# The papers' own figures, ResNet-18 on all of CIFAR-10: ACC/ASR before, ACC/ASR after, in percent.
PAPER = {
    SMALL: {
        "badnets": "86.4/99.7 → 86.0/0.3", "blend": "84.8/94.5 → 86.8/1.6", "sig": "84.1/89.6 → 82.1/0.4",
        "wanet": "87.2/84.0 → 90.7/0.8", "batt": "89.6/84.1 → 82.8/15.1",
    },
    U: {
        "badnets": "92.8/99.9 → 92.0/1.4", "blend": "93.1/97.3 → 91.6/7.9", "wanet": "94.5/99.6 → 90.8/0.9",
        "badnets_a2a": "93.0/82.5 → 90.3/2.8",
    },
    P: {
        "badnets": "92.8/99.9 → 90.3/1.2", "blend": "93.1/97.3 → 89.1/1.0", "wanet": "94.5/99.6 → 89.1/1.6",
        "badnets_a2a": "93.0/82.5 → 88.2/5.7",
    },
    PGBD: {  # with 1 % of rows poisoned
        "badnets": "92.3/88.9 → 90.7/0.8", "blend": "93.1/92.9 → 86.1/4.9", "sig": "92.9/89.0 → 87.2/0.3",
        "wanet": "90.0/97.6 → 88.5/2.4",
    },
    NT: {  # means over all data sets; SIG was run on CIFAR-10 alone
        "badnets": "85.4/86.6 → 81.1/0.3", "blend": "86.9/96.2 → 78.4/0.4", "sig": "92.9/89.0 → 90.1/0.0",
        "wanet": "84.0/90.4 → 81.5/0.9", "badnets_a2a": "89.6/85.1 → 91.2/1.0",
    },
    ST: {  # the same
        "badnets": "85.4/86.6 → 83.6/0.6", "blend": "86.9/96.2 → 73.5/2.8", "sig": "92.9/89.0 → 89.9/7.5",
    },
    ADAPTIVE: {"badnets": "88.2/98.1 → 88.6/0.3"},
    "pgbd_faces": {"sunglasses": "93.3/86.2 → 71.7/5.0"},  # on pictures of other people
    "pgbd_nt_faces": {"sunglasses": "93.3/86.2 → 63.3/1.7"},
}  # fmt: skip
# The BTI-DBF paper's FD and DSR in percent of three detectors (Table 1: 10 targets, 5 repeats, ResNet-18 on CIFAR-10).
PAPER_DETECTION = {
    (INVERT, "badnets"): "7.81/100", (NC, "badnets"): "8.20/100", (PIXEL, "badnets"): "71.12/100",
    (INVERT, "blend"): "1.79/100",
}  # fmt: skip


def settings(name: str, variant: str, attack: str) -> list[str]:
    """What ``--set`` gets for a chain's variant under an attack."""
    of, at, target = variant.rpartition("target")  # such as victim24_target4
    found = [*VARIANTS.get(of.rstrip("_") if at else variant, []), *EXTRA.get(attack, [])]
    if at:
        found += [f"stages.{stage}=null" for stage in AFTER[name]] + ["summary={before: victim}"]
        found += [] if attack == "null" else [f"data.init_args.attack.init_args.target={target}"]
    return found
