"""How `docker run` is asked for a job's container, and what its environment is.

In the process grade a container has no files of its own: what is mounted into it is a folder of the box, and a word of its command or
environment that names a mounted path names that folder.
"""

from twin.aws.batch.definitions import amount
from twin.aws.batch.jobs import Job

LEFT_OUT = ("BOX_ROOT", "TMPDIR", "PATH", "BASH_ENV", "TWIN_TRACE", "TWIN_AGENT_SPEED")  # the box's own affair


def words(job: Job, name: str, variables: dict[str, str], root: str, stop_timeout: int) -> list[str]:
    """The arguments of `docker run`; `root` stands before the paths of the box."""
    own, places = job.container, mounts(job.container, root)
    linux = own.get("linuxParameters", {})
    options = ["--detach", "--name", name, "--network", "host", "--memory", f"{amount(own, 'MEMORY'):.0f}m"]
    options += ["--stop-timeout", str(stop_timeout), "--label", f"com.amazonaws.ecs.container-name={own['name']}"]
    options += [word for key, value in variables.items() for word in ("--env", f"{key}={value}")]
    for point in own.get("mountPoints", []):
        source = places[point["containerPath"]]
        options += ["--volume", f"{source}:{source if root else point['containerPath']}{':ro' if point.get('readOnly') else ''}"]
    for one in linux.get("tmpfs", []):
        about = [f"size={one['size']}m", *one.get("mountOptions", [])]
        options += ["--tmpfs", f"{root}{one['containerPath']}:{','.join(about)}"]
    options += [word for one in own.get("ulimits", []) for word in ("--ulimit", f"{one['name']}={one['softLimit']}:{one['hardLimit']}")]
    options += ["--shm-size", f"{linux['sharedMemorySize']}m"] if "sharedMemorySize" in linux else []
    options += ["--ipc", "host"] if own.get("ipcMode") == "host" else []
    options += ["--user", own["user"]] if own.get("user") else []
    options += ["--read-only"] if own.get("readonlyRootFilesystem") else []
    options += ["--gpus", "all"] if amount(own, "GPU") else []
    return [*options, own["image"], *(moved(word, places if root else {}) for word in own.get("command", []))]


def mounts(own: dict, root: str) -> dict[str, str]:
    """The folder of the box behind each path of the container."""
    sources = {
        one["name"]: one.get("host", {}).get("sourcePath") or f"/var/lib/ecs/volumes/{one['name']}" for one in own.get("volumes", [])
    }
    places = {one["containerPath"]: root + sources[one["sourceVolume"]] for one in own.get("mountPoints", [])}
    return places | {one["containerPath"]: root + one["containerPath"] for one in own.get("linuxParameters", {}).get("tmpfs", [])}


def moved(word: str, places: dict[str, str]) -> str:
    for path, folder in sorted(places.items(), reverse=True):  # of two that fit the longer one
        if word == path or word.startswith(f"{path}/"):
            return folder + word[len(path) :]
    return word


def environment(job: Job, attempt: int, place: str, of_box: dict[str, str], region: str) -> dict[str, str]:
    """What the network of the twin needs, what ECS and Batch set, and what the job says.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-environment-variables.html
    https://docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html
    """
    network = {name: value for name, value in of_box.items() if name not in LEFT_OUT}
    ecs = {"AWS_EXECUTION_ENV": "AWS_ECS_EC2", "AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    batch = {"AWS_BATCH_JOB_ID": job.id, "AWS_BATCH_JOB_ATTEMPT": str(attempt), "AWS_BATCH_CE_NAME": place}
    batch["AWS_BATCH_JQ_NAME"] = job.queue.rpartition("/")[2]
    places = mounts(job.container, of_box["BOX_ROOT"]) if of_box["BOX_ROOT"] else {}
    return network | ecs | {one["name"]: moved(one["value"], places) for one in job.container.get("environment", [])} | batch


def log_place(job: Job, task: str) -> tuple[str, str, bool]:
    """Log group, stream, and whether the group is made: by default /aws/batch/job and the definition's name.

    https://docs.aws.amazon.com/batch/latest/userguide/using_cloudwatch_logs.html
    """
    own = job.container
    options = own.get("logConfiguration", {}).get("options", {})
    prefix = options.get("awslogs-stream-prefix") or job.definition.name
    group = options.get("awslogs-group")
    return group or "/aws/batch/job", f"{prefix}/{own['name']}/{task}", not group or options.get("awslogs-create-group") == "true"
