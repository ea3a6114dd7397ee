"""Where a webhook is posted to, and what is posted: Slack's body, ntfy's, or our own. remote/scripts/notify.sh does the same on the box.

https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks, https://docs.ntfy.sh/publish/#publish-as-json
"""

import re
from html import escape

SLACK = ("hooks.slack.com", "hooks.slack-gov.com")


def parse(text: str) -> tuple[str, str, str]:
    """How a body must be, where it is posted to, and ntfy's topic; a ValueError, which does not repeat the address, for what is none."""
    form, plus, rest = text.partition("+")
    form, url = (form, rest) if plus and form in ("slack", "ntfy") else ("", text)
    match = re.fullmatch(r'https?://([^/"\\\s]+)(/[^"\\\s]*)?', url)
    if not match:
        raise ValueError("holds no http address")
    host = match[1].rpartition("@")[2]
    form = "slack" if host in SLACK else form or ("ntfy" if host == "ntfy.sh" or host.startswith("ntfy.") else "")
    if form != "ntfy":
        return form, url, ""
    ntfy = re.fullmatch(r"(https?://[^/]+/)([A-Za-z0-9_-]{1,64})(\?.*)?", url)
    if not ntfy:
        raise ValueError("names no topic of ntfy")
    return form, f"{ntfy[1]}{ntfy[3] or ''}", ntfy[2]


def body(form: str, ntfy_topic: str, notice: dict[str, str]) -> dict:
    """A notice has event, run, instance, time, cost, title, what and next."""
    text = f"{notice['what']}\nNext: {notice['next']}" + (f"\n{notice['cost']} so far." if notice["cost"] else "")
    if form == "slack":
        return {"text": escape(f"*{notice['title']}*\n{text}", quote=False)}
    if form == "ntfy":
        return {"topic": ntfy_topic, "title": notice["title"], "message": text, "tags": [notice["event"]]}
    return notice
