"""`examples/publish.py` and `examples/listen.py`, as somebody copies them: nothing of Pitstop but its NATS URL."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

from tests.whole_system import free_port, running_system

from pitstop_common.embedded import die_with_parent

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def publish(url: str, workflow: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """To its end."""
    argv = [sys.executable, str(EXAMPLES / "publish.py"), "--nats", url, "--org", "acme", "--project", "web"]
    return subprocess.run([*argv, str(workflow), *options], capture_output=True, text=True, timeout=60, check=False)


def test_a_run_is_asked_for_and_heard_of(tmp_path: Path) -> None:
    with running_system(tmp_path / "system") as facts:
        names = ("run.requested", "run.queued", "run.duplicate", "run.finished")
        listener = subprocess.Popen(
            [sys.executable, EXAMPLES / "listen.py", "--nats", facts["nats"], *names],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        assert listener.stdout is not None and listener.stderr is not None
        try:
            assert listener.stderr.readline().startswith("listening")
            done = publish(facts["nats"], EXAMPLES / "hello.yml", "--id", "one")
            again = publish(facts["nats"], EXAMPLES / "hello.yml", "--id", "one")
            assert (done.returncode, again.returncode, again.stdout) == (0, 0, done.stdout), done.stderr
            seen: list[tuple[str, dict[str, object]]] = []
            while not {"run.duplicate", "run.finished"} <= {name for name, _ in seen}:
                name, _, event = listener.stdout.readline().partition(" ")
                seen.append((name, json.loads(event)))
        finally:
            listener.kill()
            listener.wait()
            listener.stdout.close()
            listener.stderr.close()
        assert {event["run"] for name, event in seen if name != "run.requested"} == {done.stdout.strip()}
        wrong = tmp_path / "wrong.yml"
        wrong.write_text("jobs:\n  a:\n    steps:\n      - run: 'true'\n        frobnicate: 1\n")
        refused = publish(facts["nats"], wrong)
        assert refused.returncode == 1
        assert refused.stderr.startswith("rejected: /workflow/jobs/a/steps/0/frobnicate: unknown key")


def test_nobody_there_is_said_in_one_line() -> None:
    done = publish(f"nats://127.0.0.1:{free_port()}", EXAMPLES / "hello.yml")
    assert done.returncode == 3
    assert done.stderr.startswith("no answer from Pitstop") and done.stderr.count("\n") == 1


def test_they_need_nothing_of_pitstop() -> None:
    for name in ("publish.py", "listen.py"):
        imports = {
            (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
            for node in ast.walk(ast.parse((EXAMPLES / name).read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        others = {module.split(".")[0] for module in imports} - set(sys.stdlib_module_names)
        assert others == {"nats"}
