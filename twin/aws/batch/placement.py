"""Where jobs go: to a host with room, or to an instance that is launched for them; and what becomes of jobs whose time or host is over.

One thread does it, whenever something has changed. What falls due at a moment of the world's clock is done by an alarm, at that moment.
"""

import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from twin.aws import wire
from twin.aws.batch import launch, retries
from twin.aws.batch.environments import Environment, Environments
from twin.aws.batch.hosts import Host, Hosts, size
from twin.aws.batch.jobs import ACTIVE, ENDED, WAITING, Attempt, Job
from twin.aws.batch.queues import CAPACITY, NO_FIT, TOO_LARGE, Queue, Queues
from twin.aws.batch.task import Task

TICK = 0.2  # seconds between two looks while there is anything to look at
IDLE = 10.0  # seconds until an instance that no job needs is terminated; AWS takes minutes
NO_CAPACITY = ("InsufficientInstanceCapacity", "InsufficientCapacity", "SpotMaxPriceTooLow")
UNDETERMINED = "UNDETERMINED"
# https://docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html
WORDS = {
    CAPACITY: f"{CAPACITY} - Service cannot fulfill the capacity requested for instance type [{{}}]",
    TOO_LARGE: f"{TOO_LARGE} - CE(s) associated with the job queue cannot meet the CPU requirement of the job.",
    NO_FIT: f"{NO_FIT} - The job resource requirement (vCPU/memory/GPU) is higher than that can be met by the CE(s) of the job queue.",
    UNDETERMINED: f"{UNDETERMINED} - Batch job is blocked, root cause is undetermined.",
}
KILLED = 137  # by SIGKILL
TOO_LONG = "Job attempt duration exceeded timeout"
ALARM_PATIENCE = 10.0  # seconds that an alarm, which holds the clock, waits for who may want to set one


