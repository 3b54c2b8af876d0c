"""Hints: the next step after a failure that only a person can resolve, in one table that is read from the top.

Knows no clock, no socket, no Spark and no secret: of a token it gets the origin only.
"""

import re
from collections.abc import Container, Mapping
from typing import NamedTuple

from spark_llm.errors import HINT, Kind
from spark_llm.protocol.chat.responses_answer import NAMES_ROUTE
from spark_llm.protocol.failures import NOT_READY, STOPPED
from spark_llm.protocol.urls import INVOCATIONS_PATH
from spark_llm.protocol.values import RowError

MAX_MESSAGE_CHARACTERS = 700
_MAX_WHERE = 200
_MAX_SIGN_IN = 80
_DATABRICKS = re.compile(r"/serving-endpoints\b|/ai-gateway/")
_REFUSED = (
    "the token ({sign_in}) was refused: it is revoked, expired or for another host; create a new one for this host."
)
_ROUTES = "/invocations, /chat/completions, /responses, /completions or /embeddings"
_WRONG_TASK = "the endpoint serves another task than the UDF's; `preflight(endpoint)` shows which."


_FRAME = "(dataframe_split|instances)"  # fields of a custom model's request


class HintRule(NamedTuple):
    """A hint, and the conditions under which an error gets it; a condition that is left out always holds."""

    hint: str  # {sign_in} and the {name} of a Databricks endpoint are filled in
    message: str | None = None  # a regular expression that is found in the message, whatever its case
    on_databricks: bool = False  # only where the URL is of Databricks
    url: str | None = None  # a regular expression that is found in the URL
    statuses: Container[int] | None = None
    signed_in: bool | None = None  # whether a token was sent
    stops_all: bool = False  # only where the error stopped the whole task


