"""Configuration: Hydra groups in YAML, their types and rules in `schema`, the one user-facing error in `problem`."""

from conf.process import home

home.ensure()  # before anything is imported that finds out its cache's place
