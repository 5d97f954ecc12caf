"""The HTML."""

from __future__ import annotations

from html import escape
from typing import Any

FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
body {{ max-width: 36rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif; }}
form {{ display: grid; gap: .5rem; }}
fieldset {{ border: 1px solid #8888; border-radius: .5rem; }}
input:not([type=radio]), textarea, button {{ font: inherit; padding: .4rem .7rem; }}
textarea, input:not([type=radio]) {{ display: block; width: 100%; box-sizing: border-box; }}
fieldset label {{ display: flex; gap: .5rem; align-items: baseline; }}
meter {{ margin-left: auto; flex: none; }}
button {{ justify-self: start; }}
</style>
<h1>{title}</h1>
{body}
"""
INDEX = """{polls}
<h2>Ask</h2>
<form method="post" action="/polls">
<label>Question <input name="question" required></label>
<label>Choices, one a line <textarea name="choices" rows="3" required></textarea></label>
<button>Ask</button>
</form>"""
POLL = """<form method="post" action="/polls/{id}/votes">
<fieldset><legend>Votes: {votes}</legend>
{choices}
</fieldset>
<label>Your name <input name="voter" required autocomplete="name"></label>
<button>Vote</button>
</form>
<p>Asked on {asked:%d %B %Y}. <a href="/">All polls</a></p>"""
CHOICE = """<label><input type="radio" name="choice" value="{number}" required>
{label} <meter min="0" max="{total}" value="{votes}"></meter> {votes}</label>"""


def index(polls: list[dict[str, Any]]) -> str:
    items = "\n".join(
        '<li><a href="/polls/{id}">{question}</a> ({votes})</li>'.format_map(safe(poll))
        for poll in polls
    )
    return frame("Polls", INDEX.format(polls=f"<ul>{items}</ul>" if polls else "<p>None yet.</p>"))


def poll(poll: dict[str, Any]) -> str:
    votes = sum(choice["votes"] for choice in poll["choices"])
    choices = "\n".join(
        CHOICE.format_map({**safe(choice), "total": max(votes, 1)}) for choice in poll["choices"]
    )
    body = POLL.format_map({**safe(poll), "votes": votes, "choices": choices})
    return frame(poll["question"], body)


def error(reason: str) -> str:
    return frame("That did not work", f'<p>{escape(reason)}. <a href="/">All polls</a></p>')


def frame(title: str, body: str) -> str:
    return FRAME.format(title=escape(title), body=body)


def safe(values: dict[str, Any]) -> dict[str, Any]:
    """The values, with text as HTML."""
    return {k: escape(v) if isinstance(v, str) else v for k, v in values.items()}
