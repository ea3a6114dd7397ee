"""How a sweep is asked to train on a fleet, and what of that it cannot do."""

from dataclasses import dataclass

from conf import schema
from conf.problem import Problem

PRUNED_SEARCH = "inv sweep --fleet 4 --trials 12 --prune"


@dataclass(frozen=True)
class OnFleet:
    at_once: int | None = None  # jobs; None: as many as it has room for, of a search one
    detach: bool = False
    prune: bool = False

    def check(self, first: schema.Run, search: bool) -> None:
        """A Problem where that is nothing for this sweep; `first` are the settings of its first job."""
        if first.fleet.engine is schema.Engine.none:
            self._check_box("trial" if search else "job")
        if self.detach and search:
            what = "a search draws its next values by the scores so far, and detached there is nobody who does"
            raise Problem(
                what, "leave out `--detach`: after Ctrl-C what is on AWS Batch goes on, and the same command draws the rest later"
            )
        if self.prune and not search:
            raise Problem("`--prune` ends trials of a search early, and without `--trials` there is none", f"`{PRUNED_SEARCH}`")
        steps, looks = first.train.steps, first.train.eval_steps
        if self.prune and steps is not None and looks >= steps:
            what = f"no trial would be compared before its end: train.eval_steps is {looks}, and train.steps {steps}"
            raise Problem(what, f"`{PRUNED_SEARCH} -- train.eval_steps={max(1, steps // 8)}` compares them while they train")

    def _check_box(self, noun: str) -> None:
        asked = {"--prune": self.prune, "--detach": self.detach, "--fleet": self.at_once}
        if option := next((name for name, wanted in asked.items() if wanted), None):
            command = PRUNED_SEARCH if self.prune else "inv sweep --fleet 4"
            raise Problem(f"a box trains one {noun} after the other, and `{option}` is for a fleet", f"`{command} -- fleet=batch`")


ON_BOX = OnFleet()