# The first rule that fits gives the hint.
HINT_RULES: Mapping[Kind, tuple[HintRule, ...]] = {
    "unauthorized": (
        HintRule(
            "a rate limit of 0 turns the endpoint off; have it raised, or use another endpoint: `spark-llm endpoints`"
            " lists them.",
            message=r"rate limit (of|set to) 0\b",
        ),
        HintRule(
            "an IP access list blocks the workers; have their outgoing addresses added to it.",
            message=r"\bIP (ACL|access list)|\bsource IP\b",
        ),
        HintRule(
            "a network rule blocks the workers; ask the network's administrator to allow connections to this host.",
            message=r"network policy|network access|virtual network|firewall|private (endpoint|link)|public access",
        ),
        HintRule(
            "the endpoint's own key for its provider was refused; the endpoint's owner has to renew it.",
            message=r"provider behind the endpoint",
        ),
        HintRule(
            "the endpoint's own key for the service behind it was refused; the endpoint's owner has to renew it.",
            statuses=range(500, 600),
        ),
        HintRule(
            "set the proxy's user and password in HTTPS_PROXY on the workers, or the host in NO_PROXY.",
            statuses=(407,),
        ),
        HintRule(
            "no token was sent; pass Endpoint(…, token=…), or set this host's variable on the driver: DATABRICKS_TOKEN,"
            " OPENAI_API_KEY or AZURE_OPENAI_API_KEY.",
            signed_in=False,
        ),
        HintRule(
            "the token ({sign_in}) lacks the scope that the message names; create a token with that scope.",
            message=r"\bscopes?\b",
        ),
        HintRule(
            "the client's id or secret ({sign_in}) was refused; check both, and whether the secret was revoked.",
            message=r"invalid_client|client authentication|^requesting a token at",
        ),
        HintRule(
            "the token ({sign_in}) has expired; create a new one, or pass a token= that renews itself:"
            " ClientCredentials, or a function.",
            message=r"\bexpired|\blapsed",
        ),
        HintRule(_REFUSED, statuses=(401,)),
        HintRule(
            _REFUSED,
            message=r"invalid (access )?token|incorrect api key|api key not valid|jsonwebtoken|invalid_(api_key|grant)",
        ),
        HintRule(_WRONG_TASK, message=r"embeddings from this model"),
        HintRule(
            "the identity behind {sign_in} needs CAN QUERY on the endpoint; grant it on the endpoint's page, under"
            " Permissions.",
            on_databricks=True,
        ),
        HintRule("the identity behind {sign_in} lacks the permission; have it granted, or use another token."),
    ),
    "not_found": (
        HintRule(
            "use the address that the redirect leads to: often https:// for http://; a sign-in page means a wrong URL.",
            statuses=range(300, 400),
        ),
        HintRule("write https:// in the URL.", message=r"HTTP request (was sent )?to (an )?HTTPS"),
        HintRule(
            f"the URL accepts no POST; end it in {_ROUTES}.",
            statuses=(405,),
        ),
        HintRule("the server has another host name; check the host in the URL.", statuses=(421,)),
        HintRule(_WRONG_TASK, message=r"\bchat model\b|did you mean to use v1/"),
        HintRule(
            "check the model's name, catalog.schema.model; the workspace's AI Gateway lists its models.",
            url=r"/ai-gateway/",
        ),
        HintRule(
            "there is no Responses route, or no such model; leave out api=, or end the URL in /chat/completions.",
            url=r"/responses(\?|$)",
        ),
        HintRule(
            "check the endpoint's name; `spark-llm endpoints` lists the workspace's endpoints.", on_databricks=True
        ),
        HintRule(
            "check the model's name, Endpoint(…, model=…); most servers list theirs at /v1/models.",
            message=r"\bmodel\b|\bdeployment\b",
        ),
        HintRule(f"check the URL: a base URL, like https://host/v1, needs model=…; any other ends in {_ROUTES}."),
    ),
    "quota": (HintRule("no credit or budget is left; see the account's billing page."),),
    "unavailable": (
        HintRule(
            "start the endpoint, then run it again; `spark-llm check {name}` shows when it is ready.",
            message=STOPPED.pattern,
            on_databricks=True,
        ),
        HintRule("start it where it is hosted, then run it again.", message=STOPPED.pattern),
        HintRule(
            "`spark-llm check {name}` shows when it is ready; Policy(give_up_after_s=…) waits longer.",
            message=NOT_READY.pattern,
            on_databricks=True,
        ),
        HintRule(
            "wait until it is deployed, or allow a longer wait: Policy(give_up_after_s=…).", message=NOT_READY.pattern
        ),
        HintRule(
            "`spark-llm check {name}` shows its state; once it answers, run the failed rows again.",
            on_databricks=True,
            stops_all=True,
        ),
        HintRule(
            "look at the server's log; once it answers, run the failed rows again.",
            stops_all=True,
        ),
    ),
    "rate_limited": (
        HintRule(
            "send fewer requests, Policy(requests_per_minute=…), wait longer, Policy(give_up_after_s=…), or have the"
            " limit raised."
        ),
    ),
    "connection": (
        HintRule(
            "check the host's spelling; if it is right, the workers need a DNS that knows it, or a proxy, HTTPS_PROXY.",
            message=r"cannot be resolved",
        ),
        HintRule(
            "trust the issuer of its certificate: Endpoint(…, ca_bundle=…), or SSL_CERT_FILE on the workers.",
            message=r"certificate verify failed",
        ),
        HintRule("write http://, or the port that uses TLS.", message=r"\bno TLS with\b"),
        HintRule(
            "the port belongs to another protocol; try https://, or check the port.",
            message=r"\bis not HTTP\b",
        ),
        HintRule(
            "check HTTPS_PROXY in the workers' environment; NO_PROXY names the hosts to reach without it.",
            message=r"\bproxy\b",
        ),
        HintRule(
            "nothing listens there; check the host and the port. To a worker, localhost is the worker itself.",
            message=r"\brefused\b",
        ),
        HintRule(
            "the workers cannot reach it; look for a firewall, or name the proxy in HTTPS_PROXY on the workers.",
            message=r"no connection to .+ within|unreachable|timed out|no route",
        ),
        HintRule(
            "raise the workers' limit of open files (ulimit -n), or lower Policy(max_in_flight=…).",
            message=r"too many open files",
        ),
        HintRule("check the URL, and look at the server's log.", stops_all=True),
    ),
    "timeout": (
        HintRule("allow more time, Policy(timeout_s=…), or request less: a smaller max_tokens or batch_size."),
    ),
    "context_length": (
        HintRule(
            "one request exceeds the limit per minute; shorten the text, lower max_tokens or Policy(batch_size=…), or"
            " have the limit raised.",
            message=r"\blimit:? [\d,]+\b.*\brequested:? [\d,]+|request too large for",
        ),
        HintRule("lower max_tokens, or add credit to the account.", statuses=(402,)),
        HintRule("shorten the text, lower max_tokens, or use a model with a longer context."),
    ),
    "invalid_request": (
        HintRule(
            "the model's own code failed: check the names and types of the columns (upper and lower case differ, and a"
            " single column has no name), and its server's log.",
            message=r"error while evaluating the model|enforce schema|incompatible input|missing inputs",
        ),
        HintRule(
            "the endpoint takes no columns, so it serves another task: use chat_udf, complete_udf or embed_udf;"
            " `preflight(endpoint)` shows which.",
            message=rf"(unknown|unrecognized|unexpected|unsupported|extra)\b.{{0,60}}\b{_FRAME}"
            rf"|{_FRAME}\b.{{0,60}}(not permitted|extra inputs|unexpected|unknown|not supported)",
        ),
        HintRule(
            'the model is served at the Responses route: set Endpoint(…, api="responses").',
            message=NAMES_ROUTE.pattern,
            url=r"/(chat/completions|invocations)(\?|$)",
        ),
        HintRule(
            'it may be served at the Responses route: try Endpoint(…, api="responses").',
            message=r"chat_?completions? operation|chat/completions endpoint|not allowed on chat completions",
        ),
        HintRule(
            _WRONG_TASK,
            message=r"missing required (chat|completions?|embeddings?) parameter|does not work with the specified model"
            r"|support (the )?(chat|completions?|embeddings?)\b|\b(embedding|chat) models?\b"
            r"|\b(messages|prompt|input): field required|unknown field \W*(messages|prompt|inputs?)\b",
        ),
        HintRule(
            "leave out the field that the message names: a parameter of the UDF, or a field of extra_body.",
            message=r"unsupported[ _](parameter|value)|unknown field|unrecognized|extra inputs|unexpected keyword"
            r"|is not supported|not permitted",
        ),
        HintRule(
            "the server accepts no request of that size; lower Policy(max_request_mb=…), or send smaller images,"
            " files or texts.",
            statuses=(413,),
        ),
        HintRule(
            "the request is wrong, not the text; check the UDF's parameters, and which task the endpoint serves:"
            " `preflight(endpoint)` shows it.",
            stops_all=True,
        ),
    ),
    "invalid_response": (
        HintRule(
            "the server ignores the parameter; leave dimensions out, or use a model that can shorten its vectors.",
            message=r"dimensions=\d+ was requested",
        ),
        HintRule(
            "the server may take one text at a time; set Policy(batch_size=1).",
            message=r"vectors for \d+ inputs|the vectors' indexes",
        ),
        HintRule(
            "ask for less in one request: lower Policy(batch_size=…) for texts and rows, max_tokens or n for answers.",
            message=r"the answer has more than \d+ MB",
        ),
        HintRule(
            "the model must return one prediction for each row, in the rows' order.",
            message=r"\d predictions for \d+ rows",
        ),
        HintRule("the server there may not be a model server; check the URL's host and path.", stops_all=True),
    ),
}


