"""Starting, stopping and setting `LocalEndpoints`, and the pytest plugin."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from spark_llm.serving import After, Capacity, Faults, LocalEndpoints
from tests.support.local_client import connected


def test_a_stop_drops_waiting_requests_at_once() -> None:
    """A stop ends hung, held and late requests at once, and counts them as disconnects; a second stop is a no-op."""
    late = LocalEndpoints(faults=Faults("hang"), latency_s=lambda number: 3600.0 if number == 2 else 0.0)
    with connected(late) as client:
        client.endpoints.hold("held")
        waiting = []
        for text in ("hung", "held", "late"):
            waiting.append(client.chat_in_background(text))
            client.endpoints.wait_for(lambda stats: stats.in_flight == len(waiting), timeout_s=10)
        client.endpoints.stop()
        client.endpoints.stop()

        assert [requests.ConnectionError] * 3 == [type(each.exception()) for each in waiting]
        stats = client.endpoints.stats
        assert (3, 3, 0) == (stats.requests, stats.disconnects, stats.in_flight)


def test_a_restart_keeps_the_port() -> None:
    """Stopped endpoints refuse connections; a restart keeps the URL and the counters."""
    with connected(LocalEndpoints()) as client:
        url = client.endpoints.url
        assert 200 == client.chat("a").status_code
        client.endpoints.stop()
        with pytest.raises(requests.ConnectionError):
            client.chat("a")
        client.endpoints.start()

        assert (200, url, 2) == (client.chat("a").status_code, client.endpoints.url, client.endpoints.stats.requests)


def test_a_port_in_use_raises_at_the_start() -> None:
    """A port that is taken raises at once, with a hint, and leaves nothing running."""
    with LocalEndpoints() as first:
        port = first.url.rpartition(":")[2]
        second = LocalEndpoints(port=int(port))
        with pytest.raises(OSError, match=rf"port {port} is in use\. Hint: port=0 takes any free one\.$"):
            second.start()
        second.stop()


def test_there_is_no_url_before_the_start() -> None:
    """Reading the URL before the start raises with a hint."""
    with pytest.raises(RuntimeError, match="Hint: start them"):
        _ = LocalEndpoints().url


ROOT = Path(__file__).parents[2]


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a new process, with the checkout on its path."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)


def test_importing_the_fixture_loads_nothing_heavy() -> None:
    """Every pytest run on the machine loads the plugin, so it imports no heavy library."""
    heavy = "{'aiohttp', 'asyncio', 'msgspec', 'numpy', 'onnxruntime', 'pandas', 'pyspark', 'requests', 'xllamacpp'}"
    code = f"import sys, spark_llm.serving.pytest_plugin; print(sorted(({heavy} - before) & set(sys.modules)))"
    completed = run_python("-c", f"import sys, pytest; before = set(sys.modules); {code}")

    assert ("[]\n", "") == (completed.stdout, completed.stderr)


@pytest.mark.waits
def test_the_fixture_has_new_endpoints_for_each_test(tmp_path: Path) -> None:
    """A project with the library has the fixture, and each test gets counters at zero."""
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
    completed = run_python("-m", "pytest", "-q", *plugin, str(tmp_path), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    assert 0 == completed.returncode, completed.stdout
    assert "2 passed" in completed.stdout


@pytest.mark.waits
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
def test_a_setting_from_another_thread_runs_on_the_loop(name: str, value: object) -> None:
    """A setting takes effect between two steps of the event loop, and never in the middle of one."""
    values: list[object] = []

    def latency_s(_: int) -> float:
        setting.start()
        setting.join(0.1)  # time for a wrong setting to take effect
        values.append(getattr(endpoints, name))
        return 0.0

    endpoints = LocalEndpoints(latency_s=latency_s)
    old = getattr(endpoints, name)
    setting = threading.Thread(target=setattr, args=(endpoints, name, value), daemon=True)
    with connected(endpoints) as client:
        client.chat("a")
        setting.join(5)

    assert ([old], value) == (values, getattr(endpoints, name))


def test_a_model_may_change_the_settings() -> None:
    """Settings on the application's own thread apply at once, even while another thread waits for it."""
    other_threads = []

    def latency_s(number: int) -> float:
        other_threads.append(threading.Thread(target=setattr, args=(endpoints, "capacity", Capacity(concurrency=9))))
        other_threads[-1].start()
        endpoints.faults = Faults(f"ok*{number + 1} 503")
        endpoints.reset()
        endpoints.token_expires = None
        return 0.0

    endpoints = LocalEndpoints(latency_s=latency_s)
    with connected(endpoints) as client:
        assert 200 == client.chat("a").status_code
        for each in other_threads:
            each.join(5)

    assert ([False], Faults("ok*1 503")) == ([each.is_alive() for each in other_threads], endpoints.faults)
