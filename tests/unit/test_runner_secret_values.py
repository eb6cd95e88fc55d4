"""The secrets of a running job: in its environment, and by name only in what is written down."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.limits import MIN_MASKED
from pitstop_common.spec import JobSpec, RunSpec, StepSpec
from pitstop_sandbox.events import Exports, StepEnded
from pitstop_sandbox.model import begin
from pitstop_sandbox.steps.environment import surroundings
from pitstop_sandbox.steps.secret_values import NO_SECRETS, SecretValues

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
SECRETS = st.dictionaries(st.sampled_from(["A", "TOKEN", "P_2"]), TEXT, min_size=1)


@given(SECRETS, st.lists(TEXT), st.data())
def test_what_is_written_down_names_them_and_reads_the_same(
    values: dict[str, str], words: list[str], data: st.DataObject
) -> None:
    secrets = SecretValues(values)
    text = "".join(data.draw(st.permutations([*words, *values.values()])))
    hidden = secrets.hide(text)
    assert secrets.show(hidden) == text
    assert not any(value in part for part in hidden.split("\0")[::2] for value in secrets.masks)


@given(SECRETS)
def test_the_end_of_a_step_holds_none(values: dict[str, str]) -> None:
    secrets = SecretValues(values)
    long = [value for value in values.values() if len(value.encode()) >= MIN_MASKED]
    event = StepEnded(step=1, tries=1, exports=Exports(env=dict.fromkeys("XY", "".join(long))), masks=tuple(long))
    written = secrets.ended(event)
    assert all(not part for one in (*written.exports.env.values(), *written.masks) for part in one.split("\0")[::2])
    assert [secrets.show(mask) for mask in written.masks] == long


def state_of(env: dict[str, str], exported: dict[str, str]) -> object:
    job = JobSpec(job="aaaaaaaaaaaa-1", key="b", name="b", steps=(StepSpec(index=1, name="one", run="true"),), env=env)
    run = RunSpec(run="aaaaaaaaaaaa", org="acme", project="web", request="r", actor="ada", jobs=(job,))
    return msgspec.structs.replace(begin(run, job, 1), env=exported)


def test_variables_of_the_workflow_stand_above_those_of_a_context() -> None:
    secrets = SecretValues({"A": "from the context", "B": "as well", "PATH": "/own"})
    state = state_of({"A": "from the workflow"}, {"C": secrets.hide("Bearer as well")})
    env = surroundings(state, 1, "/home/runner/work", secrets=secrets)  # type: ignore[arg-type]
    assert (env["A"], env["B"], env["C"]) == ("from the workflow", "as well", "Bearer as well")
    assert env["PATH"].startswith("/own:")
    assert "B" not in surroundings(state, 1, "/home/runner/work")  # type: ignore[arg-type]


def test_a_job_without_secrets_pays_nothing() -> None:
    exports = Exports(env={"A": "b"})
    assert NO_SECRETS.exports(exports) is exports
