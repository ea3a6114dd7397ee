"""Which request of the Hub's HTTP API takes which right and is answered by which method of `twin.hub.Hub`.

A revision is one path segment: clients quote a slash in it, and WSGI servers undo that, so names of branches and
tags must not hold one here.
"""

from werkzeug.routing import Map, Rule

# Rights on the repository that the address names (`access` grants them); None where it names none.
SEE, DOWNLOAD, WRITE, BROWSER = "see", "download", "write", "browser"

REPOSITORY = "/api/<any(models, datasets):kind>/<owner>/<name>"
LARGE = "/api/lfs/<string(length=64):oid>"
API = [
    ("GET", "/", None, "show_index"),
    ("GET", "/api/whoami-v2", None, "whoami"),
    ("POST", "/api/validate-yaml", None, "validate_card"),
    ("POST", "/api/repos/create", None, "create"),
    ("DELETE", "/api/repos/delete", None, "delete"),
    ("GET", REPOSITORY, SEE, "information"),
    ("GET", REPOSITORY + "/revision/<revision>", SEE, "information"),
    ("GET", REPOSITORY + "/tree/<revision>", SEE, "tree"),
    ("GET", REPOSITORY + "/tree/<revision>/<path:path>", SEE, "tree"),
    ("POST", REPOSITORY + "/paths-info/<revision>", SEE, "paths"),
    ("GET", REPOSITORY + "/commits/<revision>", SEE, "commits"),
    ("GET", REPOSITORY + "/refs", SEE, "references"),
    ("GET", REPOSITORY + "/auth-check", DOWNLOAD, "confirm"),
    ("GET", REPOSITORY + "/auth-check/write", WRITE, "confirm"),
    ("PUT", REPOSITORY + "/settings", WRITE, "settings"),
    ("POST", REPOSITORY + "/preupload/<revision>", WRITE, "preupload"),
    ("POST", REPOSITORY + "/commit/<revision>", WRITE, "commit"),
    ("POST", REPOSITORY + "/tag/<revision>", WRITE, "add_tag"),
    ("DELETE", REPOSITORY + "/tag/<revision>", WRITE, "remove_tag"),
    ("POST", REPOSITORY + "/branch/<revision>", WRITE, "add_branch"),
    ("DELETE", REPOSITORY + "/branch/<revision>", WRITE, "remove_branch"),
    # The Hub hands out signed addresses for these, which need no token either.
    ("PUT", LARGE, None, "put_large"),
    ("PUT", LARGE + "/part/<int:number>", None, "put_part"),
    ("POST", LARGE + "/complete", None, "complete_large"),
    ("POST", LARGE + "/verify", None, "verify_large"),
]
# The same below /datasets.
WEB = [
    ("POST", "/<owner>/<name>.git/info/lfs/objects/batch", WRITE, "large_batch"),
    ("GET", "/<owner>/<name>/resolve/<revision>/<path:path>", DOWNLOAD, "content"),
    ("GET", "/<owner>/<name>/blob/<revision>/<path:path>", BROWSER, "content"),
    ("GET", "/<owner>/<name>", BROWSER, "show_repository"),
    ("GET", "/<owner>/<name>/tree/<revision>", BROWSER, "show_repository"),
    ("GET", "/<owner>/<name>/commit/<revision>", BROWSER, "show_repository"),
]


def _routes() -> Map:
    rules = [Rule(path, methods=[method], endpoint=(right, name)) for method, path, right, name in API]
    for method, path, right, name in WEB:
        rules.append(Rule(path, methods=[method], endpoint=(right, name), defaults={"kind": "models"}))
        rules.append(Rule("/datasets" + path, methods=[method], endpoint=(right, name), defaults={"kind": "datasets"}))
    return Map(rules, redirect_defaults=False, merge_slashes=False, strict_slashes=False)


ROUTES = _routes()
