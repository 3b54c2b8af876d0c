"""What a person should do about a failure that only a person can mend: one table, read from the top.

Knows no clock, no socket, no Spark and no secret: of a token it is told where it came from.
"""

import re
from collections.abc import Container, Mapping
from functools import partial
from typing import NamedTuple

from spark_llm.errors import Kind
from spark_llm.protocol.failures import NOT_READY, STOPPED
from spark_llm.protocol.values import RowError

MESSAGE_MOST = 700
_WHERE_MOST = 200
_SIGN_IN_MOST = 80
_HINT = "Hint: "
_DATABRICKS = re.compile(r"/serving-endpoints\b|/ai-gateway/")
_NAME = re.compile(r"/serving-endpoints/([^/?]+)/(?:served-models/[^/]+/)?invocations")
_words = partial(re.compile, flags=re.IGNORECASE)
_NOT_TAKEN = "the token ({sign_in}) was not taken: revoked, expired, or another host's; make a new one for this host."
_WRONG_TASK = "the endpoint serves another task than the UDF asks for; `preflight(endpoint)` says which."


class Advice(NamedTuple):
    """A hint, and what an error must be for it; a condition that is left out always holds."""

    hint: str  # {sign_in} and {name}, of a Databricks endpoint, are filled in
    words: re.Pattern[str] | None = None  # found in the message
    at: re.Pattern[str] | None = None  # found in the URL
    statuses: Container[int] | None = None
    signed_in: bool | None = None
    stops_all: bool = False  # only where the whole task ended with it


