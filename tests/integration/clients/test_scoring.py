"""Custom models answer as MLflow's own scoring server does."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.integration.clients.environment import peer_environment, peers_python
from tests.integration.clients.scoring import BODIES, FUNCTIONS, WRONG_BODIES


@pytest.mark.slow
def test_a_function_answers_as_behind_mlflows_scoring_server(tmp_path: Path) -> None:
    """Every answer is MLflow's, byte for byte; an error has its status, code and, for a function's own, its message."""
    ran = subprocess.run(
        [str(peers_python()), "-m", "tests.integration.clients.scoring"],
        env=peer_environment(tmp_path, PYTHONPATH=ROOT),
        cwd=ROOT,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr.decode()
    rows = json.loads(ran.stdout)
    answered = [(name, body, theirs, ours) for name, body, theirs, ours in rows if theirs[0] == 200]
    refused = [(name, body, theirs, ours) for name, body, theirs, ours in rows if theirs[0] != 200]

    assert len(FUNCTIONS) * len([*BODIES, *WRONG_BODIES]) == len(rows)
    assert [] == [row for row in answered if row[2] != row[3]]
    errors = [(name, body, *(json.loads(text) for _, text in (theirs, ours))) for name, body, theirs, ours in refused]
    assert [] == [row for row in refused if row[2][0] != row[3][0]]
    assert [] == [row for row in errors if row[2]["error_code"] != row[3]["error_code"]]
    own = [row for row in errors if "stack_trace" in row[2]]
    assert [] == [row for row in own if row[2]["message"] != row[3]["message"] or "stack_trace" not in row[3]]
    assert len(answered) > 100
    assert len(own) >= len(BODIES)
