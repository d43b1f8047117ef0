"""The page about the admin API: plain HTML from its OpenAPI description. **Pure.**

FastAPI's own page loads its scripts from a content delivery network; without internet, where a proxy in a cluster
often is, it stays white.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
table {{ border-collapse: collapse }}
th, td {{ border-bottom: 1px solid #8884; padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top }}
</style>
</head>
<body>
<h1>{title} {version}</h1>
<p>For programs: <a href="openapi.json">openapi.json</a>.</p>
<table>
<tr><th>request</th><th>what</th><th>answer</th></tr>
{routes}
</table>
{schemas}
</body>
</html>
"""


def reference_page(openapi: Mapping[str, Any]) -> str:
    """What can be asked, and what the answers have in them."""
    schemas = openapi.get("components", {}).get("schemas", {})
    return _PAGE.format(
        title=escape(openapi["info"]["title"]),
        version=escape(openapi["info"]["version"]),
        routes="\n".join(_routes(openapi["paths"])),
        schemas="\n".join(_schema(name, schema) for name, schema in schemas.items()),
    )


def _routes(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            request = escape(f"{method.upper()} {path}")
            if method == "get" and "{" not in path:
                request = f'GET <a href="{escape(path.removeprefix("/"))}">{escape(path)}</a>'
            yield f"<tr><td>{request}</td><td>{escape(operation['summary'])}</td><td>{_answer(operation)}</td></tr>"


def _answer(operation: Mapping[str, Any]) -> str:
    content = operation["responses"]["200"].get("content", {})
    return ", ".join(_type(media["schema"]) if "json" in kind else escape(kind) for kind, media in content.items())


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    about = f"<p>{escape(schema['description'])}</p>" if "description" in schema else ""
    rows = "\n".join(
        f"<tr><td>{escape(field)}</td><td>{_type(kind)}</td><td>{escape(kind.get('description', ''))}</td></tr>"
        for field, kind in schema["properties"].items()
    )
    return f'<h2 id="{escape(name)}">{escape(name)}</h2>\n{about}\n<table>\n{rows}\n</table>'


def _type(schema: Mapping[str, Any]) -> str:
    """A type in words, with a link where it is described on the page."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(alternative) for alternative in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"mapping of text to {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("type", "anything")))
