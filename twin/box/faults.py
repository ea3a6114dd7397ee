"""What may go wrong with a box, its agent, its disks and its images: each function is a fault of its own name."""

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twin.aws import wire
from twin.aws.ec2 import instance_connect, instances
from twin.aws.services.scheduler import call_ec2
from twin.box import processes

KEY = "SOMEBODY"  # stands in the journal where a caller would


class HostFaults:
    """Faults by name; each is done at once, or `after` so many seconds of the world's clock."""

    def __init__(self, gateway: Callable, clock, boxes, commands, spot, quotas, registry, consistency, plan, propagation):
        self.gateway, self.clock, self.boxes, self.commands = gateway, clock, boxes, commands
        self.spot, self.quotas, self.registry = spot, quotas, registry
        self.consistency, self.plan, self.propagation = consistency, plan, propagation
        self.region = boxes.region
        self.actions: dict[str, Callable[..., None]] = {
            name.removeprefix("do_").replace("_", "-"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def arm(self, name: str, after: float = 0, instance: str | None = None, **options) -> dict:
        action = self.actions[name]
        wants = action.__code__.co_varnames[1 : action.__code__.co_argcount]
        if unknown := set(options) - set(wants):
            raise ValueError(f"{name} takes {', '.join(wants) or 'nothing'}, not {', '.join(unknown)}")
        if "instance" in wants:
            options["instance"] = instance or self.newest()
        if after:
            self.clock.at(self.clock.now() + after, lambda: action(**options))
        else:
            action(**options)
        return {"name": name, "about": action.__doc__}

    def newest(self) -> str:
        alive = [one for one in instances.every(self.region) if one._state.name != "terminated"]
        if not alive:
            raise ValueError("there is no instance to which it could happen")
        return max(alive, key=lambda one: one.launch_time).id

    def ec2(self, operation: str, instance: str) -> None:
        call_ec2(self.gateway, self.region, operation, {"InstanceId.1": instance}, KEY)

    # The agent

    def do_lag(self, seconds: float = 5.0) -> None:
        """a new command shows only after some seconds"""
        self.commands.soonest_seen = float(seconds)

    def do_agent_dies(self, instance: str) -> None:
        """the agent's processes are killed and nobody starts them again"""
        agent = self.boxes.agent_processes(instance)
        processes.send(agent, signal.SIGSTOP)  # else its core would begin another worker
        processes.send(agent, signal.SIGKILL)
        while self.boxes.agents[instance].poll() is None:
            # nsenter stops itself as soon as it sees that whom it waits for is stopped, which may be after this signal.
            self.boxes.agents[instance].send_signal(signal.SIGCONT)
            time.sleep(0.02)

    def do_agent_restarts(self, instance: str) -> None:
        """the agent's processes are killed and started again; scripts run on"""
        self.do_agent_dies(instance)
        self.boxes.start_agent(instance)

    def do_agent_hangs(self, instance: str) -> None:
        """the agent's processes are held: they neither fetch nor answer"""
        processes.send(self.boxes.agent_processes(instance), signal.SIGSTOP)

    def do_agent_never_registers(self, count: int = 1) -> None:
        """the next boxes that start have no agent"""
        self.boxes.without_agent += int(count)

    def do_agent_refused(self, count: int = 1) -> None:
        """the agents of the next boxes are refused at first, as while a role is new, and ask again after 26 minutes or a boot"""
        self.boxes.refused += int(count)

    # The box

    def do_box_reboots(self, instance: str) -> None:
        """the box reboots"""
        self.ec2("RebootInstances", instance)

    def do_box_stopped(self, instance: str) -> None:
        """somebody stops the box"""
        self.ec2("StopInstances", instance)

    def do_box_terminated(self, instance: str) -> None:
        """somebody terminates the box"""
        self.ec2("TerminateInstances", instance)

    def do_box_dead(self, instance: str) -> None:
        """nothing runs on the box any more, and EC2 says that it runs"""
        processes.kill(self.boxes.root(instance))

    def do_spot_notice(self, instance: str, seconds: float = 120.0) -> None:
        """AWS will take a spot instance back in two minutes, and says so"""
        self.spot.interrupt(instance, float(seconds))

    def do_spot_back(self, instance: str) -> None:
        """AWS has capacity again, and starts what it had stopped"""
        self.spot.capacity_is_back(instance)

    def do_quota(self, code: str = "L-DB2E81BA", value: float = 0) -> None:
        """the account may run fewer vCPUs"""
        self.quotas.set(code, value)

    def do_unseen(self, count: int = 3) -> None:
        """the next new instances, volumes and snapshots are denied to more of the first requests that name them"""
        self.consistency.misses = int(count)

    def do_pending(self, seconds: float = 5.0) -> None:
        """boxes that start are shown as pending for some seconds"""
        self.boxes.pending = float(seconds)

    def do_free_plan(self, kind: str = "FREE") -> None:
        """the account is on AWS's Free plan, which launches only what is free"""
        self.plan.kind = kind

    def do_role_late(self, seconds: float = 5.0) -> None:
        """AWS does not see a new role or instance profile for some seconds"""
        self.propagation.unseen = float(seconds)

    def do_clock_wrong(self, instance: str, seconds: float = 3600) -> None:
        """the box's clock goes wrong, and AWS refuses what its scripts sign"""
        self.boxes.skews[instance] = float(seconds)
        self.boxes.set_clock(self.boxes.root(instance))

    # The way in by SSH

    def do_console_late(self, seconds: float = 5.0) -> None:
        """consoles show nothing for some seconds"""
        self.boxes.console_from = self.clock.now() + float(seconds)

    def do_host_key_changed(self, instance: str) -> None:
        """another host key than the box's own answers at its port 22"""
        for path in (self.boxes.root(instance) / "etc/ssh").glob("ssh_host_ed25519_key*"):
            path.unlink()
        instance_connect.host_key(self.boxes.root(instance))

    def do_ssh_cut(self, instance: str) -> None:
        """every connection to the box's port 22 is gone"""
        self.boxes.ssh_server.cut(instance)

    # Docker and the GPU

    def do_docker_dead(self, instance: str) -> None:
        """the docker daemon does not answer"""
        self.mark(instance, "docker-dead")

    def do_docker_slow(self, instance: str, seconds: float = 2.0) -> None:
        """each docker command takes some seconds longer"""
        self.mark(instance, "docker-slow", str(seconds))

    def do_gpu_missing(self, instance: str) -> None:
        """the driver finds no GPU"""
        self.mark(instance, "gpu-missing")

    def do_gpu_lost(self, instance: str) -> None:
        """every running container has lost the GPU, and the box itself has it"""
        for path in self.boxes.root(instance).glob("var/lib/docker/containers/*/state.json"):
            if json.loads(path.read_text(encoding="utf-8"))["Running"]:
                (path.parent / "gpu-lost").touch()

    def do_disk_cold(self, seconds: float = 60.0, count: int = 1) -> None:
        """docker and nvidia-smi take some seconds to come up on the next new boxes: their disks are read from a snapshot"""
        self.boxes.cold.extend([float(seconds)] * int(count))

    def do_systemd(self, on: bool = True) -> None:
        """boxes that start have systemd from now on"""
        self.boxes.systemd = bool(on)

    def do_container_killed(self, instance: str) -> None:
        """every running container's main process gets SIGKILL"""
        for path in self.boxes.root(instance).glob("var/lib/docker/containers/*/state.json"):
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["Running"]:
                with suppress(ProcessLookupError):
                    os.kill(state["Pid"], signal.SIGKILL)

    def do_container_oom(self, instance: str) -> None:
        """the memory of every running container is full: the kernel ends its main process, and docker says why"""
        for path in self.boxes.root(instance).glob("var/lib/docker/containers/*/state.json"):
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["Running"]:
                part = path.with_suffix(".oom")
                part.write_text(json.dumps(state | {"OOMKilled": True}), encoding="utf-8")
                part.rename(path)
                with suppress(ProcessLookupError):
                    os.kill(state["Pid"], signal.SIGKILL)

    def mark(self, instance: str, name: str, text: str = "") -> None:
        """A file that the box's stand-ins look for."""
        folder = self.boxes.root(instance).parent / "faults"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

    # Disks

    def do_root_full(self, instance: str) -> None:
        """no byte is free on the box's own disk: docker can build nothing"""
        self.mark(instance, "root-full")

    def do_disk_full(self, instance: str) -> None:
        """no byte is free on the box's volumes"""
        for volume in self.volumes(instance):
            (volume / "full").touch()

    def do_device_late(self, seconds: float = 5.0, count: int = 1) -> None:
        """the next attached disks show in the box after some seconds"""
        self.boxes.disks.late.extend([float(seconds)] * int(count))

    def do_foreign_filesystem(self, kind: str = "xfs", count: int = 1) -> None:
        """the next new volumes are not blank: xfs, ntfs, LVM2_member, or a partition table (dos, gpt)"""
        self.boxes.disks.foreign.extend([kind] * int(count))

    def do_disk_unreadable(self, instance: str) -> None:
        """reading the box's volumes fails; blkid takes that for blank"""
        for volume in self.volumes(instance):
            (volume / "unreadable").touch()

    def do_devices_swapped(self, instance: str) -> None:
        """from its next start the box finds its disks in the other order"""
        self.boxes.disks.swapped ^= {instance}

    def do_mount_lost(self, instance: str) -> None:
        """the volume is unmounted while it is in use"""
        self.boxes.disks.unmount_all(instance)
        (self.boxes.root(instance) / "etc/mtab").unlink(missing_ok=True)

    def volumes(self, instance: str) -> list[Path]:
        attached = [one.id for one in instances.backend(self.region).volumes.values() if one.attachment]
        mine = [one for one in attached if instances.volume(self.region, one).attachment.instance.id == instance]
        return [self.boxes.disks.volume(one) for one in mine if self.boxes.disks.volume(one).is_dir()]

    # S3 and the registry

    def do_manifest_missing(self) -> None:
        """every manifest.json is deleted from S3"""
        from moto.s3.models import s3_backends

        for bucket in s3_backends[wire.ACCOUNT]["aws"].buckets.values():
            for key in [key for key in bucket.keys if key.endswith("/manifest.json")]:
                bucket.keys.pop(key)

    def do_registry_token_expired(self) -> None:
        """docker must log in to the registry again"""
        self.registry.renew()

    def do_scan_finds(self, severity: str = "CRITICAL", count: int = 1, status: str = "COMPLETE") -> None:
        """ECR's scan has found known holes in every image, or has come to another end"""
        named = [("package_name", "openssl"), ("package_version", "3.0.11-1")]
        attributes = [{"key": key, "value": value} for key, value in named]
        hole = {"description": "made up", "severity": severity, "attributes": attributes}
        names = [f"CVE-2026-{number:05d}" for number in range(1, int(count) + 1)]
        self.registry.holes = [{"name": one, "uri": f"https://security-tracker.debian.org/tracker/{one}", **hole} for one in names]
        self.registry.scan_status = status

    def do_image_gone(self) -> None:
        """no image is left in ECR"""
        from moto.ecr.models import ecr_backends

        for repository in ecr_backends[wire.ACCOUNT][self.region].repositories.values():
            repository.images.clear()
