"""The whole way on a real account: made ready, a small model trained and published, and all of it removed again.

    python tests/aws/whole_way.py --limit 5 --token ~/.hub-token -- box.instance_type=g4dn.xlarge cloud.region=us-east-1

What AWS answers is written down without whose it is (record.py), in twin/aws/documented/recorded, where the
twin's answers are held to it from then on.
It costs at most `--limit` dollars of a box: the box stops itself when they are spent, and AWS stops it ten minutes later. It refuses an
account that has anything of ours, because at its end it removes the stack with all data. docs/AWS.md says more.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
LOCAL = ROOT / "conf/local.yaml"
WAY = [["up"], ["deploy"], ["train"], ["publish"], ["status"], ["costs"], ["report"], ["down"]]
LEAVE = [["down", "--force", "--purge", "--yes"], ["destroy", "--data", "--yes"]]  # the first has nothing to do where no box was made


class Refused(Exception):
    """Why the way is not gone; nothing was made."""


def main(words: list[str]) -> int:
    own, overrides = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(prog="whole_way.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, required=True, help="dollars that the box may cost")
    parser.add_argument("--token", type=Path, required=True, help="file with a Hub token that may write")
    parser.add_argument("--into", type=Path, default=ROOT / "twin/aws/documented/recorded", help="folder for what AWS answers")
    asked = parser.parse_args(own)
    words = ["cloud=aws", "experiment=smoke", f"cost.limit={asked.limit:g}", *overrides]
    try:
        words += [f"box.max_hours={hours(words, asked.limit):g}"]
        account_is_empty(words)
    except Refused as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return go(asked, words)


def go(asked: argparse.Namespace, words: list[str]) -> int:
    """Verb by verb until one fails; what was made is removed, whatever came of it."""
    failed = 0
    try:
        for verb in [["init", "--yes", "--token", str(asked.token)], ["doctor"], *WAY]:
            if failed := failed or run(verb, words, asked.into):
                break
    finally:
        left = [run(verb, words, asked.into) for verb in LEAVE][-1]
        if left:
            again = " && ".join(f"inv {' '.join(verb)} -- {' '.join(words)}" for verb in LEAVE)
            print(f"error: something is left in the account; look, and try again: {again}", file=sys.stderr)
    print(f"{len(list(asked.into.glob('*.json')))} operations are recorded in {asked.into}")
    return failed or left


def run(verb: list[str], words: list[str], into: Path) -> int:
    print(f"== inv {' '.join(verb)}", flush=True)
    begun = time.monotonic()
    command = [sys.executable, str(ROOT / "tests/aws/record.py"), *verb, "--", *words]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {"RECORD": str(into)}).returncode
    print(f"== {verb[0]}: {'well' if code == 0 else f'exit code {code}'} after {time.monotonic() - begun:.0f} s", flush=True)
    return code


def settings(words: list[str]):
    """As `inv init` would take them: no name of Parameter Store is there yet."""
    from conf import load
    from remote.account import stack

    return load.load(words, lambda names, cloud: stack.default_names(cloud), local=Path("none"))


def hours(words: list[str], limit: float) -> float:
    """How long the box may live for that much."""
    from remote.aws import pricing
    from remote.aws.session import Aws

    box = (run := settings(words)).box
    dollars, _ = pricing.per_hour(Aws(run.cloud), box.instance_type)
    if dollars is None:
        raise Refused(f"nobody says what an hour of {box.instance_type} costs in {run.cloud.region}, so no limit can be kept")
    if limit / dollars * 60 < box.idle_minutes:
        raise Refused(f"${limit:g} pays {limit / dollars * 60:.0f} minutes of {box.instance_type}; the way takes an hour")
    return round(min(limit / dollars, box.max_hours), 2)


def account_is_empty(words: list[str]) -> None:
    """Nothing of ours is there: at its end the way removes all of it."""
    from remote.account import stack
    from remote.aws.session import Aws

    aws = Aws(settings(words).cloud)
    if stack.find(aws).status:
        raise Refused(f"{aws.cloud.region} has a stack `{aws.cloud.own}`; take a region or an account without one: `cloud.region=...`")
    if names := aws.client("ssm").get_parameters_by_path(Path=stack.ROOT.rstrip("/"), Recursive=True)["Parameters"]:
        raise Refused(f"Parameter Store has {names[0]['Name']}; take a region or an account without: `cloud.region=...`")
    if not aws.cloud.loopback and LOCAL.exists():
        raise Refused(f"{LOCAL.relative_to(ROOT)} holds settings of your own, and `inv init` writes it: move it away meanwhile")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
