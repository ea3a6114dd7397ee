"""`docker build` of the stand-in docker: of a tarball on stdin, as far as that works without a file system of its own.

COPY and the settings of the last stage are followed: what the tarball lacks is not in the image. RUN is not, nor is any other image:
the programs of an image are those of this machine, and its `python` is the one that runs the emulation. The output says so.
"""

import io
import json
import os
import re
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from images import ROOT, read_tarball, save_image, sha256, store_blob
from words import Failure, now, parse

VALUES = "--file --tag --label --build-arg --network --progress --provenance --sbom"
SETTINGS = {"WORKDIR": "WorkingDir", "USER": "User"}
LISTS = {"ENTRYPOINT": "Entrypoint", "CMD": "Cmd"}


@dataclass
class Stage:
    files: dict[str, bytes] = field(default_factory=dict)  # by their path in the image, without its first slash
    settings: dict = field(default_factory=lambda: {"Env": [], "Cmd": [], "Entrypoint": [], "WorkingDir": "", "User": ""})
    history: list[str] = field(default_factory=list)


def build(arguments: list[str]) -> None:
    if arguments[-1:] != ["-"]:
        raise Failure("ERROR: this emulated docker builds a tarball that comes on stdin: docker build [OPTIONS] -")
    options, rest = parse(arguments[:-1], "--quiet", VALUES)
    if rest:
        raise Failure(f"ERROR: docker: 'docker build' requires 1 argument, not {rest[0]} and -")
    if (ROOT.parent / "faults/root-full").exists():
        raise Failure("ERROR: failed to solve: failed to copy files: write /var/lib/docker: no space left on device")
    context = read_tarball(sys.stdin.buffer.read())
    name = options.get("--file", ["Dockerfile"])[-1]
    if name not in context:
        raise Failure(f"ERROR: failed to solve: failed to read dockerfile: open {name}: no such file or directory")
    lines = instructions(context[name].decode())
    warn_of_unknown([pair.partition("=")[0] for pair in options.get("--build-arg", [])], lines)
    made = follow(lines, context)
    # Docker 29 keeps images as containerd does: what it builds carries its provenance, in a manifest of its own beside the image's.
    attested = "BUILDX_NO_DEFAULT_ATTESTATIONS" not in os.environ and options.get("--provenance", [""])[-1] != "false"
    made.settings["Labels"] = dict(pair.partition("=")[::2] for pair in options.get("--label", []))
    print(f"writing image {save(made, options['--tag'], attested)}", file=sys.stderr)


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction and what it says, lines that go on joined."""
    text_lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in re.sub(r"\\\n", " ", text_lines).splitlines())
    ]


def warn_of_unknown(arguments: list[str], lines: list[tuple[str, str]]) -> None:
    declared = {rest.partition("=")[0] for word, rest in lines if word == "ARG"}
    if unknown := sorted(set(arguments) - declared):
        print(f"[Warning] One or more build-args {unknown} were not consumed", file=sys.stderr)


def follow(lines: list[tuple[str, str]], context: dict[str, bytes]) -> Stage:
    """The last stage, after every instruction in its order."""
    stages: dict[str, Stage] = {}
    stage = Stage()
    for word, rest in lines:
        if word == "FROM":
            before, *named = rest.split()
            known = stages.get(before, Stage())
            stage = Stage(dict(known.files), json.loads(json.dumps(known.settings)), [])
            stages[named[1] if named else str(len(stages))] = stage
        elif word == "COPY":
            copy(stage, rest.split(), context)
        elif word == "ENV":
            stage.settings["Env"] += re.findall(r"\w+=\S+", rest)
        elif word in SETTINGS:
            stage.settings[SETTINGS[word]] = rest
        elif word in LISTS:
            stage.settings[LISTS[word]] = json.loads(rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]
        elif word == "RUN":
            print(f"not run here: {rest[:100]}", file=sys.stderr)
        elif word not in ("ARG", "LABEL"):
            raise Failure(f"ERROR: failed to solve: this emulated docker does not follow {word}")
        stage.history.append(f"{word} {rest}")
    return stage


def copy(stage: Stage, words: list[str], context: dict[str, bytes]) -> None:
    if words[0].startswith("--from="):
        print(f"not copied here: {' '.join(words)}", file=sys.stderr)
        return
    *sources, target = words
    for source in sources:
        below = {name: body for name, body in context.items() if name.startswith(f"{source.rstrip('/')}/")}
        if source not in context and not below:
            raise Failure(f'ERROR: failed to solve: failed to compute cache key: "/{source}": not found')
        if source in context:
            stage.files[(target + Path(source).name if target.endswith("/") else target).lstrip("/")] = context[source]
        for name, body in below.items():
            stage.files[f"{target.strip('/')}/{name.removeprefix(source.rstrip('/') + '/')}"] = body


def save(stage: Stage, tags: list[str], attested: bool) -> str:
    """The image is here under its tags; its id."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in sorted(stage.files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(body), 0o644
            tar.addfile(info, io.BytesIO(body))
    layer = packed.getvalue()
    config = {"architecture": "amd64", "os": "linux", "created": now(), "config": stage.settings}
    config["rootfs"] = {"type": "layers", "diff_ids": [sha256(layer)]}
    config["history"] = [{"created_by": line} for line in stage.history]
    body = json.dumps(config).encode()
    store_blob(layer)
    store_blob(body)
    for tag in tags:
        save_image(tag, body, [], attested)
    return sha256(body)
