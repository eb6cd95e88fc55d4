"""Who may do what: roles of an org, words of its projects, and what each verb needs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.roles import EVERYBODY, ROLES, ProjectRules, Role, at_least
from pitstop_scheduler.model import Org
from pitstop_scheduler.roles import highest_role, may_enter, org_role, project_role

USERS = ("ada", "bob", "carl")
ROLE = st.sampled_from(ROLES)
TABLE = st.dictionaries(st.sampled_from((*USERS, EVERYBODY)), ROLE, max_size=4)
RULES = st.builds(ProjectRules, ssh=st.booleans(), ssh_role=st.sampled_from(("write", "admin")), roles=TABLE)
ORG = st.builds(
    Org, roles=st.none() | TABLE, rules=st.dictionaries(st.sampled_from(("web", "api")), RULES, max_size=2)
)  # fmt: skip


def org(roles: dict[str, Role] | None = None, **rules: Any) -> Org:
    return Org(roles=roles, rules={project: ProjectRules(**said) for project, said in rules.items()})


def test_without_a_table_everybody_writes() -> None:
    assert [org_role(org(), "ada"), project_role(org(), "ada", "web"), highest_role(org(), "ada")] == ["write"] * 3


def test_with_a_table_who_is_not_named_has_nothing() -> None:
    assert org_role(org({"ada": "admin"}), "bob") == "none"
    assert org_role(org({"ada": "admin", "*": "read"}), "bob") == "read"


@pytest.mark.parametrize(
    ("table", "own", "role"),
    [
        ({"ada": "read"}, {"ada": "write"}, "write"),
        ({"ada": "write"}, {"ada": "none"}, "none"),
        ({"ada": "write"}, {"*": "none"}, "none"),
        ({"ada": "write"}, {"*": "none", "ada": "read"}, "read"),
        ({"ada": "admin"}, {"ada": "none"}, "admin"),
        ({"ada": "write"}, {"bob": "none"}, "write"),
        (None, {"ada": "read"}, "read"),
    ],
)
def test_the_nearest_word_counts(table: dict[str, Role] | None, own: dict[str, Role], role: Role) -> None:
    assert project_role(org(table, web={"roles": own}), "ada", "web") == role


@given(ORG, st.sampled_from(USERS), st.sampled_from(("web", "api", "other")))
def test_nobody_is_more_in_a_project_than_anywhere(held: Org, user: str, project: str) -> None:
    assert at_least(highest_role(held, user), project_role(held, user, project))
    if org_role(held, user) == "admin":
        assert project_role(held, user, project) == "admin"


@given(ORG, st.sampled_from(USERS), st.sampled_from(("web", "api", "other")))
def test_who_enters_has_the_role_and_the_project_is_open(held: Org, user: str, project: str) -> None:
    role = project_role(held, user, project)
    barred = may_enter(held, "acme", project, user, role)
    rules = held.rules.get(project, ProjectRules())
    assert (barred is None) == (rules.ssh and at_least(role, rules.ssh_role))
    if barred is not None:
        assert barred.code == ("ssh_role" if rules.ssh else "ssh_disabled")
        assert "pitstop apply -f org.toml" in barred.text and f"acme/{project}" in barred.text


def test_a_refusal_names_the_cause_and_who_can_change_it() -> None:
    held = org({"ada": "read", "eve": "admin"}, web={"ssh": False})
    shut, low = may_enter(held, "acme", "web", "ada", "write"), may_enter(held, "acme", "api", "ada", "read")
    assert shut is not None and low is not None
    assert shut.text == (
        "SSH is disabled for project acme/web. An admin of acme (eve) can allow it: `ssh = true` under [projects.web] "
        "in the org's file, then `pitstop apply -f org.toml`"
    )
    assert low.text == (
        "ada has the role read in acme/api, and SSH needs write. An admin of acme (eve) can change it: "
        '`ada = "write"` under [roles] in the org\'s file, then `pitstop apply -f org.toml`'
    )
