"""The OpenTelemetry Collector, compiled from its Go modules in the checkout's `build` folder at its first use."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import ROOT

VERSION = "v0.165.0"
FOLDER = Path(ROOT, "build", "collector")
_BUILD_S = 1_800
_MODULES = f"""
dist: {{name: collector, output_path: {FOLDER}}}
receivers: [{{gomod: go.opentelemetry.io/collector/receiver/otlpreceiver {VERSION}}}]
exporters: [{{gomod: go.opentelemetry.io/collector/exporter/otlphttpexporter {VERSION}}}]
"""
_PIPELINE = "{receivers: [otlp], exporters: [otlphttp]}"
_CONFIG = f"""
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:%d"}}}}}}}}
exporters: {{otlphttp: {{endpoint: "%s", compression: none, sending_queue: {{enabled: false}}}}}}
service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{metrics: {_PIPELINE}, traces: {_PIPELINE}}}}}
"""


@contextmanager
def collector(destination: str) -> Iterator[str]:
    """Run a collector that passes on what it gets to an OTLP endpoint; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = FOLDER / f"{port}.yaml"
    program = _program()
    config.write_text(_CONFIG % (port, destination), encoding="utf-8")
    running = subprocess.Popen([str(program), f"--config={config}"], stderr=subprocess.DEVNULL)
    try:
        pause = threading.Event()
        assert any(_listens(port) for _ in range(600) if not pause.wait(0.05))
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(30)
        config.unlink()


def _program() -> Path:
    program, ready = FOLDER / "collector", FOLDER / "ready"
    if not ready.is_file() or ready.read_text(encoding="utf-8") != _MODULES:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (modules := FOLDER / "modules.yaml").write_text(_MODULES, encoding="utf-8")
        builder = f"go.opentelemetry.io/collector/cmd/builder@{VERSION}"
        go = shutil.which("go") or "go"
        subprocess.run([go, "run", builder, f"--config={modules}"], timeout=_BUILD_S, check=True, cwd=FOLDER)
        ready.write_text(_MODULES, encoding="utf-8")
    return program


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
