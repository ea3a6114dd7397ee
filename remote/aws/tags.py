"""The tags by which a box and its volume are found."""

BOX, OWNER = "fine-tune-slm:box", "fine-tune-slm:owner"
HOST_KEY = "fine-tune-slm:host-key"  # what the box proves itself by to who comes in by SSH, as its console showed it first
FLEET = "fine-tune-slm:fleet"  # the stack whose fleet an instance, its disk or a job is of
STOPPED = "fine-tune-slm:stopped"  # when and why the box stopped itself: its supervisor writes it


def tags_of(resource: dict) -> dict[str, str]:
    """The tags of what EC2 describes."""
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", [])}