# Of each kind, the first that fits is given.
ADVICE: Mapping[Kind, tuple[Advice, ...]] = {
    "unauthorized": (
        Advice(
            "a rate limit of 0 switches the endpoint off; have it raised, or name another: `spark-llm endpoints` lists"
            " them.",
            words=_words(r"rate limit (of|set to) 0\b"),
        ),
        Advice(
            "an IP access list keeps the workers out; have the addresses added by which they leave their network.",
            words=_words(r"\bIP (ACL|access list)|\bsource IP\b"),
        ),
        Advice(
            "a rule of the network stands between; have its administrator let the workers through to this host.",
            words=_words(
                r"network policy|network access|virtual network|firewall|private (endpoint|link)|public access"
            ),
        ),
        Advice(
            "it is the endpoint's own key for its provider; whoever runs the endpoint has to renew it there.",
            words=_words(r"provider behind the endpoint"),
        ),
        Advice(
            "it is the endpoint's own key for what stands behind it; whoever runs it has to renew it there.",
            statuses=range(500, 600),
        ),
        Advice(
            "put the proxy's user and password into HTTPS_PROXY on the workers, or the host into NO_PROXY.",
            statuses=(407,),
        ),
        Advice(
            "no token was sent; pass Endpoint(…, token=…), or set this host's variable on the driver: DATABRICKS_TOKEN,"
            " OPENAI_API_KEY or AZURE_OPENAI_API_KEY.",
            signed_in=False,
        ),
        Advice(
            "the token ({sign_in}) lacks the scope that is named here; make one that has it.",
            words=_words(r"\bscopes?\b"),
        ),
        Advice(
            "the client's id or secret ({sign_in}) was not taken; check both, and whether the secret was revoked.",
            words=_words(r"invalid_client|client authentication|^signing in at"),
        ),
        Advice(
            "the token ({sign_in}) has expired; make a new one, or pass as token= what renews it: ClientCredentials, or"
            " a function.",
            words=_words(r"\bexpired|\blapsed"),
        ),
        Advice(_NOT_TAKEN, statuses=(401,)),
        Advice(
            _NOT_TAKEN,
            words=_words(
                r"invalid (access )?token|incorrect api key|api key not valid|jsonwebtoken|invalid_(api_key|grant)"
            ),
        ),
        Advice(_WRONG_TASK, words=_words(r"embeddings from this model")),
        Advice(
            "whoever signs in by {sign_in} needs CAN QUERY on the endpoint; its Permissions page grants it.",
            at=_DATABRICKS,
        ),
        Advice("whoever signs in by {sign_in} may not ask this; have it allowed, or sign in as somebody else."),
    ),
    "not_found": (
        Advice(
            "use the address that it leads to: often https:// in place of http://, or past a sign-in page.",
            statuses=range(300, 400),
        ),
        Advice("write https:// in the URL.", words=_words(r"HTTP request (was sent )?to (an )?HTTPS")),
        Advice(
            "the URL takes no POST; end it in /invocations, /chat/completions, /completions or /embeddings.",
            statuses=(405,),
        ),
        Advice("the server goes by another name; check the host in the URL.", statuses=(421,)),
        Advice(_WRONG_TASK, words=_words(r"\bchat model\b|did you mean to use v1/")),
        Advice("check the endpoint's name; `spark-llm endpoints` lists those of the workspace.", at=_DATABRICKS),
        Advice(
            "check the model's name, Endpoint(…, model=…); most servers list theirs at /v1/models.",
            words=_words(r"\bmodel\b|\bdeployment\b"),
        ),
        Advice(
            "check the URL: a base, like https://host/v1, goes with model=…; any other ends in /invocations,"
            " /chat/completions, /completions or /embeddings."
        ),
    ),
    "quota": (Advice("no credit or budget is left; see the account's billing page, then ask again."),),
    "unavailable": (
        Advice(
            "start the endpoint, then ask again; `spark-llm check {name}` says when it is ready.",
            words=STOPPED,
            at=_DATABRICKS,
        ),
        Advice("start it where it is hosted, then ask again.", words=STOPPED),
        Advice(
            "`spark-llm check {name}` says when it is ready; Policy(give_up_after_s=…) waits longer.",
            words=NOT_READY,
            at=_DATABRICKS,
        ),
        Advice("wait until it is deployed, or longer: Policy(give_up_after_s=…).", words=NOT_READY),
        Advice(
            "`spark-llm check {name}` shows its state; once it answers, the rows that failed can be asked again.",
            at=_DATABRICKS,
            stops_all=True,
        ),
        Advice(
            "look at the server's log; once it answers, the rows that failed can be asked again.",
            stops_all=True,
        ),
    ),
    "rate_limited": (
        Advice(
            "ask more slowly, Policy(requests_per_minute=…), wait longer, Policy(give_up_after_s=…), or have the limit"
            " raised."
        ),
    ),
    "connection": (
        Advice(
            "check the host's spelling; if it is right, the workers need a DNS that knows it, or a proxy, HTTPS_PROXY.",
            words=_words(r"cannot be resolved"),
        ),
        Advice(
            "trust whoever signed it: Endpoint(…, ca_bundle=…), or SSL_CERT_FILE on the workers.",
            words=_words(r"certificate verify failed"),
        ),
        Advice("write http://, or the port that speaks TLS.", words=_words(r"\bno TLS with\b")),
        Advice(
            "something else listens there; try https://, or check the port.",
            words=_words(r"\bis not HTTP\b"),
        ),
        Advice(
            "check HTTPS_PROXY in the workers' environment; NO_PROXY names the hosts to reach without it.",
            words=_words(r"\bproxy\b"),
        ),
        Advice(
            "nothing listens there; check the host and the port. To a worker, localhost is the worker itself.",
            words=_words(r"\brefused\b"),
        ),
        Advice(
            "the workers cannot reach it; look for a firewall, or name the proxy in HTTPS_PROXY on the workers.",
            words=_words(r"no connection to .+ within|unreachable|timed out|no route"),
        ),
        Advice(
            "let the workers open more files (ulimit -n), or keep fewer: a lower Policy(max_in_flight=…).",
            words=_words(r"too many open files"),
        ),
        Advice("check the URL, and look at the server's log.", stops_all=True),
    ),
    "timeout": (
        Advice("give a try longer, Policy(timeout_s=…), or ask for less: a smaller max_tokens or batch_size."),
    ),
    "context_length": (
        Advice(
            "one request exceeds the limit of a minute; shorten the text, lower max_tokens or Policy(batch_size=…), or"
            " have the limit raised.",
            words=_words(r"\blimit:? [\d,]+\b.*\brequested:? [\d,]+|request too large for"),
        ),
        Advice("lower max_tokens, or add credit to the account.", statuses=(402,)),
        Advice("shorten the text, lower max_tokens, or ask a model that takes more."),
    ),
    "invalid_request": (
        Advice(
            _WRONG_TASK,
            words=_words(
                r"missing required (chat|completions?|embeddings?) parameter|does not work with the specified model"
                r"|support (the )?(chat|completions?|embeddings?)\b|\b(embedding|chat) models?\b"
                r"|\b(messages|prompt|input): field required|unknown field \W*(messages|prompt|inputs?)\b"
            ),
        ),
        Advice(
            "leave out what is named here: a parameter of the UDF, or a field of extra_body.",
            words=_words(
                r"unsupported[ _](parameter|value)|unknown field|unrecognized|extra inputs|unexpected keyword"
                r"|is not supported|not permitted"
            ),
        ),
        Advice(
            "the server takes no request of that size; lower Policy(batch_size=…), or shorten the text.",
            statuses=(413,),
        ),
        Advice(
            "it is the request, and not the text; check the UDF's parameters, and with `preflight(endpoint)` which task"
            " the endpoint serves.",
            stops_all=True,
        ),
    ),
    "invalid_response": (
        Advice(
            "the server ignores the parameter; leave dimensions out, or ask a model that can shorten its vectors.",
            words=_words(r"dimensions=\d+ was asked for"),
        ),
        Advice(
            "the server may take one text at a time; set Policy(batch_size=1).",
            words=_words(r"vectors for \d+ inputs|the vectors' indexes"),
        ),
        Advice("what answers there may be no model server; check the URL's host and path.", stops_all=True),
    ),
}


