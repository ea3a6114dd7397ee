"""The commands work wherever the tree lies, whoever runs them, and whatever the shell's environment says."""

import ast
import errno
import getpass
import os
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from conftest import ODD
from invoke import Context, Exit

import tasks
from conf import cli, load
from conf.problem import Problem
from conf.process import argv, caller, proxy
from conf.text import quoting
from remote.runs import download
from remote.view import status_cache
from trainer.rows import token_lengths
from twin import world

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    ROOT / "tasks.py",
    *sorted(path for room in ("conf", "data", "remote", "trainer", "twin") for path in (ROOT / room).rglob("*.py")),
]
BINARY = set("rwabx+")
UNUSABLE = ["socks5://127.0.0.1:9", "SOCKS5H://127.0.0.1:9", "socks4://x", "ftp://x", "http://[::1", "http://x:port", " http://x"]


def without_encoding(source: str) -> list[int]:
    """The lines of all calls that read or write text in whatever encoding the locale names."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if is_text(call) and "encoding" not in {keyword.arg for keyword in call.keywords}]


def is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in ("read_text", "write_text"):
        return True
    if name in ("run", "Popen", "check_output"):
        return "text" in keywords or "universal_newlines" in keywords
    owner = getattr(getattr(call.func, "value", None), "id", "")
    if name not in ("open", "fdopen", "NamedTemporaryFile", "TextIOWrapper") or owner in ("tarfile", "webbrowser"):
        return False
    modes = [one.value for one in [*call.args, keywords.get("mode")] if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    modes = [mode for mode in modes if set(mode) <= BINARY]
    plain = name in ("fdopen", "TextIOWrapper") or isinstance(call.func, ast.Name)  # text where no mode is named
    return any("b" not in mode for mode in modes) or (plain and not modes)


def test_text_is_utf_8_whatever_the_locale_says():
    found = [f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in without_encoding(path.read_text(encoding="utf-8"))]
    assert not found, "these files and pipes are in the locale's own encoding: name one"


@pytest.mark.parametrize(
    "source", ["path.read_text()", "open('a')", "open('a', 'w')", "path.open(mode='a')", "subprocess.run(words, text=True)"]
)
def test_text_in_the_encoding_of_the_locale_is_noticed(source):
    assert without_encoding(source) == [1]


@pytest.mark.parametrize("error", [KeyError("uid not found: 12345"), OSError("No username set in the environment")])
def test_a_user_id_without_a_login_name_goes_by_its_number(monkeypatch, error):
    def nobody():
        raise error

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert load.load(["cloud=twin"]).box.name == f"uid-{os.getuid()}" == caller.name()


@pytest.mark.parametrize(("login", "box"), [("Jo.Doe", "jo-doe"), ("Jörg", "j-rg"), ("Юрий", f"uid-{os.getuid()}")])
def test_a_box_is_named_after_the_login_name_in_letters_that_a_name_may_have(monkeypatch, login, box):
    monkeypatch.setattr(getpass, "getuser", lambda: login)
    assert caller.box_name() == box


@pytest.mark.parametrize("source", [f"/{ODD}/rows.jsonl", "data/rows.jsonl", "hub:me/notes:train", "/a b\\", "=,{[x]}"])
def test_a_setting_in_a_hint_arrives_as_it_was_meant_when_it_is_pasted(source):
    words = shlex.split(f"inv data.check -- {quoting.setting('data.train', source)}")
    assert load.load(["cloud=twin", *argv.overrides(words)]).data.train == source


@pytest.fixture
def no_proxies(monkeypatch):
    for name in proxy.proxy_variables():
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("value", [*UNUSABLE, "http://x:3128", "127.0.0.1:3128", "http://me:p@ss@x:1", "HTTPS://x"])
def test_a_proxy_is_refused_by_its_variable_exactly_where_the_hubs_own_client_cannot_use_it(no_proxies, name, value):
    no_proxies.setenv(name, value)
    try:
        httpx2.Client().close()
    except (ImportError, ValueError, httpx2.InvalidURL):
        with pytest.raises(Problem, match=f"{name} names .*\n\nhint: `env -u {name} inv"):
            proxy.check_proxies()
    else:
        proxy.check_proxies()


def test_what_is_said_of_a_proxy_holds_no_password(no_proxies):
    no_proxies.setenv("HTTPS_PROXY", "socks5://me:secret@proxy:1080")
    with pytest.raises(Problem) as refusal:
        proxy.check_proxies()
    assert "secret" not in str(refusal.value)


def test_rows_are_counted_in_words_where_a_proxy_is_in_the_way_of_the_tokenizer(no_proxies):
    no_proxies.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    model = load.load(["cloud=aws", "model=llama32_1b"], local=Path("none")).model
    assert "SOCKS proxy" in token_lengths.length_counter(model, model.id, offline=False).note


HOMELESS = """
import os, pwd
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
if os.environ.pop("TAKEN", ""): os.getuid = lambda: 4711
from conf.process import home
from pathlib import Path
place = Path.home()
print(place, oct(place.stat().st_mode & 0o777), os.environ["HOME"] == str(place))
"""


@pytest.mark.parametrize("taken", ["", "yes"])
def test_who_has_no_home_gets_one_of_his_own(tmp_path, taken):
    if taken:
        (tmp_path / "home-4711").symlink_to(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"TMPDIR": str(tmp_path), "TAKEN": taken}
    output = subprocess.run([sys.executable, "-c", HOMELESS], env=environment, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    place, mode, in_environment = output.rsplit(maxsplit=2)
    assert Path(place).parent == tmp_path and not Path(place).is_symlink() and (mode, in_environment) == ("0o700", "True")
    assert place.endswith(f"home-{os.getuid()}") or taken


def test_who_can_have_no_home_can_still_use_what_needs_none(tmp_path):
    (tmp_path / f"home-{os.getuid()}").write_text("a file")
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"TMPDIR": str(tmp_path)}
    program = HOMELESS.replace("print(place", "print(place) #")
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout == "/nonexistent\n"


def test_on_aws_a_socks_proxy_is_a_sentence_before_anything_is_asked(no_proxies, capsys):
    no_proxies.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    no_proxies.setattr(sys, "argv", ["inv", "plan", "--", "cloud=aws", "experiment=smoke"])
    with pytest.raises(Exit, match="error: ALL_PROXY names a proxy of the kind 'socks5'"):
        tasks.namespace["plan"](Context())


@pytest.mark.parametrize("mark", [":", "[", "\n", "\t", "\udcff"])
def test_a_path_that_no_box_can_have_is_told_by_its_mark(tmp_path, mark):
    with pytest.raises(world.WorldError, match="the path holds"):
        world.start(tmp_path / f"a{mark}b", {}, {})
    assert not list(tmp_path.iterdir())


def test_any_other_path_can_be_had():
    world.check_place(Path(f"/{ODD}/\\ %s {{x}} ~#?`"))


def test_what_is_remembered_for_next_time_is_left_out_where_nothing_can_be_written(tmp_path):
    (tmp_path / ".cache").write_text("no folder", encoding="utf-8")
    status_cache.write(tmp_path, "the box is off", {})
    assert status_cache.subjects(tmp_path) == {}


def test_files_of_a_run_come_into_a_temporary_folder_where_nothing_can_be_written(tmp_path, capsys):
    assert download.writable(tmp_path / "runs") == tmp_path / "runs"
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    instead = download.writable(tmp_path / "file/runs")
    assert instead.is_dir() and tmp_path not in instead.parents and str(instead) in capsys.readouterr().err
    instead.rmdir()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_cannot_be_written_is_a_sentence_with_its_place(number):
    def write():
        raise OSError(number, os.strerror(number), "/read-only/runs")

    with pytest.raises(Exit, match="error: /read-only/runs: ") as refusal:
        cli.in_sentences(write, tasks.explain)()
    assert f"{os.strerror(number)}\n\nhint: " in refusal.value.message and refusal.value.code == 1


def test_a_file_that_a_full_disk_does_not_take_is_a_sentence():
    """A file that is open already: the error has no name of it."""
    with pytest.raises(Exit) as refusal:
        cli.in_sentences(lambda: Path("/dev/full").write_bytes(b"a run's file"), tasks.explain)()
    assert refusal.value.message.startswith("error: a disk of this machine is full: No space left on device\n\nhint: make room there")


def test_a_mistake_of_ours_is_no_sentence_about_a_place():
    def read():
        raise FileNotFoundError(errno.ENOENT, "No such file", "/lost")

    with pytest.raises(FileNotFoundError):
        cli.in_sentences(read, tasks.explain)()


def test_nothing_is_written_into_a_file_for_want_of_a_standard_stream(tmp_path):
    program = """if True:
        import sys
        from conf.process import streams
        streams.make_safe()
        with open(sys.argv[1], "w") as file:
            print("for people", flush=True)
            print("for people", file=sys.stderr, flush=True)
            file.write(str(file.fileno() > 2) + sys.stdin.read())
        """
    command = 'exec "$0" -c "$1" "$2" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", command, sys.executable, program, tmp_path / "file"], cwd=ROOT, check=True)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "True"


def test_letters_that_the_locale_lacks_end_no_command(tmp_path):
    rows = tmp_path / "zeilen ü.jsonl"
    rows.write_text((ROOT / "data/smoke_validation.jsonl").read_text(encoding="utf-8").replace("the", "ü—→", 50), encoding="utf-8")
    ascii_only = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "invoke", "data.show", "--rows", "99", "--split", rows, "--", "cloud=twin", "experiment=smoke"]
    done = subprocess.run(words, cwd=ROOT, env=ascii_only, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode()


def make(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *words], cwd=folder, env=os.environ | environment, capture_output=True, encoding="utf-8")


def test_what_a_shell_says_to_other_python_programs_is_not_said_to_make(tmp_path):
    noise = dict.fromkeys(("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PIP_TARGET"), "/nowhere")
    said = make(ROOT, "--eval", "show: ; @env", "show", **noise).stdout
    assert "/nowhere" not in said and "PYTHONUTF8=1" in said.splitlines()


@pytest.mark.parametrize(("folder", "sign"), [("a:b", "a colon"), ("a $H", "a dollar sign")])
def test_a_clone_whose_path_cannot_be_had_is_told_so_before_anything_is_installed(folder, sign, tmp_path):
    clone = tmp_path / folder
    (clone / "twin").mkdir(parents=True)
    for name in ("Makefile", *(f"{room}requirements.txt" for room in ("", "trainer/", "twin/", "tests/"))):
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    done = make(clone, "setup")
    assert done.returncode and f"error: the path {clone} holds {sign}" in done.stdout and not (clone / ".venv").exists()
