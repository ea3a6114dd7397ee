"""The tags by which a box and its volume are found, and those by which AWS's bill tells whose and what a cost is."""

BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"
HOST_KEY = "fine-tune-slm:host-key"  # what the box proves itself by to who comes in by SSH, as its console showed it first
FLEET = "fine-tune-slm:fleet"  # the stack whose fleet an instance, its disk or a job is of
STOPPED = "fine-tune-slm:stopped"  # when and why the box stopped itself: its supervisor writes it
STACK = "fine-tune-slm:stack"  # of all that costs: the stack's name
RUN = "fine-tune-slm:run"  # of what costs, where it is known: the run that it was last for
# What a bill can be divided by, once they are activated: AWS Billing, User Guide, "Using user-defined cost allocation tags".
COST = (STACK, OWNER, RUN)


def listed(tags: dict[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tags_of(resource: dict) -> dict[str, str]:
    """The tags of what EC2 describes."""
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}