def with_next_step(error: RowError, where: str, sign_in: str, *, stops_all: bool = False) -> RowError:
    """Return the error with its words, then where it was met, then what to do; unchanged where there is nothing to do.

    `where` is the endpoint's URL, fit to print. `sign_in` says where the token came from ("DATABRICKS_TOKEN"), and is
    empty where none was sent. `stops_all` says that the whole task ended with this error. Kind, status and retryable
    stay as they are, and a message that has a hint already stays as it is.
    """
    advice = None if _HINT in error.message else advice_for(error, where, sign_in, stops_all=stops_all)
    if advice is None:
        return error
    name = _NAME.search(where)
    hint = advice.hint.format(
        sign_in=_cut(sign_in, _SIGN_IN_MOST), name=_cut(name[1], _SIGN_IN_MOST) if name else "NAME"
    )
    tail = f" (at {_cut(where, _WHERE_MOST)}). {_HINT}{hint}"
    return error._replace(message=_cut(error.message.rstrip(". "), MESSAGE_MOST - len(tail)) + tail)


def advice_for(error: RowError, where: str, sign_in: str, *, stops_all: bool) -> Advice | None:
    """Return the first line of the table that fits; None where there is nothing to do."""
    lines = ADVICE.get(error.kind, ())
    return next((line for line in lines if _fits(line, error, where, sign_in, stops_all=stops_all)), None)


def _fits(advice: Advice, error: RowError, where: str, sign_in: str, *, stops_all: bool) -> bool:
    return (
        (stops_all or not advice.stops_all)
        and advice.signed_in in (None, bool(sign_in))
        and (advice.statuses is None or error.status in advice.statuses)
        and (advice.at is None or bool(advice.at.search(where)))
        and (advice.words is None or bool(advice.words.search(error.message)))
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
