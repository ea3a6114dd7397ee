"""What ECR's scan and other answers say is somebody else's text: it is shown, on a line of its own, and obeyed by nobody."""

import json
from datetime import UTC, datetime

import pytest

from conf import load
from conf.finding import BROKEN, NOTE, OK, UNKNOWN, Finding
from conf.process.screen import shown
from remote.aws import session
from remote.doctor import account, diagnose, login
from remote.doctor.check import Check, Context

TAG, HUGE = "0123456789abcdef", 10**400
FORGED = "CVE-1\nok       token         it may write to me/mine\n\x1b[2J\x1b]0;mine\x07\u202e[/x] [bold]`inv down --purge`\rBROKEN"
IMAGE = {"imageSizeInBytes": 10, "imagePushedAt": datetime(2026, 1, 1, tzinfo=UTC)}


class Ecr:
    """A registry that answers what it is given."""

    class exceptions:
        ScanNotFoundException = RepositoryNotFoundException = ImageNotFoundException = type("NotFound", (Exception,), {})

    def __init__(self, scan: object, image: object = IMAGE):
        self.scan, self.image = scan, image

    def describe_repositories(self, **_):
        return {"repositories": [{}]}

    def describe_images(self, **_):
        return {"imageDetails": [self.image]}

    def describe_image_scan_findings(self, **_):
        return self.scan


@pytest.fixture
def examined(monkeypatch):
    """What `inv doctor` shows of an image of which ECR says this, as a text and as JSON."""

    def examine(scan, image=IMAGE):
        aws = session.Aws(load.load(["cloud=twin"]).cloud)
        monkeypatch.setattr(aws, "client", lambda service: Ecr(scan, image))
        monkeypatch.setattr(login, "check_login", lambda region, client: [])
        monkeypatch.setattr(diagnose, "CHECKS", [Check("image", "the box runs it", account.repository)])
        findings = diagnose.run_checks(Context(aws, load.load(["cloud=twin"]), TAG, "", 0), [])
        return findings, shown(diagnose.as_text(findings)), json.loads(diagnose.as_json(findings))

    return examine


def of_scan(name=FORGED, severity="CRITICAL", count=1, status="COMPLETE", description="", uri="https://x", **more):
    found = {"name": name, "severity": severity, "description": description, "uri": uri}
    scan = {"findingSeverityCounts": {severity: count}, "findings": [found] * min(count, 3)}
    return {"imageScanStatus": {"status": status, "description": description}, "imageScanFindings": scan} | more


@pytest.mark.parametrize(
    "scan", [of_scan(), of_scan(count=900), of_scan(status=FORGED, description=FORGED), of_scan(description=FORGED, uri=FORGED)]
)
def test_a_name_in_a_scan_begins_no_line_and_moves_no_cursor(examined, scan):
    findings, text, _ = examined(scan)
    assert [one.verdict for one in findings] == [OK, NOTE]
    lines = text.splitlines()
    assert not any(control in text for control in ("\x1b", "\x07", "\r", "\u202e"))
    assert [line[:7].strip() for line in lines if line[:1].strip()] == ["ok", "note", "2 check"], "a line of its own was forged"


def test_a_name_of_ten_million_letters_is_cut(examined):
    findings, text, document = examined(of_scan(name="A" * 10_000_000, count=3))
    assert findings[1].verdict == NOTE and len(text) < 5000 and len(json.dumps(document)) < 5000


@pytest.mark.parametrize(
    "scan",
    [
        None,
        [],
        "text",
        {},
        {"imageScanStatus": None},
        {"imageScanStatus": []},
        of_scan(imageScanFindings=7),
        of_scan(imageScanFindings={"findingSeverityCounts": {"CRITICAL": "many"}}),
        of_scan(imageScanFindings={"findingSeverityCounts": ["CRITICAL"]}),
        of_scan(imageScanFindings={"findingSeverityCounts": {"CRITICAL": 1}, "findings": [None, 7, {}]}),
        of_scan(name=None),
        of_scan(name={"a": 1}),
        of_scan(imageScanFindings={"findingSeverityCounts": {"CRITICAL": 1}, "findings": {"name": 1}}),
    ],
)
def test_an_answer_of_another_shape_is_not_known_and_ends_nothing(examined, scan):
    findings, _, document = examined(scan)
    assert [one.verdict for one in findings] == [UNKNOWN] and not document["ok"]
    assert "is not as its service documents it" in findings[0].what


@pytest.mark.parametrize("image", [{}, {"imageSizeInBytes": "7"}, IMAGE | {"imageSizeInBytes": HUGE}, IMAGE | {"imagePushedAt": "soon"}, 7])
def test_an_image_that_is_none_is_not_known_either(examined, image):
    findings, _, _ = examined(of_scan(), image)
    assert findings[0].verdict in (UNKNOWN, BROKEN)


def test_a_count_that_is_no_number_of_this_machine_is_shown(examined):
    findings, _, _ = examined(of_scan(count=HUGE))
    assert findings[1].verdict == NOTE and len(findings[1].what) <= diagnose.LONGEST + 4


def test_no_finding_of_any_check_begins_another_line():
    text = diagnose.as_text(diagnose.on_one_line([Finding("ami", OK, FORGED), Finding("plan", NOTE, "x", FORGED, "`inv up`")]))
    assert [line[:7].strip() for line in text.splitlines() if line[:1].strip()] == ["ok", "note", "2 check"]
