"""Waits until every workload runs the applied version. If one does not, shows why, as kubectl prints it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localmesh.kind.images import OVERLAY
from localmesh.kind.programs import CannotGoOn, kubectl, show_kubectl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localmesh.console import Console

LIMIT = 300.0  # seconds for all workloads; the nodes may have to pull images
LOG_LINES = 10  # of each pod
WORKLOADS = ("deployment.apps/", "statefulset.apps/")
AUTOSCALER = "horizontalpodautoscaler.autoscaling/"


@dataclass(frozen=True)
class Rollout:
    """The rollout of all workloads of the overlay, from now on."""

    console: Console
    start: float = field(default_factory=time.monotonic)

    def wait(self) -> dict[str, float]:
        """Seconds until each workload was ready, by its name.

        Raises:
            CannotGoOn: one is not ready in time; its pods, the warnings and the ends of its logs were printed.
        """
        found = kubectl("get", f"--kustomize={OVERLAY}", "--output=name").split()
        workloads = [one for one in found if one.startswith(WORKLOADS)]
        self.console.say(f"waiting at most {LIMIT:.0f} s for {len(workloads)} workloads")
        with ThreadPoolExecutor(len(workloads)) as threads:
            seconds = threads.map(lambda one: self._ready_after(one, found), workloads)
            ready_after = dict(zip(map(_name, workloads), seconds, strict=True))
        if unready := [name for name, after in ready_after.items() if after is None]:
            self._explain(unready)
            raise CannotGoOn(f"not ready: {', '.join(unready)}; the pods, warnings and logs above show why")
        return {name: after for name, after in ready_after.items() if after is not None}

    def _ready_after(self, workload: str, found: Sequence[str]) -> float | None:
        autoscaler = f"{AUTOSCALER}{_name(workload)}"
        try:
            if autoscaler in found:  # until the autoscaler acts, one replica counts as a complete rollout
                kubectl("wait", autoscaler, "--for=condition=AbleToScale", self._timeout())
            show_kubectl("rollout", "status", workload, self._timeout())
        except CannotGoOn as failure:
            self.console.bad(f"{workload}: {failure}", failure.details)
            return None
        return time.monotonic() - self.start

    def _timeout(self) -> str:
        rest = self.start + LIMIT - time.monotonic()
        return f"--timeout={max(rest, 1):.0f}s"  # 0 means no limit

    def _explain(self, names: Sequence[str]) -> None:
        logs = ("--prefix", f"--tail={LOG_LINES}", "--ignore-errors")
        for command in (
            ("get", "pods"),
            ("events", "--types=Warning"),
            *(
                ("logs", f"--selector=app.kubernetes.io/name={name}", *logs, *previous)
                for name in names
                for previous in ((), ("--previous",))  # a container that has just restarted has no log yet
            ),
        ):
            self.console.say(f"\n$ kubectl {' '.join(command)}")
            with suppress(CannotGoOn):  # it has printed why, and the next command may work
                show_kubectl(*command)


def _name(resource: str) -> str:
    return resource.rpartition("/")[2]
