"""Texts for the box, by way of S3."""

from remote.runs import predictions


def test_answers_are_taken_out_of_s3_with_what_a_killed_command_has_left(aws, store, capsys):
    predictions.upload_questions(aws, "me", ['{"input": "left"}'])
    theirs = predictions.upload_questions(aws, "mine", ['{"input": "a"}']).name
    mine = predictions.upload_questions(aws, "me", ['{"input": "a"}']).name
    store.put(f"{mine}.answers", b'{"output": "b"}\n')
    predictions.collect(aws, mine)
    assert capsys.readouterr().out == "b\n"
    assert list(store.names("questions/")) == [theirs]
