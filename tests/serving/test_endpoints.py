"""Starting and stopping, and what it costs to have the endpoints at hand."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from spark_llm.serving import After, Capacity, Faults, LocalEndpoints
from tests.support.local_client import connected


def test_stopping_drops_what_waits_at_once() -> None:
    """Endpoints stop promptly with requests hung, held and late, and count them as left; a second stop is nothing."""
    late = LocalEndpoints(faults=Faults("hang"), latency_s=lambda number: 3600.0 if number == 2 else 0.0)
    with connected(late) as client:
        client.endpoints.hold("held")
        waiting = []
        for text in ("hung", "held", "late"):
            waiting.append(client.later(text))
            client.endpoints.wait_for(lambda stats: stats.in_flight == len(waiting), timeout_s=10)
        client.endpoints.stop()
        client.endpoints.stop()

        assert [requests.ConnectionError] * 3 == [type(each.exception()) for each in waiting]
        stats = client.endpoints.stats
        assert (3, 3, 0) == (stats.requests, stats.disconnects, stats.in_flight)


def test_endpoints_come_back_at_the_same_port() -> None:
    """An outage can be played: stopped, nobody answers; started again, the URL and the counters are the old ones."""
    with connected(LocalEndpoints()) as client:
        url = client.endpoints.url
        assert 200 == client.say("a").status_code
        client.endpoints.stop()
        with pytest.raises(requests.ConnectionError):
            client.say("a")
        client.endpoints.start()

        assert (200, url, 2) == (client.say("a").status_code, client.endpoints.url, client.endpoints.stats.requests)


def test_a_port_in_use_is_an_error_where_it_is_started() -> None:
    """A port that is taken raises at once, and nothing is left running."""
    with LocalEndpoints() as first:
        second = LocalEndpoints(port=int(first.url.rpartition(":")[2]))
        with pytest.raises(OSError, match="address already in use"):
            second.start()
        second.stop()


def test_there_is_no_url_before_the_start() -> None:
    """Asking for the URL too early says what to do."""
    with pytest.raises(RuntimeError, match="Hint: start them"):
        _ = LocalEndpoints().url


ROOT = Path(__file__).parents[2]


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, in the checkout."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


def test_importing_the_fixture_loads_nothing_heavy() -> None:
    """Every pytest run on the machine loads the plugin, so it must cost nothing."""
    heavy = "{'aiohttp', 'asyncio', 'msgspec', 'numpy', 'onnxruntime', 'pandas', 'pyspark', 'requests', 'xllamacpp'}"
    code = f"import sys, spark_llm.serving.pytest_plugin; print(sorted(({heavy} - before) & set(sys.modules)))"
    done = run_python("-c", f"import sys, pytest; before = set(sys.modules); {code}")

    assert ("[]\n", "") == (done.stdout, done.stderr)


def test_the_fixture_gives_fresh_endpoints(tmp_path: Path) -> None:
    """A project that has the library has the fixture, and each test gets counters at zero."""
    (tmp_path / "test_theirs.py").write_text(
        "import urllib.request\n"
        "import pytest\n"
        "@pytest.mark.parametrize('time', [1, 2])\n"
        "def test_mine(time, local_endpoints):\n"
        "    assert 0 == local_endpoints.stats.requests\n"
        "    request = urllib.request.Request(local_endpoints.invocations('chat'), data=b'{}')\n"
        "    with pytest.raises(urllib.error.HTTPError):\n"
        "        urllib.request.urlopen(request)\n"
        "    assert {401: 1} == local_endpoints.stats.by_status\n",
        encoding="utf-8",
    )
    plugin = ("-p", "spark_llm.serving.pytest_plugin", "-p", "no:cacheprovider")
    done = run_python("-m", "pytest", "-q", *plugin, str(tmp_path), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert 0 == done.returncode, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "new"),
        ("token_expires", After(requests=9)),
        ("faults", Faults("503")),
        ("latency_s", 0.001),
        ("capacity", Capacity(concurrency=9)),
    ],
)
def test_a_setting_from_another_thread_waits_for_its_turn(name: str, value: object) -> None:
    """It takes effect between two steps of the application, and never in the middle of one."""
    seen: list[object] = []

    def latency_s(_: int) -> float:
        setting.start()
        setting.join(0.1)  # the time that it would take to see it happen
        seen.append(getattr(endpoints, name))
        return 0.0

    endpoints = LocalEndpoints(latency_s=latency_s)
    old = getattr(endpoints, name)
    setting = threading.Thread(target=setattr, args=(endpoints, name, value), daemon=True)
    with connected(endpoints) as client:
        client.say("a")
        setting.join(5)

    assert ([old], value) == (seen, getattr(endpoints, name))


def test_a_model_may_set_what_comes_next() -> None:
    """What runs on the application's own thread need not wait for it, also while another thread does."""
    elsewhere = []

    def latency_s(number: int) -> float:
        elsewhere.append(threading.Thread(target=setattr, args=(endpoints, "capacity", Capacity(concurrency=9))))
        elsewhere[-1].start()
        endpoints.faults = Faults(f"ok*{number + 1} 503")
        endpoints.reset()
        endpoints.token_expires = None
        return 0.0

    endpoints = LocalEndpoints(latency_s=latency_s)
    with connected(endpoints) as client:
        assert 200 == client.say("a").status_code
        for each in elsewhere:
            each.join(5)

    assert ([False], Faults("ok*1 503")) == ([each.is_alive() for each in elsewhere], endpoints.faults)