class Placement:
    def __init__(self, environments: Environments, queues: Queues, hosts: Hosts, lock: Any, clock: Any, notices: dict[str, dict]):
        self.environments, self.queues, self.hosts = environments, queues, hosts
        self.lock, self.clock = lock, clock
        self.notices = notices  # spot interruptions by instance
        self.jobs: list[Job] = []
        self.tasks: dict[str, Task] = {}  # by job
        self.make_task: Callable[[Job, Attempt, Host], Task]
        self.again_at: dict[str, float] = {}  # by environment: when a launch that was refused is tried again, on the real clock
        self.wake = threading.Event()
        environments.end, environments.vcpus = self.end_environment, hosts.vcpus
        queues.end = self.end_queue

    def start(self) -> None:
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        while True:
            busy = bool(self.hosts.all) or any(job.status not in ENDED for job in self.jobs)
            self.wake.wait(TICK if busy else None)
            self.wake.clear()
            self.look()

    def look(self, patience: float = -1) -> None:
        if not self.lock.acquire(timeout=patience):
            self.wake.set()
            return
        try:
            alarms = self.tick()
        except Exception:  # twin.log shows it; the next look goes on
            traceback.print_exc(file=sys.stderr)
            alarms = []
        finally:
            self.lock.release()
        for moment in alarms:  # without the lock: an alarm that goes off holds the clock, and waits for the lock
            self.clock.at(moment, lambda: self.look(ALARM_PATIENCE))

    def tick(self) -> list[float]:
        """What is due; when something will be."""
        self.lose_hosts()
        self.heed_notices()
        alarms = [moment for job in self.jobs if job.status in ACTIVE for moment in self.time_out(job)]
        self.settle_dependencies()
        for queue in sorted(self.queues.all.values(), key=lambda one: -one.priority):
            alarms += self.serve(queue)
        return alarms + self.end_idle()

    # Hosts

    def lose_hosts(self) -> None:
        """Jobs whose host is gone end with it."""
        for host in [one for one in self.hosts.all.values() if not self.hosts.is_up(one)]:
            del self.hosts.all[host.instance]
            for job in list(host.jobs.values()):
                self.finish(job, None, "", f"Host EC2 (instance {host.instance}) terminated.")

    def heed_notices(self) -> None:
        """With draining on, the ECS agent stops what runs and takes nothing new; without it, nobody hears of the notice here."""
        for host in self.hosts.all.values():
            if host.drains and not host.draining and host.instance in self.notices:
                host.draining = True
                for id in host.jobs:
                    self.tasks[id].stop()

    def end_idle(self) -> list[float]:
        alarms = []
        for host in [one for one in self.hosts.all.values() if not one.jobs and one.environment in self.environments.all]:
            environment = self.environments.all[host.environment]
            minutes = environment.resources.get("scalingPolicy", {}).get("minScaleDownDelayMinutes", 0)
            due = host.idle_since + max(IDLE, minutes * 60)
            if self.hosts.vcpus(environment) - host.vcpus < environment.resources.get("minvCpus", 0):
                continue
            if self.clock.now() >= due:
                self.hosts.end(host)
            elif host.alarm != due:
                host.alarm = due
                alarms.append(due)
        return alarms

    def end_environment(self, environment: Environment) -> None:
        for host in self.hosts.of(environment):
            self.hosts.end(host)
            for job in list(host.jobs.values()):
                self.finish(job, None, "", f"Host EC2 (instance {host.instance}) terminated.")

    # Jobs

    def submit(self, job: Job) -> None:
        self.jobs.append(job)
        job.status = "PENDING" if job.content.get("dependsOn") else "RUNNABLE"
        self.wake.set()

    def settle_dependencies(self) -> None:
        known = {job.id: job for job in self.jobs}
        for job in [one for one in self.jobs if one.status == "PENDING"]:
            before = [known[one["jobId"]].status for one in job.content["dependsOn"] if one.get("jobId") in known]
            if "FAILED" in before:
                job.status, job.reason = "FAILED", "Dependent Job failed"
            elif all(status == "SUCCEEDED" for status in before):
                job.status = "RUNNABLE"

    def serve(self, queue: Queue) -> list[float]:
        """The jobs of a queue in their order, until one has to wait: it blocks those behind it."""
        for job in [one for one in self.jobs if one.queue == queue.arn and one.status == "RUNNABLE"]:
            host, reason, kind = self.place(job, queue)
            if host:
                self.begin(job, host)
            else:
                return self.block(job, queue, reason, kind)
        return []

    def place(self, job: Job, queue: Queue) -> tuple[Host | None, str, str]:
        """A host for the job; or the reason why there is none, empty where it only waits its turn."""
        usable = [self.environments.all[name] for name in self.queues.names(queue) if name in self.environments.all]
        usable = [one for one in usable if one.state == "ENABLED" and self.environments.status(one)[0] == "VALID"]
        for environment in usable:
            for host in self.hosts.of(environment):
                if not host.draining and host.has_room(job):
                    return host, "", ""
        reasons = []
        for environment in usable:
            host, reason, kind = self.launch(job, environment)
            if host:
                return host, "", ""
            reasons.append((reason, kind))
        worst = [one for one in reasons if one[0]] if all(reason for reason, _ in reasons) else [("", "")]
        return None, *(worst[0] if worst else ("", ""))

    def launch(self, job: Job, environment: Environment) -> tuple[Host | None, str, str]:
        vcpus, memory, gpus = job.needs
        every = [kind for word in environment.resources["instanceTypes"] for kind in launch.types_of(word)]
        fitting = [kind for kind in every if all(has >= need for has, need in zip(size(kind), (vcpus, memory, gpus), strict=True))]
        if vcpus > environment.resources["maxvCpus"]:
            return None, TOO_LARGE, ""
        if not fitting:
            return None, NO_FIT, ""
        # Only the last instance may lead beyond maxvCpus: user guide, compute_environment_parameters.
        if self.hosts.vcpus(environment) + vcpus > environment.resources["maxvCpus"]:
            return None, "", ""
        if time.monotonic() < self.again_at.get(environment.name, 0):
            return None, job.blocked, fitting[0]
        refused = ""
        for kind in fitting:
            host = self.hosts.launch(environment, kind)
            if isinstance(host, Host):
                return host, "", ""
            refused = CAPACITY if host in NO_CAPACITY else UNDETERMINED
        self.again_at[environment.name] = time.monotonic() + 1.0
        return None, refused, fitting[0]

    def block(self, job: Job, queue: Queue, reason: str, kind: str) -> list[float]:
        """The head of a queue waits; for too long, where the queue says so."""
        now = self.clock.now()
        if not reason:
            return []
        is_new = job.blocked != reason
        if is_new:
            job.blocked, job.blocked_since, job.reason = reason, now, WORDS[reason].format(kind)
        patience = queue.patience(reason)
        if patience is None:
            return []
        if now >= job.blocked_since + patience:
            job.status, job.cancelled = "FAILED", True
            job.reason = f"Canceled by JobStateTimeLimit action due to reason: {reason}"
            self.wake.set()
            return []
        return [job.blocked_since + patience] if is_new else []

    def begin(self, job: Job, host: Host) -> None:
        cluster = host.arn.split("/")[1]
        attempt = Attempt(host.arn, f"arn:aws:ecs:{self.hosts.region}:{wire.ACCOUNT}:task/{cluster}/{secrets.token_hex(16)}")
        job.status, job.current, job.blocked, job.reason = "STARTING", attempt, "", ""
        host.jobs[job.id] = job
        task = self.tasks[job.id] = self.make_task(job, attempt, host)
        threading.Thread(target=task.run, daemon=True).start()

    def started(self, task: Task) -> None:
        with self.lock:
            task.attempt.started = self.clock.now()
            if task.job.current is task.attempt:
                task.job.status = "RUNNING"
            if task.stopped:
                task.stopped = False
                task.stop()
        self.wake.set()

    def ended(self, task: Task, code: int | None, reason: str, status_reason: str) -> None:
        with self.lock:
            if task.job.current is not task.attempt:
                return  # its host was lost before
            drained = task.host.draining and task.stopped and code == KILLED
            if drained or not self.hosts.is_up(task.host):
                code, reason, status_reason = None, "", f"Host EC2 (instance {task.host.instance}) terminated."
            self.finish(task.job, code, reason, status_reason)
        self.wake.set()

    def finish(self, job: Job, code: int | None, reason: str, status_reason: str) -> None:
        """The attempt is over; what that means for the job."""
        attempt, job.current = job.current, None
        attempt.exit_code, attempt.reason, attempt.status_reason = code, reason, job.ending or status_reason
        attempt.stopped = self.clock.now()
        job.attempts.append(attempt)
        self.tasks.pop(job.id, None)
        for host in self.hosts.all.values():
            if host.jobs.pop(job.id, None):
                host.idle_since = self.clock.now()
        job.reason = job.ending or status_reason
        if code == 0 and not job.ending:
            job.status = "SUCCEEDED"
            return
        strategy = job.strategy
        more = len(job.attempts) < strategy["attempts"] and not job.ending
        again = more and retries.again(strategy["evaluateOnExit"], status_reason, reason, code)
        job.status = "RUNNABLE" if again else "FAILED"

    def time_out(self, job: Job) -> list[float]:
        """The moment at which an attempt will have lasted too long, the first time that somebody asks."""
        if not job.timeout or not job.current or not job.current.started:
            return []
        due = job.current.started + job.timeout
        if self.clock.now() >= due:
            job.ending = job.ending or TOO_LONG
            self.tasks[job.id].stop()
            return []
        is_new = job.current.alarm != due
        job.current.alarm = due
        return [due] if is_new else []

    def cancel(self, job: Job, reason: str) -> None:
        """Only of a job that has not begun: API, CancelJob."""
        if job.status in WAITING:
            job.status, job.reason, job.cancelled = "FAILED", reason, True
            self.wake.set()

    def terminate(self, job: Job, reason: str) -> None:
        """Of one that has begun its container is stopped; of one that waits, as CancelJob: API, TerminateJob."""
        if job.status in ENDED:
            return
        job.terminated = True
        if job.status in WAITING:
            job.status, job.reason = "FAILED", reason
        else:
            job.ending = job.ending or reason
            self.tasks[job.id].stop()
        self.wake.set()

    def end_queue(self, queue: Queue) -> None:
        for job in self.jobs:
            if job.queue == queue.arn:
                self.terminate(job, "Job queue was deleted")
