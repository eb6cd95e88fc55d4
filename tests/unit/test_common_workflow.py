"""Workflow files: what they mean, and where each fault is said to be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pitstop_common.spec import JobSpec
from pitstop_common.workflow import StepNotFound, WorkflowError, compile_workflow, find_step

HELLO = Path(__file__).parents[2] / "examples" / "hello.yml"


def compiled(text: str, only: tuple[str, ...] = ()) -> tuple[JobSpec, ...]:
    return compile_workflow(text, run="k3vq7m2ab4xz", only=only, pool="default")


def faults(text: str, only: tuple[str, ...] = ()) -> list[tuple[int, int, str, str]]:
    with pytest.raises(WorkflowError) as caught:
        compiled(text, only)
    return [(fault.line, fault.column, fault.pointer, fault.message) for fault in caught.value.faults]


def places(text: str) -> list[tuple[int, int, str]]:
    return [fault[:3] for fault in faults(text)]


def one_job(steps: str, job: str = "") -> str:
    """A file whose job begins in line 4 and whose steps begin in line 6 (7 with `job`)."""
    between = f"    {job}\n" if job else ""
    return f"on: push\n\njobs:\n  build:\n{between}    steps:\n" + steps


# -- meaning -----------------------------------------------------------------------------------------------------


def test_the_example_compiles() -> None:
    (job,) = compiled(HELLO.read_text())
    assert (job.job, job.key, job.timeout, job.env) == ("k3vq7m2ab4xz-1", "hello", 600.0, {"GREETING": "hello"})
    assert [(step.index, step.name, step.condition) for step in job.steps] == [
        (1, "Say hello", "success"),
        (2, "Leave something for the next step", "success"),
        (3, "Find it again", "success"),
        (4, "Clean up", "always"),
    ]
    assert job.steps[1].run == 'echo "FROM=step two" >> "$GITHUB_ENV"\ndate > stamp\n'


def test_every_key_of_a_step() -> None:
    text = one_job(
        "      - id: t1\n        name: Test\n        run: make test\n        shell: bash\n"
        "        working-directory: src\n        env: {A: 1, B: true, C: 3.10, D: ~, E: 'yes', F: no}\n"
        "        if: ${{ failure() }}\n        continue-on-error: true\n        timeout-minutes: 1.5\n"
    )
    step = compiled(text)[0].steps[0]
    assert (step.id, step.name, step.run, step.shell, step.working_directory) == (
        "t1", "Test", "make test", "bash", "src"
    )  # fmt: skip
    assert step.env == {"A": "1", "B": "true", "C": "3.10", "D": "", "E": "yes", "F": "no"}
    assert (step.condition, step.continue_on_error, step.timeout) == ("failure", True, 90.0)


def test_defaults_and_env_come_from_file_then_job_then_step() -> None:
    text = (
        "on: push\nenv: {A: file, B: file, C: file}\ndefaults: {run: {shell: sh, working-directory: top}}\n"
        "jobs:\n  a:\n    env: {B: job, C: job}\n    defaults: {run: {working-directory: inner}}\n"
        "    steps:\n      - {run: x, env: {C: step}}\n      - {run: y, shell: python, working-directory: own}\n"
        "  b:\n    steps: [{run: z}]\n"
    )
    a, b = compiled(text)
    assert a.env == {"A": "file", "B": "job", "C": "job"}
    assert a.steps[0].env == {"C": "step"}
    assert [(s.shell, s.working_directory) for s in a.steps] == [("sh", "inner"), ("python", "own")]
    assert (b.env["C"], b.steps[0].working_directory, b.job) == ("file", "top", "k3vq7m2ab4xz-2")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("always()", "always"), ("success()", "success"), ("failure()", "failure"), ("cancelled()", "cancelled"),
        ("${{ always() }}", "always"), ("'${{failure()}}'", "failure"), ("Always( )", "always"),
    ],
)  # fmt: skip
def test_conditions(written: str, meant: str) -> None:
    assert compiled(one_job(f"      - run: x\n        if: {written}\n"))[0].steps[0].condition == meant


def test_checkout_with_its_options() -> None:
    text = one_job("      - uses: actions/checkout@v4\n        with: {ref: main, path: src, fetch-depth: 0}\n")
    step = compiled(text)[0].steps[0]
    assert (step.kind, step.name) == ("checkout", "Run actions/checkout@v4")
    assert step.options == {"ref": "main", "path": "src", "fetch-depth": "0"}


@pytest.mark.parametrize(
    ("run", "name"),
    [("make test", "Run make test"), ("|\n          \n          one\n          two\n", "Run one"), ("x" * 400, None)],
)
def test_a_step_without_a_name_is_called_after_its_first_line(run: str, name: str | None) -> None:
    found = compiled(one_job(f"      - run: {run}\n"))[0].steps[0].name
    assert found == name if name else len(found) == 200 and found.endswith("…")


def test_what_changes_nothing_here_is_accepted() -> None:
    text = (
        "name: ci\nrun-name: by ${{ github.actor }}\non: [push, {schedule: [{cron: '1 1 * * *'}]}]\n"
        "permissions: read-all\nconcurrency: {group: '${{ github.ref }}', cancel-in-progress: true}\n"
        "jobs:\n  a:\n    runs-on: [self-hosted, linux]\n    permissions: {contents: read}\n    if: success()\n"
        "    concurrency: x\n    continue-on-error: false\n    steps: [{run: x}]\n"
    )
    assert len(compiled(text)) == 1


@pytest.mark.parametrize(
    ("runs_on", "labels"),
    [
        ("ubuntu-latest", ("ubuntu-latest",)), ("[self-hosted, Linux, BIG, big]", ("self-hosted", "linux", "big")),
        ("{group: gpus, labels: [a, b]}", ("gpus", "a", "b")), ("{labels: a}", ("a",)), ("{group: gpus}", ("gpus",)),
    ],
)  # fmt: skip
def test_what_a_job_runs_on(runs_on: str, labels: tuple[str, ...]) -> None:
    assert compiled(one_job("      - run: x\n", f"runs-on: {runs_on}"))[0].runs_on == labels


def test_only_the_wanted_jobs_are_looked_into() -> None:
    text = (
        "on: push\njobs:\n  a: {steps: [{run: x}]}\n  b: {name: Bee, steps: [{run: y}]}\n"
        "  c: {needs: a, strategy: {matrix: {x: [1]}}, steps: [{run: '${{ matrix.x }}'}]}\n"
    )
    assert [job.key for job in compiled(text, ("b", "a"))] == ["a", "b"]
    assert [job.key for job in compiled(text, ("Bee",))] == ["b"]
    assert faults(text, ("a", "d")) == [(0, 0, "/jobs/1", "the workflow has no job 'd'; it has 'a', 'b', 'c'")]


def test_anchors_stand_for_what_they_name() -> None:
    text = "on: push\nenv: &e {A: 1}\njobs:\n  a:\n    env: *e\n    steps: &s [{run: x}]\n  b:\n    steps: *s\n"
    a, b = compiled(text)
    assert a.env == {"A": "1"} and a.steps == b.steps


def test_finding_a_step() -> None:
    steps = "      - {run: a, id: x}\n      - {run: b, name: B}\n      - {run: c, name: B}\n      - {run: d, name: x}\n"
    (job,) = compiled(one_job(steps))
    assert [find_step(job, wanted) for wanted in (1, 4, "x", "Run a")] == [1, 4, 1, 1]
    for wanted, said in ((5, "1 'Run a', 2 'B', 3 'B', 4 'x'"), (0, "no step 0"), ("z", "no step 'z'"), ("B", "2, 3")):
        with pytest.raises(StepNotFound, match=said):
            find_step(job, wanted)


# -- faults ------------------------------------------------------------------------------------------------------

STEP = "/workflow/jobs/build/steps/0"


@pytest.mark.parametrize(
    ("steps", "line", "column", "pointer", "said"),
    [
        ("      - run: x\n        runn: x\n", 7, 9, f"{STEP}/runn", "unknown key 'runn'; did you mean `run`?"),
        ("      - name: x\n", 6, 9, STEP, "needs `run`"),
        ("      - run: x\n        uses: actions/checkout@v4\n", 6, 9, f"{STEP}/run", "exclude each other"),
        ("      - run: ''\n", 6, 14, f"{STEP}/run", "is empty"),
        ("      - run: x\n        with: {ref: y}\n", 7, 9, f"{STEP}/with", "belongs to `uses`"),
        ("      - run: x\n        if: github.ref == 'a'\n", 7, 13, f"{STEP}/if", 'is not supported yet'),
        ("      - run: x\n        if: ${{ always() && x }}\n", 7, 13, f"{STEP}/if", "always(), success()"),
        ("      - run: x\n        if: true\n", 7, 13, f"{STEP}/if", "not supported yet"),
        ("      - run: echo ${{ github.sha }}\n", 6, 19, f"{STEP}/run", "'${{ github.sha }}' is not supported yet"),
        ("      - run: |  # ${{ no }}\n          a\n          é ${{ b }}\n", 8, 13, f"{STEP}/run", "'${{ b }}'"),
        ("      - run: 'a\n\n         ${{ b }}'\n", 8, 10, f"{STEP}/run", "'${{ b }}'"),
        ("      - run: x\n        env: {A: '${{ secrets.T }}'}\n", 7, 19, f"{STEP}/env/A", "secrets.T"),
        ("      - run: x\n        name: ${{ x }}\n", 7, 15, f"{STEP}/name", "not supported yet"),
        ("      - run: x\n        timeout-minutes: ${{ x }}\n", 7, 26, f"{STEP}/timeout-minutes", "not supported yet"),
        ("      - run: x\n        timeout-minutes: 0\n", 7, 26, f"{STEP}/timeout-minutes", "more than 0"),
        ("      - run: x\n        timeout-minutes: .inf\n", 7, 26, f"{STEP}/timeout-minutes", "must be a number"),
        ("      - run: x\n        continue-on-error: yes\n", 7, 28, f"{STEP}/continue-on-error", "true or false"),
        ("      - run: x\n        shell: cmd\n", 7, 16, f"{STEP}/shell", "'cmd' is not supported"),
        ("      - run: x\n        shell: perl\n", 7, 16, f"{STEP}/shell", "like `perl {0}`"),
        ("      - run: x\n        shell: \"{0} x\"\n", 7, 16, f"{STEP}/shell", "is not supported"),
        ("      - run: x\n        shell: perl '{0}\n", 7, 16, f"{STEP}/shell", "no closing quotation"),
        ("      - run: x\n        id: 1x\n", 7, 13, f"{STEP}/id", "cannot be an id"),
        ("      - run: x\n        env: [A]\n", 7, 14, f"{STEP}/env", "must be a mapping"),
        ("      - run: x\n        env: {'A=B': c}\n", 7, 15, f"{STEP}/env/A=B", "name of a variable"),
        ("      - uses: foo/bar@v1\n", 6, 15, f"{STEP}/uses", "the action 'foo/bar@v1' is not supported"),
        ("      - uses: actions/checkout\n", 6, 15, f"{STEP}/uses", "write actions/checkout@v4"),
        ("      - uses: ./own\n", 6, 15, f"{STEP}/uses", "'./own'"),
        ("      - uses: actions/checkout@v4\n        with: {token: x}\n", 7, 16, f"{STEP}/with/token", "'token'"),
        ("      - uses: actions/checkout@v4\n        with: {lfs: 1}\n", 7, 21, f"{STEP}/with/lfs", "true or false"),
        ("      - uses: actions/checkout@v4\n        with: {submodules: deep}\n", 7, 28, f"{STEP}/with/submodules",
         "true, false or recursive"),
        ("      - uses: actions/checkout@v4\n        with: {path: ../x}\n", 7, 22, f"{STEP}/with/path", "relative"),
        ("      - uses: actions/checkout@v4\n        with: {path: /x}\n", 7, 22, f"{STEP}/with/path", "relative"),
        ("      - uses: actions/checkout@v4\n        with: {ref: --x}\n", 7, 21, f"{STEP}/with/ref", "branch"),
        ("      - uses: actions/checkout@v4\n        with: {fetch-depth: x}\n", 7, 29, f"{STEP}/with/fetch-depth",
         "must be a number of commits"),
        ("      - 5\n", 6, 9, STEP, "must be a mapping"),
        ("      -\n", 6, 8, STEP, "is empty"),
        ("      - run: x\n        run: y\n", 7, 9, f"{STEP}/run", "given twice; the first is in line 6"),
        ("      - run: {a: b}\n", 6, 14, f"{STEP}/run", "single value"),
        ("      - <<: *s\n", 6, 13, f"{STEP}/<<", "names the anchor *s"),
        ("      - &a [*a]\n", 6, 13, f"{STEP}/0", "contain itself"),
        ("      - run: !!str x\n", 6, 14, f"{STEP}/run", "tags are not supported"),
        ("      - ? [a]\n        : b\n", 6, 11, STEP, "not plain text"),
        ("      - run: \"\\0\"\n", 6, 14, f"{STEP}/run", "NUL"),
        ("      - run: x\n        working-directory: \"a\\nb\"\n", 7, 28, f"{STEP}/working-directory", "one line"),
    ],
)  # fmt: skip
def test_faults_of_a_step(steps: str, line: int, column: int, pointer: str, said: str) -> None:
    (fault,) = faults(one_job(steps))
    assert fault[:3] == (line, column, pointer)
    assert said in fault[3]


@pytest.mark.parametrize("written", ["debian:12", "{image: 'debian:12'}"])
def test_a_job_may_name_the_image_of_its_container(written: str) -> None:
    (job,) = compiled(one_job("      - run: x\n", f"container: {written}"))
    assert job.image == "debian:12"


@pytest.mark.parametrize(
    ("job", "column", "pointer", "said"),
    [
        ("needs: a", 5, "needs", "`needs` is not supported yet"),
        ("strategy: {matrix: {x: [1]}}", 5, "strategy", "`strategy` is not supported yet"),
        ("container: a b", 16, "container", "cannot be the name of an image"),
        ("container: {image: x, options: y}", 27, "container/options", "not supported yet"),
        ("container: {}", 16, "container", "has no `image`"),
        ("services: {}", 5, "services", "not supported yet"),
        ("outputs: {}", 5, "outputs", "not supported yet"),
        ("uses: ./x.yml", 5, "uses", "not supported yet"),
        ("secrets: inherit", 5, "secrets", "not supported yet"),
        ("environment: a b", 18, "environment", "cannot be a context"),
        ("environment: [a]", 18, "environment", "single value"),
        ("environment: {url: x}", 18, "environment", "has no `name`"),
        ("environment: {name: a/b}", 25, "environment/name", "cannot be a context"),
        ("if: failure()", 9, "if", "not supported yet"),
        ("if: github.ref", 9, "if", "not supported yet"),
        ("continue-on-error: true", 24, "continue-on-error", "set it on the steps"),
        ("runs-on: windows-2022", 14, "runs-on", "'windows-2022' cannot run here"),
        ("runs-on: [a, MacOS-14]", 18, "runs-on/1", "'MacOS-14' cannot run here"),
        ("runs-on: {labels: [windows]}", 24, "runs-on/labels/0", "Linux"),
        ("runs-on: ${{ matrix.os }}", 14, "runs-on", "matrix.os"),
        ("runs-on: []", 14, "runs-on", "names no label"),
        ("runs-on: {}", 14, "runs-on", "names no label"),
        ("timeout-minutes: -1", 22, "timeout-minutes", "more than 0"),
        ("defaults: {run: {shell: zsh}}", 29, "defaults/run/shell", "'zsh' is not supported"),
        ("Env: {}", 5, "Env", "did you mean `env`?"),
    ],
)
def test_faults_of_a_job(job: str, column: int, pointer: str, said: str) -> None:
    (fault,) = faults(one_job("      - run: x\n", job))
    assert fault[:3] == (5, column, f"/workflow/jobs/build/{pointer}")
    assert said in fault[3]


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", (1, 1, "/workflow"), "is empty"),
        ("# nothing\n", (1, 1, "/workflow"), "is empty"),
        ("~", (1, 1, "/workflow"), "is empty"),
        ("a", (1, 1, "/workflow"), "must be a mapping"),
        ("on: push\n", (1, 1, "/workflow"), "has no `jobs`"),
        ("jobs: {}\n", (1, 7, "/workflow/jobs"), "has no jobs"),
        ("jobs: [a]\n", (1, 7, "/workflow/jobs"), "must be a mapping"),
        ("jobs: {a: {}}\n", (1, 8, "/workflow/jobs/a"), "has no `steps`"),
        ("jobs: {a: {steps: []}}\n", (1, 19, "/workflow/jobs/a/steps"), "has no steps"),
        ("jobs: {1a: {steps: [{run: x}]}}\n", (1, 8, "/workflow/jobs/1a"), "cannot be the key of a job"),
        ("jobz: {}\njobs: {a: {steps: [{run: x}]}}\n", (1, 1, "/workflow/jobz"), "did you mean `jobs`?"),
        ("jobs:\n\ta: 1\n", (2, 1, "/workflow"), "not valid YAML"),
        ("jobs: [\n", (2, 1, "/workflow"), "not valid YAML"),
        ("a: 1\n---\nb: 2\n", (2, 1, "/workflow"), "more than one YAML document"),
        ("on: push\nx: \x01\n", (2, 4, "/workflow"), "not valid YAML"),
        ("on: \ud800", (0, 0, "/workflow"), "not valid Unicode"),
        ("x" * 300_000, (0, 0, "/workflow"), "is 300000 bytes long"),
        ('on: x\n"\\e[2J": 1', (2, 1, "/workflow"), "control characters"),
        ("k" * 201 + ": 1", (1, 1, "/workflow"), "key longer than 200"),
    ],
)  # fmt: skip
def test_faults_of_a_file(text: str, place: tuple[int, int, str], said: str) -> None:
    found = faults(text)
    assert found[0][:3] == place
    assert said in found[0][3]


def test_all_faults_are_told_at_once_in_the_order_of_the_text() -> None:
    text = (
        "on: push\nenvv: {}\njobs:\n  a:\n    needs: b\n    steps:\n      - runn: x\n      - run: x\n        if: x\n"
        "  b:\n    runs-on: macos-15\n    steps: []\n"
    )
    assert places(text) == [
        (2, 1, "/workflow/envv"),
        (5, 5, "/workflow/jobs/a/needs"),
        (7, 9, "/workflow/jobs/a/steps/0/runn"),
        (7, 9, "/workflow/jobs/a/steps/0"),
        (9, 13, "/workflow/jobs/a/steps/1/if"),
        (11, 14, "/workflow/jobs/b/runs-on"),
        (12, 12, "/workflow/jobs/b/steps"),
    ]


def test_an_id_is_unique_in_its_job() -> None:
    steps = "      - {run: x, id: a}\n      - {run: y, id: a}\n"
    assert faults(one_job(steps)) == [
        (7, 9, "/workflow/jobs/build/steps/1", "the id 'a' is that of step 1 already"),
    ]


def test_a_byte_order_mark_shifts_no_column() -> None:
    text = "\ufeff" + one_job("      - run: echo ${{ x }}\n")
    assert places(text) == [(6, 19, f"{STEP}/run")]


def test_a_slash_in_a_key_is_escaped_in_the_pointer() -> None:
    assert places(one_job("      - {run: x, 'a/b~c': 1}\n")) == [(6, 18, f"{STEP}/a~1b~0c")]


def test_bounds_on_counts() -> None:
    jobs = "jobs:\n" + "".join(f"  j{n}: {{steps: [{{run: x}}]}}\n" for n in range(65))
    assert "65 jobs; at most 64" in faults(jobs)[0][3]
    assert "201 steps; at most 200" in faults(one_job("      - run: x\n" * 201))[0][3]
    env = "{" + ", ".join(f"A{n}: 1" for n in range(201)) + "}"
    assert "201 variables; at most 200" in faults(one_job(f"      - run: x\n        env: {env}\n"))[0][3]


def test_so_many_faults_are_told_and_no_more() -> None:
    found = faults("jobs:\n" + "".join(f"  j{n}: {{}}\nx{n}: 1\n" if n < 1 else f"x{n}: 1\n" for n in range(5000)))
    assert len(found) == 101
    assert found[-1][3] == "reading stopped after 100 faults; there may be more"


def test_yaml_is_loaded_only_by_who_reads_a_workflow() -> None:
    code = "import sys, pitstop_common.workflow; sys.exit('yaml' in sys.modules or 'asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
