"""Configuration: Hydra groups in YAML, their types and rules in `schema`, the one user-facing error in `problem`."""
