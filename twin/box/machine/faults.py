"""The faults of a box, by real means: a daemon that is killed, a disk that is filled, a mount that is taken away."""

import shutil
import subprocess
from pathlib import Path

import psutil

from twin.box import faults
from twin.box.machine import disks, lifecycle, prerequisites

# Takes every free block of a file system, those kept for root too: as a promise, so that not a byte need be written.
FILL = """
size=$((1 << 36))
while [ "$size" -ge 4096 ]; do
  fallocate --length "$size" "$1/somebodys.file.$RANDOM$RANDOM" 2>/dev/null || size=$((size / 2))
done
sync -f "$1"
"""
# The service of the box that keeps docker running ends first, or the daemon would be back within a second.
STOP_DOCKER = "kill -KILL $(cat /run/docker-service.pid) && pkill -KILL -x dockerd; pkill -KILL -x containerd || true"
SLOW_DOCKER = "while pkill -STOP -x dockerd; do sleep $1; pkill -CONT -x dockerd; sleep 0.1; done"
PROCESS_GRADE_ONLY = "only boxes of the grade `process` can have that"  # docker, driver and systemd are stand-ins there
KILL_CONTAINERS = "docker ps --quiet | xargs -r docker inspect --format '{{.State.Pid}}' | xargs -r kill -KILL"


class MachineHostFaults(faults.HostFaults):
    """What a box of the other grade only shows, has really happened to this one."""

    def do_agent_hangs(self, instance: str) -> None:
        """the agent's processes are held: they neither fetch nor answer"""
        super().do_agent_hangs(instance)
        psutil.Process(self.boxes.agents[instance].pid).suspend()  # which waits outside for the agent inside

    def do_box_dead(self, instance: str) -> None:
        """nothing runs on the box any more, and EC2 says that it runs"""
        lifecycle.kill(self.box(instance))

    def do_gpu_lost(self, instance: str) -> None:
        """every running container has lost the GPU, and the box itself has it"""
        raise ValueError(PROCESS_GRADE_ONLY)

    def do_disk_cold(self, seconds: float = 60.0, count: int = 1) -> None:
        """docker and nvidia-smi take some seconds to come up on the next new boxes: their disks are read from a snapshot"""
        raise ValueError(PROCESS_GRADE_ONLY)

    def do_systemd(self, on: bool = True) -> None:
        """boxes that start have systemd from now on"""
        raise ValueError(PROCESS_GRADE_ONLY)

    def do_docker_dead(self, instance: str) -> None:
        """the docker daemon is killed, and nobody starts it before the next boot"""
        self.inside(instance, STOP_DOCKER)

    def do_docker_slow(self, instance: str, seconds: float = 2.0) -> None:
        """the docker daemon stands still for some seconds, again and again, until the next boot"""
        words = [*lifecycle.enter_command(self.box(instance)), "bash", "-c", SLOW_DOCKER, "slow", str(float(seconds))]
        subprocess.Popen(words, env={"PATH": prerequisites.SYSTEM_PATH}, stdin=subprocess.DEVNULL, start_new_session=True)

    def do_gpu_missing(self, instance: str) -> None:
        """the GPU's device is gone until the next boot"""
        self.inside(instance, "rm /dev/nvidia0")

    def do_container_killed(self, instance: str) -> None:
        """every running container's main process gets SIGKILL"""
        self.inside(instance, KILL_CONTAINERS)

    def do_container_oom(self, instance: str) -> None:
        """the memory of every running container is full: the kernel ends its main process, and docker says why"""
        raise ValueError(PROCESS_GRADE_ONLY)

    def do_disk_full(self, instance: str) -> None:
        """somebody's file takes every free block of the box's mounted volumes"""
        for place in self.mounts(instance):
            self.inside(instance, FILL, place)

    def do_foreign_filesystem(self, kind: str = "xfs", count: int = 1) -> None:
        """the next new volumes are not blank: xfs, ext4, LVM2_member, or a partition table (dos, gpt)"""
        if kind not in disks.FOREIGN:
            raise ValueError(f"a real disk can be made {', '.join(disks.FOREIGN)} here, not {kind}")
        command, package = disks.FOREIGN[kind]
        if not prerequisites.program(command[0]):
            raise ValueError(f"it needs Debian's {package}: apt-get install --no-install-recommends {package}")
        super().do_foreign_filesystem(kind, count)

    def do_disk_unreadable(self, instance: str) -> None:
        """every read of the box's volumes fails; blkid and wipefs take that for blank"""
        for volume in self.volumes(instance):
            self.boxes.disks.damage(volume)

    def do_mount_lost(self, instance: str) -> None:
        """the volume is unmounted while it is in use"""
        for place in self.mounts(instance):
            self.inside(instance, 'umount --lazy "$1"', place)

    def do_image_gone(self) -> None:
        """no image is left in ECR"""
        super().do_image_gone()
        for repository in (self.boxes.state / "registry/files").glob("docker/registry/v2/repositories/*"):
            shutil.rmtree(repository)

    def box(self, instance: str) -> Path:
        return self.boxes.root(instance).parent

    def mounts(self, instance: str) -> list[str]:
        """Where the box has mounted its volumes."""
        return self.inside(instance, "findmnt --noheadings --raw --output SOURCE,TARGET | sed -n 's/^.dev.nvme[^ ]* //p'").splitlines()

    def inside(self, instance: str, script: str, *words: str) -> str:
        command = [*lifecycle.enter_command(self.box(instance)), "bash", "-c", script, "fault", *words]
        done = subprocess.run(
            command, env={"PATH": prerequisites.SYSTEM_PATH, "HOME": "/root"}, encoding="utf-8", errors="replace", capture_output=True
        )
        if done.returncode:
            raise ValueError(f"it could not be done: {done.stderr.strip()[-500:]}")
        return done.stdout