def with_hint(error: RowError, where: str, sign_in: str, *, stops_all: bool = False) -> RowError:
    """Return the error with its message, its URL and a hint; unchanged where no rule fits or it has a hint already.

    `where` is the endpoint's URL without secrets. `sign_in` is the token's origin ("DATABRICKS_TOKEN"), and empty where
    no token was sent. `stops_all` is whether the error stopped the whole task. Kind, status and retryable stay.
    """
    rule = None if HINT in error.message else rule_for(error, where, sign_in, stops_all=stops_all)
    if rule is None:
        return error
    endpoint = INVOCATIONS_PATH.search(where)
    name = _cut(endpoint["name"], _MAX_SIGN_IN) if endpoint else "NAME"
    hint = rule.hint.format(sign_in=_cut(sign_in, _MAX_SIGN_IN), name=name)
    tail = f" (at {_cut(where, _MAX_WHERE)}).{HINT}{hint}"
    return error._replace(message=_cut(error.message.rstrip(". "), MAX_MESSAGE_CHARACTERS - len(tail)) + tail)


def rule_for(error: RowError, where: str, sign_in: str, *, stops_all: bool) -> HintRule | None:
    """Return the first rule of the table that fits; None where none does."""
    rules = HINT_RULES.get(error.kind, ())
    return next((rule for rule in rules if _fits(rule, error, where, sign_in, stops_all=stops_all)), None)


def _fits(rule: HintRule, error: RowError, where: str, sign_in: str, *, stops_all: bool) -> bool:
    return (
        (stops_all or not rule.stops_all)
        and rule.signed_in in (None, bool(sign_in))
        and (rule.statuses is None or error.status in rule.statuses)
        and (not rule.on_databricks or bool(_DATABRICKS.search(where)))
        and (rule.url is None or bool(re.search(rule.url, where)))
        and (rule.message is None or bool(re.search(rule.message, error.message, re.IGNORECASE)))
    )


def _cut(text: str, max_characters: int) -> str:
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"
