"""What a person sees of the Hub in a browser: the list of repositories, and one page for each."""

from collections.abc import Iterable

from jinja2 import DictLoader, Environment

from twin.hub.store import Commit, Repository

LAYOUT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1d2733; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem } .note { color: #5b6775 } a { color: #0b57d0 }
table { border-collapse: collapse; width: 100% } td { padding: .3rem .8rem .3rem 0; border-top: 1px solid #e3e8ee; vertical-align: top }
td.number { text-align: right; white-space: nowrap } code { font-size: .85em; word-break: break-all }
pre { white-space: pre-wrap; background: #f5f7fa; padding: 1rem; border-radius: 6px }
</style></head><body>
<p class="note">An emulated Hugging Face Hub on this machine. <a href="/">All repositories</a></p>
<h1>{{ title }}</h1>
{% block content %}{% endblock %}
</body></html>"""

REPOSITORY = """{% extends "layout" %}{% block content %}
<p class="note">{{ repository.kind[:-1] }}, {{ "private" if repository.private else "public" }}
{%- if repository.gated %}, gated{% endif %}{% if repository.served %}, read-only{% endif %}; commit <code>{{ commit.id }}</code></p>
<h2>Files</h2><table>
{% for path, file in commit.files.items() %}<tr>
<td><a href="/{{ repository.page }}/blob/{{ commit.id }}/{{ path | urlencode }}">{{ path }}</a></td>
<td class="number">{{ "{:,}".format(file.size) }} bytes</td><td><code>sha256 {{ file.sha256 }}</code></td></tr>
{% endfor %}</table>
<h2>Tags</h2><table>
{% for name, id in repository.tags.items() %}<tr>
<td><a href="/{{ repository.page }}/tree/{{ name | urlencode }}">{{ name }}</a></td><td><code>{{ id }}</code></td></tr>
{% else %}<tr><td class="note">none</td></tr>
{% endfor %}</table>
<h2>Commits</h2><table>
{% for one in history %}<tr><td><a href="/{{ repository.page }}/commit/{{ one.id }}"><code>{{ one.id[:10] }}</code></a></td>
<td>{{ one.title }}</td><td class="note">{{ one.date[:19] | replace("T", " ") }} UTC</td></tr>
{% endfor %}</table>
{% if readme %}<h2>README.md</h2><pre>{{ readme }}</pre>{% endif %}
{% endblock %}"""

INDEX = """{% extends "layout" %}{% block content %}<table>
{% for one in repositories %}<tr><td><a href="/{{ one.page }}">{{ one.page }}</a></td>
<td class="note">{{ "private" if one.private else "public" }}{% if one.served %}, read-only{% endif %}</td></tr>
{% else %}<tr><td class="note">none yet</td></tr>
{% endfor %}</table>{% endblock %}"""

TEMPLATES = Environment(loader=DictLoader({"layout": LAYOUT, "repository": REPOSITORY, "index": INDEX}), autoescape=True)


def index(repositories: list[Repository]) -> str:
    return TEMPLATES.get_template("index").render(title="Repositories", repositories=repositories)


def repository(shown: Repository, commit: Commit, history: Iterable[Commit], readme: str) -> str:
    page = TEMPLATES.get_template("repository")
    return page.render(title=shown.page, repository=shown, commit=commit, history=history, readme=readme)
