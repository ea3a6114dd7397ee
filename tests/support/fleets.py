"""An account with a fleet, made as a user makes it."""

from pathlib import Path

from conftest import Laptop

from twin import world


def with_fleet(folder: Path, *settings: str, kind: type[Laptop] = Laptop) -> Laptop:
    """The laptop of a new account that has one; whoever asked for it stops its world."""
    made = kind(folder)
    made.folder.mkdir(parents=True, exist_ok=True)
    made.inv("twin.start", overrides=settings)
    token = made.folder / "token"
    token.write_text(world.environment(made.state)["HF_TOKEN"])
    made.inv("init", "--yes", "--token", str(token), overrides=("fleet=batch", *settings))
    return made
