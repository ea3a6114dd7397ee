"""`inv plan`: what the chain would do and what training needs, with nothing started; or why it cannot be, in one sentence."""

import pytest

pytestmark = pytest.mark.slow  # each plan is a whole command on an account


def asked_to_change(laptop, since: int) -> list[str]:
    """What was called that changes an account. Addresses of the Hub that only look are left out."""
    looks = ("Get", "Describe", "List", "Head", "BatchGet", "Lookup")
    calls = [entry for entry in laptop.journal()[since:] if entry["service"] in ("ec2", "s3", "ssm", "ecr", "scheduler", "sts", "iam")]
    return [f"{entry['service']}.{entry['operation']}" for entry in calls if not entry["operation"].startswith(looks)]


def test_the_plan_names_each_part_the_memory_the_time_and_the_price_and_starts_nothing(laptop):
    before = len(laptop.journal())
    out = laptop.inv("plan", overrides=("train.steps=3",)).stdout
    for verb in ("up", "deploy", "train", "publish", "down"):
        assert f"\n{verb}\n  " in f"\n{out}"
    facts = [out.index(words) for words in ("steps    3 steps x 8 rows", "time     here, on this machine's CPU: about ", "\nup\n  ")]
    assert facts == sorted(facts), "what is to be known comes before the list of steps"
    assert "  train.sh on the box" in out and "  Let AWS itself stop the box" in out
    assert "the loss is on what stands between [[ and ]]" in out and "--- 32 rows, " in out
    assert "steps    3 steps x 8 rows = 24 of 32 rows (0.8 epochs)" in out and "usable on NVIDIA L4 in the fullest step" in out
    assert "time     about " in out and " for this run: " in out and " of g6.2xlarge at $0.9776 an hour (" in out
    assert out.splitlines()[-1].startswith("price    about $")
    assert asked_to_change(laptop, before) == []
    assert laptop.client("ec2").describe_instances()["Reservations"] == []


def test_rows_that_are_left_out_are_told_once(laptop):
    done = laptop.inv("plan", overrides=("data.max_length=500", "data.too_long=drop"))
    notices = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("left out: ")]
    assert notices and len(notices) == len(set(notices))


@pytest.mark.parametrize(
    ("overrides", "what", "hint"),
    [
        (("lora.r=8,16",), "lora.r", " lora.r=8,16`"),
        (("train.stepz=3",), "there is no setting `train.stepz`", "`train.steps`"),
        (("data.max_length=50",), "more than data.max_length=50", "`data.too_long=drop`"),
        (("data.validation=nowhere.jsonl",), "nowhere.jsonl", "data.validation="),
        (("model.id=nobody/nothing",), "nobody/nothing", "check the name"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence_and_a_hint(laptop, overrides, what, hint):
    done = laptop.inv("plan", overrides=overrides, ok=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    error, _, rest = done.stderr[done.stderr.index("error: ") :].partition("\n\nhint: ")
    assert what in error and hint in rest
