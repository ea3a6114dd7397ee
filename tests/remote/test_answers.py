"""Texts for the box, by way of S3."""

from remote import answers


def test_answers_are_taken_out_of_s3_with_what_a_killed_command_has_left(aws, store, capsys):
    answers.ask(aws, "me", ['{"input": "left"}'])
    theirs = answers.ask(aws, "mine", ['{"input": "a"}'])["asked"]
    mine = answers.ask(aws, "me", ['{"input": "a"}'])["asked"]
    store.put(f"{mine}.answers", b'{"output": "b"}\n')
    answers.collect(aws, mine)
    assert capsys.readouterr().out == "b\n"
    assert list(store.names("questions/")) == [theirs]
