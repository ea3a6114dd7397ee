"""A run's figures are its own: time and price of `inv report` and `inv costs` come from its manifest, whatever was run since."""

import json

from conf import load
from remote.cost import ledger
from remote.runs import audit
from remote.view import show

MANIFEST = {
    "kind": "smoke",
    "files": {},
    "model": {"id": "somebody/a-model"},
    "data": {"train_rows": 8, "train_rows_seen": 8, "validation_rows": 4, "validation_rows_scored": 2},
    "seconds": {"load": 18.0, "train": 258.0, "evaluate": 126.0},
    "price": {"per_hour": 0.9776, "source": "AWS Price List", "seconds": 402.0, "total": 0.109, "attempts": 1},
    "provenance": {"instance_type": "g6.2xlarge"},
}
METRICS = {"task": "text", "rows": 1, "base": {}, "tuned": {}}


def seal(store, run_id, **price):
    manifest = MANIFEST | {"price": MANIFEST["price"] | price}
    store.put(f"runs/{run_id}/manifest.json", json.dumps(manifest).encode())
    store.put(f"runs/{run_id}/config.yaml", b"name: a\nkind: smoke\n")
    return manifest


def test_time_and_price_of_a_run_do_not_change_with_what_was_run_after_it(aws, store, settings, tmp_path, capsys):
    run = settings("experiment=smoke")
    seal(store, "20261129-000000-a-0001")

    def reported():
        show.report(aws, run, "20261129-000000-a-0001", tmp_path, lambda metrics: [], lambda folder, metrics: ["  advice"])
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("time", "price"))]

    folder = tmp_path / run.runs / "20261129-000000-a-0001"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    before = reported()
    assert before == [
        "time       402 s of work: load 18 s  train 258 s  evaluate 126 s",
        "price      $0.11 for this time on a real g6.2xlarge at $0.9776 an hour (AWS Price List)",
    ]
    for verb, seconds in (("up", 3), ("train", 2), ("down", 1)):  # attached again, and another run's verbs
        audit.write(store, verb, run.box.name, seconds, "ok")
    assert reported() == before


def test_an_interrupted_run_says_so_and_costs_what_all_its_attempts_took(store):
    manifest = seal(store, "one", seconds=1500.0, total=0.42, attempts=3)
    assert show._times(manifest) == [
        "time       1500 s of work: load 18 s  train 258 s  evaluate 126 s, in 3 attempts, with what an interrupted one had not kept",
        "price      $0.42 for this time on a real g6.2xlarge at $0.9776 an hour (AWS Price List)",
    ]
    table = ledger._runs(store)
    assert [list(column.cells) for column in table.columns] == [["one"], ["1500"], ["0.4200"]]


def test_an_unknown_price_is_called_that(store):
    assert show._times(seal(store, "one", total=None))[1] == "price      unknown: no price is known for g6.2xlarge"


def test_a_record_that_counts_neither_seen_nor_scored_rows_is_reported():
    early = MANIFEST | {"data": {"train_rows": 8, "validation_rows": 4}}
    words = "8 to train on, an unknown number seen; an unknown number of 4 held-out rows scored"
    assert show._model_and_rows(early) == ["model      somebody/a-model", f"rows       {words}"]


def test_the_next_command_has_the_words_that_the_run_was_made_with(aws, store, settings):
    """Those of the caller's own run: what another person's run was made with is no command to paste."""
    run = settings("experiment=smoke")
    run.provenance.typed = ["cloud=twin", "data.train='my rows.jsonl'", "data.fields=[city]"]

    def following(run_id, owner):
        run.run_id, run.provenance.owner = run_id, owner
        store.put(f"runs/{run_id}/config.yaml", load.dump(run).encode())
        return show._next(aws, store, run, run_id)

    chain = "inv up deploy train publish down -- cloud=aws"
    assert following("mine", aws.owner) == f"on AWS: `{chain} 'data.train='\"'\"'my rows.jsonl'\"'\"'' 'data.fields=[city]'`"
    assert "my rows" not in following("theirs", "arn:aws:iam::123456789012:user/eve")
    run.provenance.typed = []
    assert following("plain", aws.owner).startswith(f"on AWS: `{chain} experiment=medical_ie_8b`\n")
