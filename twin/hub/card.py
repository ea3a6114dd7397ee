"""The YAML head of a README on the Hub: what it says about a repository, and what the Hub finds wrong with it."""

import re

import yaml

HEAD = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
LISTS_OF_WORDS = ("tags", "datasets", "metrics", "language", "base_model")  # each may also be one word


def metadata(readme: str) -> dict:
    """What the head says; empty when there is none or it cannot be read."""
    head = HEAD.match(readme)
    try:
        values = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def faults(readme: str) -> list[str]:
    """Why the Hub would refuse this README; one sentence each."""
    head = HEAD.match(readme)
    if head is None:
        return []
    try:
        values = yaml.safe_load(head[1]) or {}
    except yaml.YAMLError as error:
        return [f"the metadata is no YAML: {error}".replace("\n", " ")]
    if not isinstance(values, dict):
        return ["the metadata must be a mapping of names to values"]
    wrong = [f'"{name}" must be a word or a list of words' for name in LISTS_OF_WORDS if not _words(values.get(name, []))]
    wrong += [
        f'"{name}" must be a string' for name in ("license", "library_name", "pipeline_tag") if not isinstance(values.get(name, ""), str)
    ]
    return wrong + _model_index_faults(values.get("model-index", []))


def _words(value) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _model_index_faults(models) -> list[str]:
    """`model-index` holds the evaluation results: each needs a task, a dataset and metrics with type and value."""
    if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
        return ['"model-index" must be a list of mappings']
    wrong = [f'"model-index[{i}].name" is required' for i, model in enumerate(models) if not isinstance(model.get("name"), str)]
    for i, model in enumerate(models):
        for j, result in enumerate(model.get("results") or []):
            where = f"model-index[{i}].results[{j}]"
            wrong += _missing(f"{where}.task", result.get("task"), ["type"])
            wrong += _missing(f"{where}.dataset", result.get("dataset"), ["type", "name"])
            for k, metric in enumerate(result.get("metrics") or [None]):
                wrong += _missing(f"{where}.metrics[{k}]", metric, ["type", "value"])
    return wrong


def _missing(where: str, value, keys: list[str]) -> list[str]:
    if not isinstance(value, dict):
        return [f'"{where}" is required']
    return [f'"{where}.{key}" is required' for key in keys if key not in value]
